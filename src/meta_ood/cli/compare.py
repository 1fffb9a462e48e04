"""Commands that put evaluations, meta classifiers and experiments side by side."""

from pathlib import Path

import click

from meta_ood.cli import options
from meta_ood.cli.options import EXISTING_FOLDER, EXPERIMENTS, FILE, PATH, Texts, read_text


@click.command()
@click.argument("roots", nargs=-1, type=EXISTING_FOLDER)
@click.option("--seeds", is_flag=True, help="Mean, spread and n over seeds, of all tracked runs.")
@click.option("--experiments", type=EXPERIMENTS, help="The same of what `dvc exp show --csv` prints; -: stdin.")
@click.option("--protocols", is_flag=True, help="AUROC / AUPRC / FPR95 in every protocol instead.")
@options.as_json
def compare(roots: tuple[Path, ...], seeds: bool, experiments: Path | None, protocols: bool, as_json: bool) -> None:
    """Compare evaluations.

    With one folder (data/evaluate by default): variants and networks in pairs, with 95 % intervals from resampled
    scenes. With several folders, one per run or seed, with --seeds or with --experiments: mean, standard deviation,
    extremes and n of every cell.
    """
    from meta_ood.report import compare as report
    from meta_ood.report.results import read_evaluations

    if (len(roots) > 0) + seeds + (experiments is not None) > 1:
        raise click.UsageError("folders, --seeds and --experiments exclude each other")
    if protocols and (seeds or experiments):
        raise click.UsageError("--protocols takes folders")
    folders = roots or (Path("data/evaluate"),)
    # one folder is compared within, several with each other
    if protocols:
        records = [
            {"root": str(folder), **{name: getattr(one, name) for name in ("network", "variant", "dataset")}}
            | {"protocols": one.section("protocols")}
            for folder in folders
            for one in read_evaluations(folder).values()
        ]
        options.answer(as_json, records, "\n\n".join(report.protocols_text(folder) for folder in folders))
        return
    if not (seeds or experiments or len(folders) > 1):
        evaluations = read_evaluations(folders[0])
        options.answer(as_json, report.pair_records(evaluations), report.pairs_text(evaluations))
        return
    if experiments:
        settings = report.read_experiments(read_text(experiments))
    elif seeds:
        settings = report.group_by_setting(report.Repetition(*one) for one in _tracked())
    else:
        settings = report.group_by_setting(
            report.Repetition(key, {"seed": str(folder)}, one.metrics)
            for folder in folders
            for key, one in read_evaluations(folder).items()
        )
    options.answer(as_json, report.spread_records(settings), report.spreads_text(settings))


def _tracked() -> list[tuple[tuple[str, str, str], dict[str, str], dict[str, float]]]:
    """Return cell, setting and metrics of the evaluations in the tracking store."""
    from meta_ood.tracking import location, query, store

    root = location.root()
    if found := query.evaluations(store.open_store(root)):
        return found
    raise ValueError(
        f"{location.without_password(location.store_uri(root))}: no finished run of evaluate with the tag `group`; "
        "`dvc repro` or `meta-ood evaluate` makes some, `meta-ood sync` records them"
    )


@click.command()
@click.argument("tables", nargs=-1, required=True, type=PATH)
@click.option("--classifier", "classifiers", multiple=True, help="Only these classifiers; repeatable.")
@click.option("--folds", multiple=True, help="Only these fold schemes; repeatable.")
@click.option("--most-fits", type=click.IntRange(1), default=400, help="Leave out schemes that need more fits.")
@click.option("--max-lost", type=click.FloatRange(0, 1), help="Most true segments that may be lost, as a fraction.")
@options.out_option(None, "Markdown file.", FILE)
@options.as_json
def compare_meta(
    tables: tuple[Path, ...],
    classifiers: Texts,
    folds: Texts,
    most_fits: int,
    max_lost: float | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Compare meta classifiers on TABLES, files that the stage `segments` wrote.

    Cross-validated on each table in each fold scheme; with several tables also trained on one and tested on each other.
    """
    from meta_ood.data.files import write_text
    from meta_ood.meta_classification import CLASSIFIERS, FOLDS
    from meta_ood.report.compare_meta import as_markdown, compare
    from meta_ood.segments.table_file import read_table

    classifiers, folds = classifiers or tuple(CLASSIFIERS), folds or tuple(FOLDS)
    options.check_names("classifier", CLASSIFIERS, *classifiers)
    options.check_names("folds", FOLDS, *folds)
    # names of datasets, unless two tables share one
    names = [table.stem for table in tables]
    if len(set(names)) < len(names):
        names = [table.as_posix() for table in tables]
    read = {name: read_table(table) for name, table in zip(names, tables, strict=True)}
    rows = compare(read, classifiers, folds, most_fits, max_lost)
    text = as_markdown(rows)
    if out:
        write_text(out, text)
    options.answer(as_json, [row._asdict() for row in rows], str(out or text.removesuffix("\n")))


@click.command()
@click.argument("file", type=EXPERIMENTS)
@options.out_option("outputs/pareto.html", "The page.", FILE)
@click.option("--title", default="meta-ood experiments")
def pareto(file: Path, out: Path, title: str) -> None:
    """Plot AUPRC against mIoU of the experiments in FILE, and mark the Pareto-optimal ones.

    FILE is what `dvc exp show --csv` prints, - is standard input. Experiments that differ in the seed alone are
    averaged.
    """
    from meta_ood.data.files import write_text
    from meta_ood.report.compare import read_experiments
    from meta_ood.report.page import pareto_page

    write_text(out, pareto_page(title, read_experiments(read_text(file))))
    click.echo(out)


@click.command()
@click.argument("dataset")
@click.option("--evaluations", type=EXISTING_FOLDER, default=Path("data/evaluate"), help="What evaluate wrote.")
@options.as_json
def thresholds(dataset: str, evaluations: Path, as_json: bool) -> None:
    """Print the best-F1 thresholds of DATASET, of every network and variant, for params.yaml.

    With them in evaluate.component_thresholds, the component metrics of the score maps use no ground truth of any other
    set; on DATASET itself they do.
    """
    from meta_ood.report.compare import best_thresholds

    found = best_thresholds(evaluations, dataset)
    lines = ["evaluate:", f"  component_thresholds:       # best F1 on {dataset}"]
    for network, variants in found.items():
        lines.append(f"    {network}: {{{', '.join(f'{name}: {value:.9g}' for name, value in variants.items())}}}")
    options.answer(as_json, found, "\n".join(lines))
