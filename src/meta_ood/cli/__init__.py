"""The command line: one command per stage, and tools. No other room imports click.

One module per group of commands. Commands are loaded when they are called, and import what they need when they run, so
that ``--help`` answers at once.
"""

import importlib
import io
import logging
import sys
from functools import partial
from pathlib import Path
from typing import Any

import click

from meta_ood import __version__
from meta_ood.cli import remedies

STAGES: dict[str, str] = {
    "synthesize": "Draw the demo world in the real datasets' folder layouts.",
    "prepare": "Raw dataset -> frames.csv and encoded targets.",
    "pretrain": "Baseline network: cross entropy from scratch, or imported weights.",
    "train": "OoD training: entropy maximisation on proxy objects.",
    "statistics": "Training frames -> statistics that some scores of `infer` need.",
    "infer": "Images -> stored logits at the network's own stride.",
    "segments": "Logits -> table of OoD segments with their features.",
    "meta": "Meta classification: which segments are false alarms.",
    "evaluate": "Metrics, curves and pictures of one network, variant and dataset.",
    "detector": "Weights and meta classifier as one folder, which `detect` and servers load.",
    "report": "All results as one self-contained HTML page.",
}
"""Stage -> what it does; the order is that of the pipeline."""

GROUPS: dict[str, dict[str, str]] = {
    "Apply a detector": {
        "detect": "detect",
        **dict.fromkeys(("manifest", "scan", "tracks"), "scan"),
        "serve": "detect",
        "export": "models",
        **dict.fromkeys(("similar", "cluster", "export-alarms"), "alarms"),
    },
    "Judge any score maps": {"evaluate-maps": "detect", "submit": "detect"},
    "Compare": dict.fromkeys(("compare", "compare-meta", "pareto", "thresholds"), "compare"),
    "Runs and models": dict.fromkeys(("ui", "sync", "lineage", "reproduce", "promote"), "tracking"),
    "Set up and look after": {
        "data": "data",
        **dict.fromkeys(("networks", "scores", "weights"), "models"),
        **dict.fromkeys(("code", "roles", "repair"), "stages"),
        **dict.fromkeys(("doctor", "completion"), "environment"),
    },
}
"""Purpose -> tool -> module of this package; the function is named like the tool."""

TOOLS = {tool: module for group in GROUPS.values() for tool, module in group.items()}


# the first screen of --help
_FIRST_STEPS = (
    ("meta-ood detect --demo", "see it find objects"),
    ("meta-ood detect PHOTOS --detector FOLDER", "find them in your photos"),
    ("meta-ood evaluate-maps --scores A --targets B", "judge anybody's score maps"),
    ("dvc repro", "run the whole pipeline"),
    ("meta-ood ui", "see runs, curves and models"),
    ("meta-ood doctor", "check the installation"),
)


class InputError(click.ClickException):
    """Wrong input, which a user can correct; `remedy` is the last line."""

    exit_code = 2

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy

    def show(self, file: Any = None) -> None:
        """Print message and remedy."""
        click.echo(f"{click.style('Error:', fg='red', bold=True)} {self.message}", file, err=True)
        click.echo(f"{click.style('To do:', fg='cyan', bold=True)} {self.remedy}", file, err=True)


class LazyGroup(click.Group):
    """A group that imports a command's module only when the command is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Stages in pipeline order, then tools."""
        return [*STAGES, *TOOLS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return the command, None if there is no such one."""
        # imported here: torch, mlflow and others take seconds
        if cmd_name in STAGES:
            from meta_ood.cli.stages import stage_command

            return stage_command(cmd_name, STAGES[cmd_name])
        if cmd_name not in TOOLS:
            return None
        module: Any = importlib.import_module(f"meta_ood.cli.{TOOLS[cmd_name]}")
        return getattr(module, cmd_name.replace("-", "_"))  # type: ignore[no-any-return]

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the first screen: what this is, where to begin, the names of the commands."""
        title = partial(click.style, bold=True)
        formatter.write_usage(ctx.command_path, "[-v | -q] COMMAND …")
        formatter.write(f"\n{(self.help or '').splitlines()[0]}\n")
        with formatter.section(title("First steps")):
            formatter.write_dl(_FIRST_STEPS, col_max=46)
        with formatter.section(title("Commands")):
            named = {"Stages of the pipeline": STAGES, **GROUPS}
            formatter.write_dl(
                [(click.style(purpose, fg="cyan"), "  ".join(group)) for purpose, group in named.items()]
            )
        formatter.write("\nOf one command: meta-ood COMMAND --help. All of them, a line each: meta-ood --help-all.\n")

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List stages with the parameter sections they read, then tools by purpose."""
        from meta_ood.config import SECTIONS

        with formatter.section("Stages (and the parameters that --set may change)"):
            formatter.write_dl([(name, f"{text}  [{', '.join(SECTIONS[name])}]") for name, text in STAGES.items()])
        for purpose, tools in GROUPS.items():
            with formatter.section(purpose):
                commands = {name: self.get_command(ctx, name) for name in tools}
                formatter.write_dl([(name, tool.get_short_help_str(100)) for name, tool in commands.items() if tool])

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
            command = ctx.invoked_subcommand or ""
            # our own errors
            if isinstance(error, ValueError | OSError):
                raise InputError(str(error), remedies.remedy(error, command)) from error
            # what MLflow raises if its store fails during a command; mlflow is not imported for this test
            if type(error).__module__ == "mlflow.exceptions":
                from meta_ood.tracking.location import short_reason

                text = f"the tracking store failed: {short_reason(error)}"
                raise InputError(text, remedies.remedy(error, command)) from error
            if isinstance(error, ImportError) and (install := remedies.missing_package(error)):
                what, _, how = install.partition(": ")
                raise InputError(what, how) from error
            raise  # a defect keeps its traceback


def _help_all(ctx: click.Context, option: click.Parameter, wanted: bool) -> None:
    """Print what click makes of the options and commands."""
    if wanted:
        formatter = ctx.make_formatter()
        click.Group.format_help(main, ctx, formatter)
        click.echo(formatter.getvalue().rstrip())
        ctx.exit()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(__version__, prog_name="meta-ood")
@click.option("-v", "--verbose", is_flag=True, help="Debug messages, and tracebacks of errors.")
@click.option("-q", "--quiet", is_flag=True, help="Warnings only, no progress bars.")
@click.option(
    *("--help-all", "help_all"),
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_help_all,
    help="Show all commands, a line each, and exit.",
)
def main(verbose: bool, quiet: bool) -> None:
    """Detect out-of-distribution objects in semantic segmentation.

    Every stage takes --set KEY=VALUE for any value of params.yaml, as often as needed: meta-ood train --network
    deeplabv3plus_mini --set train.ood_weight=0.5. meta-ood STAGE --help lists a stage's parameters. The whole pipeline:
    dvc repro.

    Exit codes: 0 done, 1 a defect (traceback), 2 wrong input or usage, 130 interrupted.
    """
    # modules of one's own that params.yaml names: `python -m meta_ood`, which DVC runs, finds them in this folder too
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)
    level = logging.DEBUG if verbose else logging.WARNING if quiet else logging.INFO
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(levelname).1s %(name)s: %(message)s"))
    logger = logging.getLogger("meta_ood")
    logger.handlers[:] = [handler]
    logger.setLevel(level)
    logger.propagate = False  # libraries that configure the root logger would print everything twice
