"""Commands that put evaluations, meta classifiers and experiments side by side."""

from pathlib import Path

import click

from meta_ood.cli import options
from meta_ood.cli.options import EXISTING_FOLDER, EXPERIMENTS, read_text


@click.command()
@click.argument("roots", nargs=-1, type=EXISTING_FOLDER)
@click.option("--seeds", is_flag=True, help="Mean, spread and n over seeds, of all tracked runs.")
@click.option("--experiments", type=EXPERIMENTS, help="The same of what `dvc exp show --csv` prints; -: stdin.")
@click.option("--protocols", is_flag=True, help="AUROC / AUPRC / FPR95 in every protocol instead.")
def compare(roots: tuple[Path, ...], seeds: bool, experiments: Path | None, protocols: bool) -> None:
    """Compare evaluations.

    With one folder (data/evaluate by default): variants and networks in pairs, with 95 % intervals from resampled
    scenes. With several folders, one per run or seed, with --seeds or with --experiments: mean, standard deviation,
    extremes and n of every cell.
    """
    from meta_ood.report.compare import (
        Repetition,
        group_by_setting,
        pairs_text,
        protocols_text,
        read_experiments,
        spreads_text,
    )
    from meta_ood.report.results import read_evaluations

    if (len(roots) > 0) + seeds + (experiments is not None) > 1:
        raise click.UsageError("folders, --seeds and --experiments exclude each other")
    if protocols and (seeds or experiments):
        raise click.UsageError("--protocols takes folders")
    folders = roots or (Path("data/evaluate"),)
    # one folder is compared within, several with each other
    if protocols:
        click.echo("\n\n".join(protocols_text(folder) for folder in folders))
    elif seeds:
        click.echo(spreads_text(group_by_setting(Repetition(*one) for one in _tracked())))
    elif experiments:
        click.echo(spreads_text(read_experiments(read_text(experiments))))
    elif len(folders) > 1:
        runs = [
            Repetition(key, {"seed": str(folder)}, one.metrics)
            for folder in folders
            for key, one in read_evaluations(folder).items()
        ]
        click.echo(spreads_text(group_by_setting(runs)))
    else:
        click.echo(pairs_text(read_evaluations(folders[0])))


def _tracked() -> list[tuple[tuple[str, str, str], dict[str, str], dict[str, float]]]:
    """Return cell, setting and metrics of the evaluations in the tracking store."""
    from meta_ood.tracking import location, query, store

    root = location.root()
    found = query.evaluations(store.open_store(root))
    if not found:
        uri = location.without_password(location.store_uri(root))
        raise ValueError(
            f"{uri}: no finished run of evaluate with the tag `group`; "
            "`dvc repro` or `meta-ood evaluate` makes some, `meta-ood sync` records them"
        )
    return found


@click.command()
@click.argument("tables", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--classifier", "classifiers", multiple=True, help="Only these classifiers; repeatable.")
@click.option("--folds", multiple=True, help="Only these fold schemes; repeatable.")
@click.option(
    "--most-fits",
    type=click.IntRange(1),
    default=400,
    show_default=True,
    help="Leave out leave-one-out of a classifier that would need more fits.",
)
@click.option(
    "--max-lost",
    type=click.FloatRange(0, 1),
    help="Fraction of true segments that may be lost, instead of removing at probability 0.5.",
)
@options.out_file(None, "Markdown file.")
def compare_meta(
    tables: tuple[Path, ...],
    classifiers: tuple[str, ...],
    folds: tuple[str, ...],
    most_fits: int,
    max_lost: float | None,
    out: Path | None,
) -> None:
    """Compare meta classifiers on TABLES, files that the stage `segments` wrote.

    Cross-validated on each table in each fold scheme; with several tables also trained on one and tested on each other.
    """
    from meta_ood.data.files import write_text
    from meta_ood.meta_classification import CLASSIFIERS, FOLDS
    from meta_ood.report.compare_meta import as_markdown, compare
    from meta_ood.segments.table_file import read_table

    options.check_names("classifier", CLASSIFIERS, *classifiers)
    options.check_names("folds", FOLDS, *folds)
    # names of datasets, unless two tables share one
    stems = [table.stem for table in tables]
    names = stems if len(set(stems)) == len(stems) else [table.as_posix() for table in tables]
    rows = compare(
        {name: read_table(table) for name, table in zip(names, tables, strict=True)},
        classifiers or tuple(CLASSIFIERS),
        folds or tuple(FOLDS),
        most_fits,
        max_lost,
    )
    text = as_markdown(rows)
    if out is None:
        click.echo(text, nl=False)
    else:
        write_text(out, text)
        click.echo(str(out))


@click.command()
@click.argument("file", type=EXPERIMENTS)
@options.out_file("outputs/pareto.html", "The page.")
@click.option("--title", default="meta-ood experiments", show_default=True)
def pareto(file: Path, out: Path, title: str) -> None:
    """Plot AUPRC against mIoU of the experiments in FILE, and mark the Pareto-optimal ones.

    FILE is what `dvc exp show --csv` prints, - is standard input. Experiments that differ in the seed alone are
    averaged.
    """
    from meta_ood.data.files import write_text
    from meta_ood.report.compare import read_experiments
    from meta_ood.report.page import pareto_page

    write_text(out, pareto_page(title, read_experiments(read_text(file))))
    click.echo(str(out))


@click.command()
@click.argument("dataset")
@click.option(
    "--evaluations",
    type=EXISTING_FOLDER,
    default=Path("data/evaluate"),
    show_default=True,
    help="Folder of the evaluations.",
)
def thresholds(dataset: str, evaluations: Path) -> None:
    """Print the best-F1 thresholds of DATASET, of every network and variant, for params.yaml.

    With them in evaluate.component_thresholds, the component metrics of the score maps use no ground truth of any other
    set; on DATASET itself they do.
    """
    from meta_ood.report.compare import thresholds_text

    click.echo(thresholds_text(evaluations, dataset))
