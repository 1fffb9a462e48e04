"""The command line: one command per stage, and tools. No other room imports click.

One module per group of commands. Commands are loaded when they are called, and import what they need when they run, so
that ``--help`` answers at once.
"""

import importlib
import io
import logging
import sys
from typing import Any

import click

from meta_ood import __version__

STAGES: dict[str, str] = {
    "synthesize": "Draw the demo world in the real datasets' folder layouts.",
    "prepare": "Raw dataset -> frames.csv and encoded targets.",
    "pretrain": "Baseline network: cross entropy from scratch, or imported weights.",
    "train": "OoD training: entropy maximisation on proxy objects.",
    "infer": "Images -> stored logits at the network's own stride.",
    "segments": "Logits -> table of OoD segments with their features.",
    "meta": "Meta classification: which segments are false alarms.",
    "evaluate": "Metrics, curves and pictures of one network, variant and dataset.",
    "detector": "Weights and meta classifier as one folder, which `detect` and servers load.",
    "report": "All results as one self-contained HTML page.",
}
"""Stage -> what it does; the order is that of the pipeline."""

COMMANDS: dict[str, tuple[str, str]] = {
    "code": ("stages", "Digests of the stages' code, which DVC depends on."),
    "compare": ("compare", "Evaluations side by side, with intervals."),
    "detect": ("detect", "OoD segments in your images."),
    "serve": ("detect", "A detector behind HTTP."),
    "evaluate-maps": ("detect", "Metrics of any score maps."),
    "compare-meta": ("compare", "Meta classifiers in one table."),
    "lineage": ("tracking", "Where a file, run or model comes from."),
    "sync": ("tracking", "Record runs of stages that DVC ran or took from its cache."),
    "ui": ("tracking", "Serve MLflow's pages; prints the address of the runs."),
    "export": ("models", "Networks as ONNX or torch.export programs."),
    "promote": ("tracking", "Make a network champion if it passes the gate."),
    "repair": ("stages", "Repair dvc.lock after a kill or a full disk."),
    "reproduce": ("tracking", "How to get a run's outputs again."),
    "data": ("data", "Check, link and audit raw datasets; write miniatures."),
    "submit": ("detect", "Score maps in the formats of benchmark servers."),
    "networks": ("models", "Architectures, and what they cost."),
    "pareto": ("compare", "Experiments side by side: detection, cost."),
    "thresholds": ("compare", "Thresholds chosen on one set."),
    "weights": ("models", "Import released weights; look at a file."),
}
"""Tool -> (module of this package, what it does); the function is named like the tool."""


class InputError(click.ClickException):
    """Wrong input, which a user can correct."""

    exit_code = 2


class LazyGroup(click.Group):
    """A group that imports a command's module only when the command is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Stages in pipeline order, then tools."""
        return [*STAGES, *COMMANDS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return the command, None if there is no such one."""
        # imported here: torch, mlflow and others take seconds
        if cmd_name in STAGES:
            from meta_ood.cli.stages import stage_command

            return stage_command(cmd_name, STAGES[cmd_name])
        if cmd_name not in COMMANDS:
            return None
        module: Any = importlib.import_module(f"meta_ood.cli.{COMMANDS[cmd_name][0]}")
        return getattr(module, cmd_name.replace("-", "_"))  # type: ignore[no-any-return]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List stages with the parameter sections they read, then tools; import nothing heavy."""
        from meta_ood.config import SECTIONS

        with formatter.section("Stages (and the parameters that --set may change)"):
            formatter.write_dl([(name, f"{text}  [{', '.join(SECTIONS[name])}]") for name, text in STAGES.items()])
        with formatter.section("Tools"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run a command; what a terminal's encoding lacks is printed as ``?``, not an error."""
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="replace")
        return super().main(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        """Report wrong input in one line, with exit code 2 and without a traceback."""
        try:
            return super().invoke(ctx)
        except Exception as error:
            if ctx.params.get("verbose"):
                raise
            # our own errors
            if isinstance(error, ValueError | OSError):
                raise InputError(str(error)) from error
            # what MLflow raises if its store fails during a command; mlflow is not imported for this test
            if type(error).__module__ == "mlflow.exceptions":
                from meta_ood.tracking.location import short_reason

                raise InputError(f"the tracking store failed: {short_reason(error)}") from error
            raise  # a defect keeps its traceback


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(__version__, prog_name="meta-ood")
@click.option("-v", "--verbose", is_flag=True, help="Debug messages, and tracebacks of errors.")
@click.option("-q", "--quiet", is_flag=True, help="Warnings only, no progress bars.")
def main(verbose: bool, quiet: bool) -> None:
    """Detect out-of-distribution objects in semantic segmentation.

    Every stage takes --set KEY=VALUE for any value of params.yaml, as often as needed: meta-ood train --network
    deeplabv3plus_mini --set train.ood_weight=0.5. meta-ood STAGE --help lists a stage's parameters. The whole pipeline:
    dvc repro.

    Exit codes: 0 done, 1 a defect (traceback), 2 wrong input or usage, 130 interrupted.
    """
    level = logging.DEBUG if verbose else logging.WARNING if quiet else logging.INFO
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(levelname).1s %(name)s: %(message)s"))
    logger = logging.getLogger("meta_ood")
    logger.handlers[:] = [handler]
    logger.setLevel(level)
    logger.propagate = False  # libraries that configure the root logger would print everything twice
