"""``meta-ood compare``: evaluations side by side, with intervals or with the spread over runs."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("roots", nargs=-1, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--protocols", is_flag=True, help="AUROC / AUPRC / FPR95 in every protocol instead.")
def compare(roots: tuple[Path, ...], protocols: bool) -> None:
    """Compare evaluations.

    With one folder (data/evaluate by default): variants and networks in pairs, with 95 % intervals
    from resampled scenes. With several folders, one per run or seed: mean, standard deviation,
    extremes and n of every cell.
    """
    from meta_ood import evaluation

    folders = roots or (Path("data/evaluate"),)
    if protocols:
        click.echo("\n\n".join(evaluation.protocols_text(folder) for folder in folders))
        return
    runs = [evaluation.read_evaluations(folder) for folder in folders]
    click.echo(evaluation.comparison_text(runs))
