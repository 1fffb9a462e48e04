"""One click command per stage, all made by the same function: resolve, track, call."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from meta_ood import config
from meta_ood.data.context import Machine
from meta_ood.pipeline import paths as layout

EXPERIMENTS = click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path)
"""What ``dvc exp show --csv`` prints, as a file or from standard input."""


def read_text(path: Path) -> str:
    """Return the text of a file; - is standard input."""
    return sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8")


def stage_command(stage: str, text: str) -> click.Command:
    """Return the command of `stage`; its options are the stage's keys and the common ones."""
    keys = layout.STAGES[stage]
    options: list[click.Parameter] = [
        click.Option([f"--{key}"], required=True, help=f"Name of the {key} in the params file.")
        for key in keys
    ]
    options += [
        click.Option(
            ["--params"],
            type=click.Path(dir_okay=False, path_type=Path),
            default=Path("params.yaml"),
            show_default=True,
            help="The params file.",
        ),
        click.Option(
            ["--set", "overrides"],
            multiple=True,
            metavar="KEY=VALUE",
            help="Override a value of the params file; repeatable.",
        ),
        click.Option(
            ["--out"],
            type=click.Path(file_okay=False, path_type=Path),
            default=Path("data"),
            show_default=True,
            help="Folder that the stage writes below; its inputs are read below data.",
        ),
        click.Option(
            ["--device"],
            default="auto",
            show_default=True,
            type=click.Choice(["auto", "cpu", "cuda"]),
            help="Where networks run.",
        ),
        click.Option(
            ["--workers"],
            type=click.IntRange(1),
            default=os.cpu_count() or 1,
            show_default="number of cores",
            help="Processes or threads for independent images.",
        ),
        click.Option(["--track/--no-track"], default=True, help="Log to MLflow, or do not."),
    ]
    if stage == "report":
        text_of = "What `dvc exp show --csv` prints: adds a section over seeds; needs --out."
        options.append(click.Option(["--experiments"], type=EXPERIMENTS, help=text_of))

    def callback(
        params: Path,
        overrides: tuple[str, ...],
        out: Path,
        device: str,
        workers: int,
        track: bool,
        experiments: Path | None = None,
        **chosen: str,
    ) -> None:
        if experiments and out.resolve() == layout.DATA.resolve():
            raise click.UsageError(
                f"--experiments needs --out other than {layout.DATA}: what DVC owns holds the "
                "results of one run"
            )
        run_stage(
            stage,
            chosen,
            params_file=params,
            overrides=overrides,
            out=out,
            machine=Machine(device, workers),
            track=track,
            more={"experiments": read_text(experiments)} if experiments else {},
        )

    lines = [
        f"  {key}: {expected}"
        for section in config.SECTIONS[stage]
        for key, expected in config.describe(section)
    ]
    epilog = "\b\nParameters (--set KEY=VALUE):\n" + ("\n".join(lines) or "  none")
    return click.Command(stage, params=options, callback=callback, help=text, epilog=epilog)


def run_stage(
    stage: str,
    keys: dict[str, str],
    *,
    params_file: Path,
    overrides: Sequence[str] = (),
    out: Path = Path("data"),
    machine: Machine | None = None,
    track: bool = True,
    more: Mapping[str, Any] | None = None,
) -> None:
    """Run one instance of a stage, tracked.

    Parameters
    ----------
    more
        Arguments of the stage's function beyond its keys and paths.

    Raises
    ------
    ConfigError
        If the params file or an override is wrong.
    FileNotFoundError
        If an input is missing; says which stage makes it.
    """
    from meta_ood import tracking

    params = config.load(params_file, overrides)
    paths = layout.stage_paths(stage, params, out=out, **keys)
    for name, path in paths.inputs.items():
        if not path.exists():
            raise FileNotFoundError(
                f"{path}, the {name} of stage {stage}, does not exist: "
                f"run the stages before it (dvc repro), or see data/README.md for raw datasets"
            )
    for path in paths.outputs.values():
        path.parent.mkdir(parents=True, exist_ok=True)
    values = config.stage_values(params, stage, **keys)
    with tracking.run(
        stage,
        keys=keys,
        params=values,
        inputs=paths.inputs,
        setting=layout.setting_of(params, stage, **keys),
        experiment=params.tracking.experiment,
        enabled=track,
    ) as run:
        module: Any = importlib.import_module(f"meta_ood.pipeline.{stage}")
        module.run(
            params,
            **keys,
            **paths.inputs,
            **paths.outputs,
            **(more or {}),
            log=run.log,
            machine=machine or Machine(),
        )
        run.outputs(paths.outputs)
    if stage == "report" and "DVC_STAGE" not in os.environ:
        click.echo((paths.outputs["report"] / "results.txt").read_text(encoding="utf-8"))
