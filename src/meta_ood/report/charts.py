"""Curves of one network on one evaluation set as SVG that follows the page's light or dark mode."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape

import numpy as np

from meta_ood.report import plots
from meta_ood.report.plots import Axis, Line, Style
from meta_ood.report.results import Cell, Columns, Results

COLOURS = {"baseline": "#7486a8", "ood_trained": "#e06c00"}
"""Variant -> colour on light and dark ground; the baseline is dashed too."""
OTHER = "#1f9e77"
"""Colour of any other variant."""
NETWORKS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Colours of networks, after Okabe and Ito: told apart also by the colour-blind."""
KINDS: dict[str, Style] = {"in_distribution": "dotted", "ood": "solid"}
NAMES = {"in_distribution": "known pixels", "ood": "OoD pixels"}

_ENDS = np.array([0.0, 1.0])
_DIAGONAL = Line("", _ENDS, _ENDS, plots.GRID, "dotted")
"""Where what is said is what is seen."""


@dataclass(frozen=True)
class Chart:
    """A plot for the page: its title and its SVG element, which carries its description."""

    title: str
    svg: str


def charts(cells: Sequence[Cell], prefix: str) -> list[Chart]:
    """Plot ROC, precision-recall, scores, FP-FN trade-off, calibration and reliability.

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
        _calibration(cells, f"{prefix}-calibration"),
        _reliability(cells, f"{prefix}-reliability"),
    )
    return [chart for chart in found if chart is not None]


def _with(cells: Sequence[Cell], stem: str, *columns: str) -> list[tuple[Cell, Columns]]:
    """Return the cells that have the curve, with at least one row."""
    return [
        (cell, cell.curves[stem])
        for cell in cells
        if stem in cell.curves and all(len(cell.curves[stem].get(column, ())) for column in columns)
    ]


def _colour(cell: Cell) -> str:
    return COLOURS.get(cell.variant, OTHER)


def _line(cell: Cell, curve: Columns, x: str, y: str, key: str = "") -> Line:
    """Return a cell's curve, named by its figure `key`, baseline dashed."""
    style: Style = "dashed" if cell.variant == "baseline" else "solid"
    value = cell.value(key) if key else None
    label = "" if value is None else f"{100 * value:.1f} %"
    return Line(label, curve[x], curve[y], _colour(cell), style)


def _rates(cells: Sequence[Cell], prefix: str) -> Chart | None:
    x, y = "false_positive_rate", "true_positive_rate"
    found = _with(cells, "roc", x, y)
    if not found:
        return None
    svg = plots.curves(
        [_line(cell, curve, x, y, "auroc") for cell, curve in found],
        Axis("false positive rate", (0, 1)),
        Axis("true positive rate", (0, 1.01)),
        guides=[("y", 0.95)],
    )
    words = "; ".join(f"{cell.variant}: {_said(cell, 'auroc', 'fpr95')}" for cell, _ in found)
    return Chart("ROC, AUROC", inline(svg, prefix, f"ROC curves. {words}."))


def _precision(cells: Sequence[Cell], prefix: str) -> Chart | None:
    found = _with(cells, "pr", "recall", "precision")
    if not found:
        return None
    svg = plots.curves(
        [_line(cell, curve, "recall", "precision", "auprc") for cell, curve in found],
        Axis("recall", (0, 1)),
        Axis("precision", (0, 1.01)),
    )
    words = "; ".join(f"{cell.variant}: {_said(cell, 'auprc')}" for cell, _ in found)
    return Chart(
        "Precision and recall, AUPRC", inline(svg, prefix, f"Precision-recall curves. {words}.")
    )


def _distribution(cells: Sequence[Cell], prefix: str) -> Chart | None:
    found = _with(cells, "histogram", "score", "in_distribution", "ood")
    lines = []
    for cell, curve in found:
        for column, style in KINDS.items():
            total = curve[column].sum()
            if total:
                share = np.where(curve[column] > 0, curve[column] / total, np.nan)
                name = NAMES[column] if cell is found[-1][0] else ""
                lines.append(Line(name, curve["score"], share, _colour(cell), style))
    if len({line.label for line in lines} - {""}) < 2:
        return None
    svg = plots.curves(lines, Axis("score"), Axis("share of pixels", (1e-4, 1), log=True))
    text = "Distribution of the score over known and OoD pixels, one pair of lines a variant."
    return Chart("Scores of pixels", inline(svg, prefix, text))


def _trade_off(cells: Sequence[Cell], prefix: str) -> Chart | None:
    x, y = "false_positives", "false_negatives"
    found = [(c, curve) for c, curve in _with(cells, "trade_off", x, y) if curve[y].any()]
    if not found:
        return None
    lines = []
    for cell, curve in found:
        left, missed = (cell.value(f"segment_{name}_after_meta") for name in (x, y))
        mark = None if left is None or missed is None else (left, missed)
        lines.append(replace(_line(cell, curve, x, y), mark=mark))
    most = 1.03 * max(line.y.max() for line in lines)
    svg = plots.curves(lines, Axis("false segments left"), Axis("objects missed", (0, most)))
    text = "False segments left against objects missed, over the meta classifier's threshold."
    return Chart("Meta classification", inline(svg, prefix, text))


def _calibration(cells: Sequence[Cell], prefix: str) -> Chart | None:
    found = _with(cells, "meta_calibration", "predicted", "observed", "segments")
    if not found:
        return None
    lines, words = [_DIAGONAL], list[str]()
    for cell, curve in found:
        gap = np.abs(curve["predicted"] - curve["observed"])
        error = f"{100 * np.average(gap, weights=curve['segments']):.1f} %"
        lines.append(replace(_line(cell, curve, "predicted", "observed"), label=error))
        words.append(f"{cell.variant}: expected calibration error {error}")
    svg = plots.curves(
        lines, Axis("probability of being false", (0, 1)), Axis("false segments, share", (0, 1.01))
    )
    text = f"Calibration of the meta classifier out of fold. {'; '.join(words)}."
    return Chart("Meta classification, calibration error", inline(svg, prefix, text))


def _reliability(cells: Sequence[Cell], prefix: str) -> Chart | None:
    found = [
        (cell, curve)
        for cell, curve in _with(cells, "reliability", "confidence", "accuracy")
        if cell.value("miou") is not None
    ]
    if not found:
        return None
    lines = [_DIAGONAL] + [
        _line(cell, curve, "confidence", "accuracy", "calibration_error") for cell, curve in found
    ]
    svg = plots.curves(lines, Axis("confidence", (0, 1)), Axis("accuracy", (0, 1.01)))
    words = "; ".join(f"{cell.variant}: {_said(cell, 'calibration_error')}" for cell, _ in found)
    return Chart("Reliability, calibration error", inline(svg, prefix, f"Reliability. {words}."))


def cost_charts(results: Results, prefix: str) -> list[Chart]:
    """Plot gain against cost: AUPRC on each OoD set over mIoU, baseline to OoD-trained.

    Returns
    -------
    One plot for each set for which a network has all four figures; a network's mIoU is the mean
    over the sets whose known classes are labelled.
    """
    found: list[Chart] = []
    for dataset in results.datasets:
        lines, words = [], []
        for index, network in enumerate(results.networks):
            pair, miou = results.pair(network, dataset), _mean_miou(results, network)
            values = [cell.value("auprc") for cell in pair] if pair else [None]
            if None in values or miou is None:
                continue
            y = np.array(values, np.float64)
            x = np.array(miou, np.float64)
            end = (100 * float(x[1]), 100 * float(y[1]))
            colour = NETWORKS[index % len(NETWORKS)]
            lines.append(Line(network, 100 * x, 100 * y, colour, "solid", mark=end))
            words.append(
                f"{network}: mIoU {100 * x[0]:.1f} to {end[0]:.1f} %, "
                f"AUPRC {100 * y[0]:.1f} to {end[1]:.1f} %"
            )
        if lines:
            svg = plots.curves(lines, Axis("mIoU [%]"), Axis("AUPRC [%]", (0, 100)))
            text = f"Gain against cost on {dataset}. {'; '.join(words)}."
            found.append(Chart(dataset, inline(svg, f"{prefix}-{len(found)}", text)))
    return found


def _mean_miou(results: Results, network: str) -> tuple[float, float] | None:
    """Return the network's mIoU before and after, over the sets that have both."""
    pairs = [pair for d in results.datasets if (pair := results.pair(network, d))]
    values = [(b.value("miou"), a.value("miou")) for b, a in pairs]
    known = [(b, a) for b, a in values if b is not None and a is not None]
    if not known:
        return None
    return sum(b for b, _ in known) / len(known), sum(a for _, a in known) / len(known)


def _said(cell: Cell, *keys: str) -> str:
    values = ((key, cell.value(key)) for key in keys)
    said = [f"{key.replace('_', ' ')} {100 * v:.1f} %" for key, v in values if v is not None]
    return ", ".join(said) or "no figure"


def inline(svg: bytes, prefix: str, description: str) -> str:
    """Turn a file of :func:`meta_ood.report.plots.curves` into an element of a page.

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
    body = body.replace(plots.INK, "var(--ink-soft)").replace(plots.GRID, "var(--line)")
    body = body.replace("font-family: 'DejaVu Sans'; ", "")
    return re.sub(r"\s*\n\s*", " ", f"{head}>{body}".strip()).replace("> <", "><")
