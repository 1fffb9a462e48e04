"""Curves of one network on one evaluation set as SVG that follows the page's light or dark mode."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from meta_ood import figures
from meta_ood.figures import Axis, Line
from meta_ood.reporting.results import Cell, Columns

COLOURS = {"baseline": "#7486a8", "ood_trained": "#e06c00"}
"""Variant -> colour on light and dark ground; the baseline is dashed too."""


@dataclass(frozen=True)
class Chart:
    """A plot for the page: its title, what it shows in words, and its SVG element."""

    title: str
    description: str
    svg: str


def charts(cells: Sequence[Cell], prefix: str) -> list[Chart]:
    """Plot ROC, precision-recall, score distribution and FP-FN trade-off of `cells` in one each.

    Parameters
    ----------
    cells
        The variants of one network on one evaluation set.
    prefix
        Makes the SVG's ids unique in the page.

    Returns
    -------
    Only the plots for which a cell has the curve.
    """
    found = (
        _rates(cells, f"{prefix}-roc"),
        _precision(cells, f"{prefix}-pr"),
        _distribution(cells, f"{prefix}-histogram"),
        _trade_off(cells, f"{prefix}-trade-off"),
    )
    return [chart for chart in found if chart is not None]


def _with(cells: Sequence[Cell], stem: str, *columns: str) -> list[tuple[Cell, Columns]]:
    return [
        (cell, cell.curves[stem])
        for cell in cells
        if stem in cell.curves and set(columns) <= set(cell.curves[stem])
    ]


def _named(cell: Cell, key: str) -> str:
    value = cell.value(key)
    return cell.variant if value is None else f"{cell.variant} {100 * value:.1f} %"


def _line(cell: Cell, x: str, y: str, curve: Columns, label: str) -> Line:
    style = "dashed" if cell.variant == "baseline" else "solid"
    return Line(label, curve[x], curve[y], COLOURS.get(cell.variant, "#1f9e77"), style)  # type: ignore[arg-type]


def _rates(cells: Sequence[Cell], prefix: str) -> Chart | None:
    x, y = "false_positive_rate", "true_positive_rate"
    found = _with(cells, "roc", x, y)
    if not found:
        return None
    lines = [_line(cell, x, y, curve, _named(cell, "auroc")) for cell, curve in found]
    svg = figures.curves(
        lines,
        Axis("false positive rate", (0, 1)),
        Axis("true positive rate", (0, 1.01)),
        guides=[("y", 0.95)],
    )
    words = "; ".join(f"{cell.variant}: {_said(cell, 'auroc', 'fpr95')}" for cell, _ in found)
    return Chart("ROC", f"ROC curves. {words}.", inline(svg, prefix, f"ROC curves. {words}."))


def _precision(cells: Sequence[Cell], prefix: str) -> Chart | None:
    found = _with(cells, "pr", "recall", "precision")
    if not found:
        return None
    lines = [_line(c, "recall", "precision", curve, _named(c, "auprc")) for c, curve in found]
    svg = figures.curves(lines, Axis("recall", (0, 1)), Axis("precision", (0, 1.01)))
    words = "; ".join(f"{cell.variant}: {_said(cell, 'auprc')}" for cell, _ in found)
    text = f"Precision-recall curves. {words}."
    return Chart("Precision and recall", text, inline(svg, prefix, text))


def _distribution(cells: Sequence[Cell], prefix: str) -> Chart | None:
    found = _with(cells, "histogram", "score", "in_distribution", "ood")
    if not found:
        return None
    lines = []
    for cell, curve in found:
        for column, style in (("in_distribution", "dotted"), ("ood", "solid")):
            density = curve[column] / max(curve[column].sum(), 1e-12)
            name = f"{cell.variant}: {'OoD' if column == 'ood' else 'known'}"
            colour = COLOURS.get(cell.variant, "#1f9e77")
            lines.append(Line(name, curve["score"], np.sqrt(density), colour, style))  # type: ignore[arg-type]
    svg = figures.curves(lines, Axis("score"), Axis("share of pixels (square root)"))
    text = "Distribution of the score over known and OoD pixels, before and after OoD training."
    return Chart("Score distribution", text, inline(svg, prefix, text))


def _trade_off(cells: Sequence[Cell], prefix: str) -> Chart | None:
    x, y = "false_positives", "false_negatives"
    found = _with(cells, "trade_off", x, y)
    if not found:
        return None
    lines = []
    for cell, curve in found:
        line = _line(cell, x, y, curve, cell.variant)
        point = [cell.value(f"segment_{name}_after_meta") for name in (x, y)]
        mark = None if None in point else (point[0] or 0.0, point[1] or 0.0)
        lines.append(Line(line.label, line.x, line.y, line.colour, line.style, mark))
    svg = figures.curves(lines, Axis("false segments left"), Axis("objects missed"))
    text = "False segments left against objects missed, over the meta classifier's threshold."
    return Chart("Meta classification", text, inline(svg, prefix, text))


def _said(cell: Cell, *keys: str) -> str:
    values = ((key, cell.value(key)) for key in keys)
    said = [f"{key.upper()} {100 * v:.1f} %" for key, v in values if v is not None]
    return ", ".join(said) or "no figure"


def inline(svg: bytes, prefix: str, description: str) -> str:
    """Turn a file of :func:`meta_ood.figures.curves` into an element of a page.

    Colours of text, axes and grid become the page's variables, ids unique, names of groups and
    everything that only a file needs go.

    Examples
    --------
    >>> inline(b'<?xml?><svg width="9" xmlns="a"><g id="axes_1" style="fill: #3f4654"/></svg>',
    ...        "c1", "A plot.")
    '<svg role="img" aria-label="A plot." class="chart"><g style="fill: var(--ink-soft)"/></svg>'
    """
    text = svg.decode("utf-8")
    text = text[text.index("<svg") :]
    head, _, body = text.partition(">")
    head = re.sub(r'\s(?:xmlns(?::xlink)?|version|width|height)="[^"]*"', "", head)
    head = head.replace("<svg", f'<svg role="img" aria-label="{escape(description)}" class="chart"')
    body = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", body, flags=re.DOTALL)
    hashed = r"[pmhC][0-9a-f]{10}|C[0-9a-f_]+"
    body = re.sub(rf'\sid="(?!(?:{hashed})[_"])[^"]*"', "", body)
    body = re.sub(r'\sid="', f' id="{prefix}-', body)
    body = body.replace('xlink:href="#', f'href="#{prefix}-').replace("url(#", f"url(#{prefix}-")
    body = body.replace(figures.INK, "var(--ink-soft)").replace(figures.GRID, "var(--line)")
    body = body.replace("font-family: 'DejaVu Sans'; ", "")
    return re.sub(r"\s*\n\s*", " ", f"{head}>{body}".strip()).replace("> <", "><")
