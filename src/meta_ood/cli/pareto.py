"""``meta-ood pareto``: experiments side by side, detection against segmentation."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True, path_type=Path))
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("outputs/pareto.html"),
    show_default=True,
    help="The page.",
)
@click.option("--title", default="meta-ood experiments", show_default=True)
def pareto(file: Path, out: Path, title: str) -> None:
    """Plot AUPRC against mIoU of the experiments in FILE, and what none beats.

    FILE is what `dvc exp show --csv` prints, - is standard input. Experiments that differ in the
    seed alone are averaged.
    """
    from meta_ood.reporting.sweep import read_experiments, sweep_page

    text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    experiments = read_experiments(text)
    page = sweep_page(title, experiments)
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    temporary.write_text(page, encoding="utf-8")
    temporary.replace(out)
    click.echo(f"{len(experiments)} experiments: {out}")
