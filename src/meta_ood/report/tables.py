"""The results table as text, Markdown and CSV: one row per network, variant and evaluation set."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from meta_ood.report.results import Cell


@dataclass(frozen=True)
class Column:
    """One headline figure.

    Attributes
    ----------
    key
        Key in metrics.json.
    title
        Column title, in two lines of the printed table.
    kind
        ``percent`` for fractions, ``count`` for numbers of segments.
    better
        Which direction is good.
    """

    key: str
    title: tuple[str, str]
    kind: Literal["percent", "count"]
    better: Literal["higher", "lower"]

    def text(self, value: float | None) -> str:
        """Return a value as it is printed; a dash where it is undefined.

        Examples
        --------
        >>> COLUMNS[0].text(0.98765), COLUMNS[3].text(12.0), COLUMNS[0].text(None)
        ('98.8', '12', '–')
        """
        if value is None:
            return "–"
        return f"{100 * value:.1f}" if self.kind == "percent" else f"{value:.0f}"

    def gain(self, before: float | None, after: float | None) -> float | None:
        """Return how much better `after` is than `before`, negative if worse, None if unknown.

        Examples
        --------
        >>> round(COLUMNS[1].gain(0.3, 0.1), 6)
        0.2
        """
        if before is None or after is None:
            return None
        return after - before if self.better == "higher" else before - after


COLUMNS: tuple[Column, ...] = (
    Column("auroc", ("AUROC", "%"), "percent", "higher"),
    Column("fpr95", ("FPR95", "%"), "percent", "lower"),
    Column("auprc", ("AUPRC", "%"), "percent", "higher"),
    Column("segment_false_positives", ("FP", "before"), "count", "lower"),
    Column("segment_false_positives_after_meta", ("FP", "after"), "count", "lower"),
    Column("segment_false_negatives", ("FN", "before"), "count", "lower"),
    Column("segment_false_negatives_after_meta", ("FN", "after"), "count", "lower"),
    Column("miou", ("mIoU", "%"), "percent", "higher"),
)
"""The printed columns; FP and FN segments before and after meta classification."""

KEYS = ("network", "dataset", "variant")
EXTRA = (
    "true_segments_removed",
    "segment_f1",
    "segment_f1_after_meta",
    "component_f1",
    "component_f1_after_meta",
)
"""Keys that the CSV file has beside those of the printed table."""


def text_table(cells: Sequence[Cell]) -> str:
    """Return the results as a table for a terminal, at most 120 characters wide in the demo.

    Parameters
    ----------
    cells
        One row each; a key equal to that of the row above is not repeated.

    Examples
    --------
    >>> metrics = {"auroc": 0.961, "auprc": 0.44, "fpr95": 0.109, "segment_false_positives": 7}
    >>> print(text_table([Cell("mini", "baseline", "lost_and_found", metrics)]))
    network  dataset         variant   AUROC  FPR95  AUPRC      FP     FP      FN     FN  mIoU
                                           %      %      %  before  after  before  after     %
    ------------------------------------------------------------------------------------------
    mini     lost_and_found  baseline   96.1   10.9   44.0       7      –       –      –     –
    <BLANKLINE>
    FP, FN: false positive and false negative segments before and after meta classification.
    """
    head = [[*KEYS, *(c.title[0] for c in COLUMNS)], ["", "", "", *(c.title[1] for c in COLUMNS)]]
    body: list[list[str]] = []
    last = ("", "")
    for cell in cells:
        key = (cell.network, cell.dataset)
        names = ["" if key == last else cell.network, "" if key == last else cell.dataset]
        body.append([*names, cell.variant, *(c.text(cell.value(c.key)) for c in COLUMNS)])
        last = key
    widths = [max(len(row[i]) for row in head + body) for i in range(len(head[0]))]
    lines = ["  ".join(_justified(row, widths)).rstrip() for row in head + body]
    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    note = (
        "FP, FN: false positive and false negative segments before and after meta classification."
    )
    return "\n".join([*lines[:2], rule, *lines[2:], "", note])


def _justified(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    texts = len(KEYS)
    return [
        text.ljust(width) if index < texts else text.rjust(width)
        for index, (text, width) in enumerate(zip(row, widths, strict=True))
    ]


def markdown_table(cells: Sequence[Cell]) -> str:
    """Return the results as a Markdown table, every row complete.

    Examples
    --------
    >>> print(markdown_table([Cell("mini", "baseline", "val", {"miou": 0.845})]).splitlines()[-1])
    | mini | val | baseline | – | – | – | – | – | – | – | 84.5 |
    """
    titles = [f"{a} {'[%]' if b == '%' else b}" for a, b in (c.title for c in COLUMNS)]
    lines = [
        f"| {' | '.join([*KEYS, *titles])} |",
        f"|{' --- |' * len(KEYS)}{' ---: |' * len(COLUMNS)}",
    ]
    for cell in cells:
        values = (c.text(cell.value(c.key)) for c in COLUMNS)
        lines.append(f"| {' | '.join([cell.network, cell.dataset, cell.variant, *values])} |")
    return "\n".join(lines)


def csv_table(cells: Sequence[Cell]) -> str:
    """Return the results as CSV with a header; fractions in [0, 1], empty where undefined.

    Examples
    --------
    >>> print(csv_table([Cell("mini", "baseline", "val", {"miou": 0.845})]).splitlines()[1])
    mini,val,baseline,,,,,,,,0.845,,,,,
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    keys = [*(c.key for c in COLUMNS), *EXTRA]
    writer.writerow([*KEYS, *keys])
    for cell in cells:
        values = (cell.value(key) for key in keys)
        writer.writerow(
            [cell.network, cell.dataset, cell.variant]
            + ["" if v is None else f"{v:.10g}" for v in values]
        )
    return buffer.getvalue()
