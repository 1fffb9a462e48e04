"""The options that several commands share, each defined once."""

import json
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import click

from meta_ood.data import files
from meta_ood.data.registry import lookup

Function = TypeVar("Function", bound=Callable[..., Any])
Option = Callable[[Function], Function]
Texts = tuple[str, ...]

# Kinds of paths. Only those that exist are checked by click: stages give better answers for the others.
PATH = click.Path(path_type=Path)
FILE = click.Path(dir_okay=False, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)
EXISTING_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
EXISTING_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
# What `dvc exp show --csv` prints, as a file or, for -, from standard input.
EXPERIMENTS = click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path)

network = click.option("--network", required=True, help="Name of the network in the params file.")
variant = click.option("--variant", required=True, help="baseline or ood_trained.")
dataset = click.option("--dataset", required=True, help="Name of the dataset in the params file.")
KEYS: dict[str, Option[Any]] = {"network": network, "variant": variant, "dataset": dataset}  # of a stage's instance

params_file = click.option("--params", "params_file", type=FILE, default=Path("params.yaml"), help="The params file.")
overrides = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a value of the params file; repeatable."
)
device = click.option(
    "--device", default="auto", type=click.Choice(["auto", "cpu", "cuda"]), help="Where networks run."
)
_cores = os.cpu_count() or 1
workers = click.option(
    "--workers",
    type=click.IntRange(1),
    default=_cores,
    show_default="all cores",
    help="Processes or threads for images.",
)
engine = click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    help="Workers on this machine, or of a ray cluster.",
)
address = click.option(
    "--address", envvar="RAY_ADDRESS", show_envvar=True, help="Of the ray cluster; else one is started on this machine."
)
track = click.option("--track/--no-track", default=True, help="Log to MLflow, or do not.")
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")


def out_option(default: str | None, text: str, kind: click.Path = FOLDER) -> Option[Any]:
    """Return the option --out of a command."""
    return click.option("--out", type=kind, default=Path(default) if default else None, help=text)


def answer(as_json: bool, value: Any, text: str) -> None:
    """Print the result of a command: `value` as JSON, in which what is not finite is null, or `text`."""
    if as_json:
        from meta_ood.evaluation.summary import plain  # imported here: numpy and others take their time

        text = json.dumps(plain(value), indent=1, ensure_ascii=False, allow_nan=False)
    click.echo(text)


def read_text(path: Path) -> str:
    """Return the text of a file; ``-`` is standard input."""
    return sys.stdin.read() if str(path) == "-" else files.read_text(path)


def check_names(kind: str, registry: Iterable[str], *names: str) -> None:
    """Refuse unknown names: commands call this before they look at any file."""
    for name in names:
        lookup(kind, dict.fromkeys(registry), name)
