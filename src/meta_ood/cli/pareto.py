"""``meta-ood pareto``: experiments side by side, detection against segmentation."""

from __future__ import annotations

import os
from pathlib import Path

import click

from meta_ood.cli.stages import EXPERIMENTS, read_text


@click.command()
@click.argument("file", type=EXPERIMENTS)
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
    from meta_ood.report.experiments import read_experiments
    from meta_ood.report.sweep import sweep_page

    page = sweep_page(title, read_experiments(read_text(file)))
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    temporary.write_text(page, encoding="utf-8")
    temporary.replace(out)
    click.echo(str(out))
