"""How sure a change is: paired differences over resampled scenes."""

from __future__ import annotations

from html import escape

import numpy as np

from meta_ood.report.markup import chip, head_cells, signed, wide
from meta_ood.report.results import Cell, Results
from meta_ood.report.tables import COLUMNS, Column

_KEYS = (
    "auroc",
    "fpr95",
    "auprc",
    "segment_false_positives_after_meta",
    "segment_false_negatives_after_meta",
    "miou",
)
_COLUMNS = tuple(column for key in _KEYS for column in COLUMNS if column.key == key)

FEW = 10
"""Below so many scenes the page warns of the intervals."""


def paired_interval(before: Cell, after: Cell, key: str) -> tuple[float, float] | None:
    """Return the 95 % interval of ``after - before`` of a metric.

    Both cells hold replicates of the metric over the same resampled scenes (``bootstrap.csv``), so
    that what is hard for both does not blur their difference.

    Returns
    -------
    ``(low, high)``, None if there are no paired replicates or fewer than half are defined.

    Examples
    --------
    >>> def cell(values):
    ...     return Cell("n", "v", "d", {}, {"bootstrap": {"auroc": np.array(values)}})
    >>> paired_interval(cell([0.5, 0.6, 0.7]), cell([0.7, 0.8, 0.9]), "auroc")
    (0.2, 0.2)
    """
    columns = [cell.curves.get("bootstrap", {}).get(key) for cell in (before, after)]
    first, second = columns
    if first is None or second is None or len(first) != len(second) or not len(first):
        return None
    difference = second - first
    known = difference[np.isfinite(difference)]
    if 2 * len(known) < len(difference):
        return None
    low, high = np.quantile(known, [0.025, 0.975]).round(12)
    return float(low), float(high)


def could_be_chance(before: Cell, after: Cell, key: str) -> bool:
    """Return whether the interval of the difference holds zero; False where it is not known."""
    ends = paired_interval(before, after, key)
    return ends is not None and ends[0] <= 0 <= ends[1]


def differences_section(results: Results) -> str:
    """Return the differences with their intervals, one row per set and network."""
    body = []
    for before, after in results.pairs:
        cells = [_difference(column, before, after) for column in _COLUMNS]
        if any(cells):
            values = "".join(f"<td>{cell or '–'}</td>" for cell in cells)
            body.append(
                f'<tr class="first"><th scope="row">{escape(after.dataset)}'
                f'<span class="unit">{escape(after.network)}</span></th>{values}</tr>'
            )
    if not body:
        return ""
    units = {"percent": "points", "count": "segments"}
    titles = [("evaluation set", "network")]
    titles += [(column.title[0], units[column.kind]) for column in _COLUMNS]
    table = (
        f"<table><thead><tr>{head_cells(titles, 1)}</tr></thead>"
        f"<tbody>{''.join(body)}</tbody></table>"
    )
    return (
        '<h2 id="differences">How sure is that</h2><p class="soft">OoD-trained minus baseline, '
        "with 95&nbsp;% intervals from drawing whole scenes again and again, the same for both. FP "
        "and FN after meta classification. "
        '<span class="chip good unsure">Dashed</span>: the interval holds 0, so it could be '
        f"chance.{_few(results)}</p>{wide(table, 'How sure is that')}"
    )


def _few(results: Results) -> str:
    """Name the sets with so few scenes that their intervals are too narrow to be believed."""
    scenes = {cell.dataset: cell.value("scenes") for cell in results.ordered}
    few = [f"{escape(name)} ({n:.0f})" for name, n in scenes.items() if n is not None and n < FEW]
    return f" Too narrow where there are few scenes: {', '.join(few)}." if few else ""


def _difference(column: Column, before: Cell, after: Cell) -> str:
    """Return a difference and its interval; empty without interval."""
    ends = paired_interval(before, after, column.key)
    if ends is None:
        return ""
    unsure = could_be_chance(before, after, column.key)
    mark = chip(column, before.value(column.key), after.value(column.key), is_unsure=unsure)
    return f'{mark}<span class="range">{" to ".join(signed(column, end) for end in ends)}</span>'
