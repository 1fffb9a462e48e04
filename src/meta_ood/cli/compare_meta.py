"""``meta-ood compare-meta``: meta classifiers, fold schemes and transfer in one table."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("compare-meta")
@click.argument("tables", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--classifier", "classifiers", multiple=True, help="Only these classifiers; repeatable."
)
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
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Markdown file.")
def compare_meta(
    tables: tuple[Path, ...],
    classifiers: tuple[str, ...],
    folds: tuple[str, ...],
    most_fits: int,
    max_lost: float | None,
    out: Path | None,
) -> None:
    """Compare meta classifiers on TABLES, files that the stage `segments` wrote.

    Cross-validated on each table in each fold scheme; with several tables also trained on one and
    tested on each other.
    """
    from meta_ood.meta_classification import CLASSIFIERS, FOLDS
    from meta_ood.report.compare_meta import as_markdown, compare
    from meta_ood.segments.table_file import read_table

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
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = out.with_name(f".{out.name}.tmp")
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(out)
