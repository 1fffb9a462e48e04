"""``meta-ood compare``: evaluations side by side, with intervals or with the spread over runs."""

from __future__ import annotations

from pathlib import Path

import click

from meta_ood.cli.stages import EXPERIMENTS, read_text


@click.command()
@click.argument("roots", nargs=-1, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--seeds", is_flag=True, help="Mean, spread and n over seeds, of all tracked runs.")
@click.option(
    "--experiments",
    type=EXPERIMENTS,
    help="The same of what `dvc exp show --csv` prints; -: stdin.",
)
@click.option("--protocols", is_flag=True, help="AUROC / AUPRC / FPR95 in every protocol instead.")
def compare(
    roots: tuple[Path, ...], seeds: bool, experiments: Path | None, protocols: bool
) -> None:
    """Compare evaluations.

    With one folder (data/evaluate by default): variants and networks in pairs, with 95 % intervals
    from resampled scenes. With several folders, one per run or seed, with --seeds or with
    --experiments: mean, standard deviation, extremes and n of every cell.
    """
    from meta_ood.report import compare as comparing
    from meta_ood.report.experiments import Run, gather, read_experiments, spreads_text

    if (len(roots) > 0) + seeds + (experiments is not None) > 1:
        raise click.UsageError("folders, --seeds and --experiments exclude each other")
    if protocols and (seeds or experiments):
        raise click.UsageError("--protocols takes folders")
    folders = roots or (Path("data/evaluate"),)
    if protocols:
        click.echo("\n\n".join(comparing.protocols_text(folder) for folder in folders))
    elif seeds:
        click.echo(
            spreads_text(
                gather([Run(settings, cell, figures) for cell, settings, figures in _tracked()])
            )
        )
    elif experiments:
        click.echo(spreads_text(read_experiments(read_text(experiments))))
    elif len(folders) > 1:
        runs = [
            Run({"seed": str(folder)}, key, one.figures)
            for folder in folders
            for key, one in comparing.read_evaluations(folder).items()
        ]
        click.echo(spreads_text(gather(runs)))
    else:
        click.echo(comparing.comparison_text(comparing.read_evaluations(folders[0])))


def _tracked() -> list[tuple[tuple[str, str, str], dict[str, str], dict[str, float]]]:
    """Return cell, setting and figures of the evaluations in the tracking store."""
    from meta_ood.tracking import facts, query

    found = query.evaluations(query.open_store(facts.root()))
    if not found:
        raise ValueError(
            f"{facts.store_uri(facts.root())}: no finished run of evaluate with the tag `group`; "
            "`dvc repro` or `meta-ood evaluate` makes some, `meta-ood sync` restores them"
        )
    return found
