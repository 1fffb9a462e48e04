"""The page's plots: SVG elements that follow the page's light and dark mode.

Every plot is drawn by matplotlib. The id of each of its groups starts with the plot's name, so that ids are unique in
the page, and ends in a role, ``ink`` or ``grid`` or ``line``: style.css colours text, axes and grid by it.
"""

import io
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import cycle
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import numpy.typing as npt
from markupsafe import Markup
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.spines import Spine
from matplotlib.text import Text

from meta_ood.report.compare import TradeOff, difference
from meta_ood.report.known_alarms import KnownAlarms
from meta_ood.report.results import Evaluation, Floats, Results

# variant -> colour that is readable on light and dark ground; the baseline is dashed too
COLOURS = {"baseline": "#7486a8", "ood_trained": "#e06c00"}
OTHER = "#1f9e77"  # any other variant
# colours of networks, after Okabe and Ito: distinguishable also for the colour-blind
_NETWORKS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
# text and axes, and the grid, where no style sheet says otherwise
_INK, _GRID = "#3f4654", "#c9ced6"
_MOST_POINTS = 200  # of a line, for the script and DVC

_STYLE: dict[Any, Any] = {
    **{"svg.fonttype": "none", "font.family": "DejaVu Sans", "text.color": _INK},  # text stays text
    **{"axes.labelcolor": _INK, "axes.labelsize": 9, "axes.edgecolor": _INK, "axes.axisbelow": True},
    **{"axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False, "legend.fontsize": 8},
    **{"axes.grid": True, "grid.color": _GRID, "grid.linewidth": 0.5},
    **{f"{axis}tick.{key}": value for axis in "xy" for key, value in (("color", _INK), ("labelsize", 8))},
    **{"lines.linewidth": 1.8, "lines.markersize": 6.5},
}


class Line(NamedTuple):
    """What the page's script knows of a line: values under the cursor, and what its entry in the legend switches."""

    name: str
    artists: Sequence[Artist]  # the line, its operating point
    x: Floats
    y: Floats
    threshold: Floats | None = None


class Plot(NamedTuple):
    """A plot for the page; the description stands for it where it cannot be seen."""

    title: str
    description: str
    width: float  # of the view box
    height: float
    contents: Markup  # between <svg> and </svg>
    name: str
    values: Mapping[str, Any]  # for the page's script, see _values; empty if there is no line


class _Curve(NamedTuple):
    title: str
    stem: str  # of the file
    columns: tuple[str, str]
    labels: tuple[str, str] | None = None  # of the axes, where they are not the columns'
    metric: str = ""  # in the legend
    threshold: tuple[str, str] = ("threshold", "threshold")  # column of what is changed along the curve, and its name


_FREQUENCY = ("predicted probability of a false segment", "observed share of false segments")
_CURVES = (
    _Curve("ROC, AUROC", "roc", ("false_positive_rate", "true_positive_rate"), metric="auroc"),
    _Curve("Precision-recall, AUPRC", "pr", ("recall", "precision"), metric="auprc"),
    _Curve(
        "Errors of segments",
        "trade_off",
        ("false_positives", "false_negatives"),
        ("false segments kept", "objects missed"),
        threshold=("operating_point", "P(false) up to"),
    ),
    _Curve(
        "Objects found and false alarms",
        "froc",
        ("alarm_rate", "recall"),
        ("ordinary frames with a false alarm", "objects found"),
        threshold=("threshold", "severity from"),
    ),
    _Curve("Reliability: meta classifier", "meta_calibration", ("predicted", "observed"), _FREQUENCY),
    _Curve("Reliability: known classes", "reliability", ("confidence", "accuracy"), metric="calibration_error"),
)


def curve_plots(variants: Sequence[Evaluation], name: str) -> list[Plot]:
    """Plot ROC, precision-recall, errors, calibrations and scores of pixels, as far as known.

    `variants` are those of one network on one dataset; `name` is unique in the page and starts with a letter.
    """
    plots = [_curve_plot(curve, variants, f"{name}-{curve.stem}") for curve in _CURVES]
    plots.insert(2, _score_plot(variants, f"{name}-scores"))
    return [plot for plot in plots if plot is not None]


def _curve_plot(curve: _Curve, variants: Sequence[Evaluation], name: str) -> Plot | None:
    """Draw one line per variant that has the curve with at least one row."""
    x, y = curve.columns
    found = [(one, c) for one in variants if len((c := one.curves.get(curve.stem, {})).get(x, ()))]
    is_trade_off = curve.stem == "trade_off"
    # without any object there is no trade-off
    if not found or (is_trade_off and not any(columns[y].any() for _, columns in found)):
        return None
    with _style(name):
        axes = _axes(*(curve.labels or (x.replace("_", " "), y.replace("_", " "))))
        if is_trade_off:
            axes.set_ylim(0, 1.03 * max(columns[y].max() for _, columns in found))
        else:
            axes.set(xlim=(0, 1), ylim=(0, 1.01))
        if curve.title.startswith("Reliability"):
            axes.plot([0, 1], [0, 1], color=_GRID, linestyle="dotted")
        if curve.stem == "roc":  # FPR95 is read where the curve crosses this line
            axes.axhline(0.95, color=_INK, linewidth=0.7, linestyle=(0, (1, 2)))
        words, lines = [], []
        for one, columns in found:
            value = one.value(curve.metric) if curve.metric else None
            if curve.stem == "meta_calibration":
                gap = np.abs(columns[x] - columns[y])
                value = float(np.average(gap, weights=columns["segments"]))
            text = None if value is None else f"{100 * value:.1f} %"
            colour = COLOURS.get(one.variant, OTHER)
            line = "dashed" if one.variant == "baseline" else "solid"
            artists = axes.plot(columns[x], columns[y], color=colour, linestyle=line, label=text)
            lines.append(Line(one.variant, artists, columns[x], columns[y], columns.get(curve.threshold[0])))
            kept, missed = (one.value(f"segment_{c}_after_meta") for c in (x, y))
            if is_trade_off and kept is not None and missed is not None:
                artists += axes.plot(kept, missed, "o", color=colour, markeredgecolor="white")
                text = f"{kept:.0f} kept and {missed:.0f} missed"
            rate, recall = one.value("promise", "calibration", "rate"), one.value("object_recall")
            if curve.stem == "froc" and rate is not None and recall is not None:
                artists += axes.plot(rate, recall, "o", color=colour, markeredgecolor="white")
                text = f"{100 * recall:.1f} % of the objects at {rate:.2f} false alarms"
            words.append(f"{one.variant}: {text or 'no metric'}")
        return _plot(curve.title, f"{curve.title}. {'; '.join(words)}.", axes, name, lines, curve.threshold[1])


def _score_plot(variants: Sequence[Evaluation], name: str) -> Plot | None:
    found = [(one, one.curves["histogram"]) for one in variants if "histogram" in one.curves]
    kinds = (("in_distribution", "known pixels", "dotted"), ("ood", "OoD pixels", "solid"))
    if not all(any(curve[column].any() for _, curve in found) for column, *_ in kinds):
        return None
    with _style(name):
        axes = _axes("score", "share of pixels")
        axes.set(yscale="log", ylim=(1e-4, 1))
        lines = []
        for one, curve in found:
            for column, label, line in kinds:
                # a logarithmic axis has no zero: NaN leaves a gap
                share = np.where(curve[column] > 0, curve[column], np.nan) / curve[column].sum()
                colour, shown = COLOURS.get(one.variant, OTHER), label if one is found[-1][0] else None
                artists = axes.plot(curve["score"], share, color=colour, linestyle=line, label=shown)
                lines.append(Line(f"{one.variant}, {label}", artists, curve["score"], share))
        text = "Distribution of the score over known and over OoD pixels, two lines per variant."
        return _plot("Scores of pixels", text, axes, name, lines)


def cost_plots(results: Results, name: str) -> list[Plot]:
    """Plot AUPRC on each OoD dataset against mIoU, the mean over datasets, one line per network that has both."""
    plots: list[Plot] = []
    for dataset in results.datasets:
        lines = []
        for network, colour in zip(results.networks, cycle(_NETWORKS), strict=False):
            pairs = [pair for pair in results.pairs if pair[0].network == network]
            miou = difference("miou", *pairs)
            auprc = difference("auprc", *(pair for pair in pairs if pair[0].dataset == dataset))
            if miou and auprc:
                lines.append((network, colour, miou, auprc))
        if not lines:
            continue
        words, shown = [], []
        with _style(plot_name := f"{name}-{len(plots)}"):
            axes = _axes("mIoU [%]", "AUPRC [%]")
            axes.set_ylim(0, 100)
            for network, colour, miou, auprc in lines:
                x, y = (100 * np.array([d.before, d.after]) for d in (miou, auprc))
                artists = axes.plot(x, y, color=colour, label=network)
                artists += axes.plot(x[1], y[1], "o", color=colour, markeredgecolor="white")
                shown.append(Line(network, artists, x, y))
                words.append(f"{network}: mIoU {x[0]:.1f} to {x[1]:.1f} %, AUPRC {y[0]:.1f} to {y[1]:.1f} %")
            text = f"Gain against cost on {dataset}. {'; '.join(words)}."
            plots.append(_plot(dataset, text, axes, plot_name, shown))
    return plots


def alarm_plots(alarms: Sequence[KnownAlarms], name: str) -> list[Plot]:
    """Plot the share of each known class above the threshold, one bar per variant, for each network and dataset."""
    groups: dict[tuple[str, str], list[KnownAlarms]] = {}
    for one in alarms:
        if one.shares:
            groups.setdefault((one.evaluation.network, one.evaluation.dataset), []).append(one)
    plots: list[Plot] = []
    for (network, dataset), variants in groups.items():
        classes = list(variants[0].shares)
        height = 0.8 / len(variants)  # of a bar; 0.2 between classes
        words = []
        with _style(plot_name := f"{name}-{len(plots)}"):
            axes = _axes("interior pixels above the threshold [%]", "", size=(6.4, 0.8 + 0.28 * len(classes)))
            for place, one in enumerate(variants):
                values = 100 * np.array([one.shares.get(label, 0.0) for label in classes])
                variant = one.evaluation.variant
                rows = np.arange(len(classes)) + (place - (len(variants) - 1) / 2) * height
                axes.barh(rows, values, height, color=COLOURS.get(variant, OTHER), label=variant)
                words += [f"{variant}, {label}: {value:.1f} %" for label, value in zip(classes, values, strict=True)]
            axes.set_yticks(range(len(classes)), classes)
            axes.invert_yaxis()  # the first class on top
            plots.append(_plot(f"{network}, {dataset}", "; ".join(words), axes, plot_name))
    return plots


def pareto_plot(trade_off: TradeOff, name: str) -> Plot:
    """Plot the AUPRC of all settings against their mIoU, with the Pareto front dashed."""
    points = sorted(trade_off.points, key=lambda point: point.miou)
    place = 100 * np.array([(p.miou, p.auprc.mean) for p in points]).T
    front = place[:, [p.is_optimal for p in points]]
    with _style(name):
        axes = _axes("mIoU [%]", "AUPRC [%]", size=(6.4, 3.6))
        axes.plot(*front, color=_INK, linestyle="dashed")
        axes.plot(*place, "o", color=COLOURS["ood_trained"], label="OoD-trained")
        if trade_off.baselines:
            start = 100 * np.array(trade_off.baselines).T
            axes.plot(*start, "o", color=COLOURS["baseline"], label="baseline")
        # more labels would cover each other; the table below the plot has all
        for point, x, y in list(zip(points, *place, strict=True))[:30]:
            axes.annotate(*(point.setting.name, (x, y), (4, 3)), textcoords="offset points", fontsize=7, color=_INK)
        title = f"AUPRC on {trade_off.dataset} against mIoU of {trade_off.network}"
        return _plot(title, f"{title}, {len(points)} settings.", axes, name)


def _style(name: str) -> AbstractContextManager[None]:
    # ids of clip paths and markers are hashes with the plot's name, so no two plots share one
    return matplotlib.rc_context(_STYLE | {"svg.hashsalt": name})


def _axes(x: str, y: str, size: tuple[float, float] = (3.2, 2.7)) -> Axes:
    """Return empty axes with labels, in a figure of `size` inches."""
    return Figure(figsize=size, layout="constrained").add_subplot(xlabel=x, ylabel=y)


def _plot(title: str, description: str, axes: Axes, name: str, lines: Sequence[Line] = (), threshold: str = "") -> Plot:
    """Turn finished axes into a plot of the page; `threshold` says what that of its lines is."""
    figure = axes.figure
    assert isinstance(figure, Figure)  # not a part of one
    if axes.get_legend_handles_labels()[1]:
        axes.legend()
    # ticks are made when something is drawn: only then does everything exist that needs an id
    FigureCanvasSVG(figure)
    figure.draw_without_rendering()
    for number, artist in enumerate(figure.findobj()):
        artist.set_gid(f"{name}-{number}-{_role(artist)}")
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    # the page writes its own opening tag: one without the file's name spaces, but with words
    contents = buffer.getvalue().partition("<svg")[2].partition(">")[2].rpartition("</svg>")[0]
    width, height = 72 * figure.get_size_inches()  # matplotlib's SVG has 72 points per inch
    values = _values(axes, height, lines, threshold) if lines else {}
    return Plot(title, description, width, height, Markup(contents), name, values)


def _values(axes: Axes, height: float, lines: Sequence[Line], threshold: str) -> dict[str, Any]:
    """Return names of the axes and the threshold, and of each line its groups' ids, colour, and points.

    A point is ``[column, row, x, y, threshold]``, the first two in the view box, the last if known; of a long line
    _MOST_POINTS, evenly spread.
    """
    found = []
    for line in lines:
        # a logarithmic axis has no place for NaN
        known = np.flatnonzero(np.isfinite(line.x) & np.isfinite(line.y))
        known = thinned(known)
        place = axes.transData.transform(np.column_stack([line.x, line.y])[known]) * 72 / axes.figure.dpi
        place[:, 1] = height - place[:, 1]
        values = [_short(column[known]) for column in (line.x, line.y, line.threshold) if column is not None]
        points = list(zip(*place.round(1).T.tolist(), *values, strict=True))
        ids = [artist.get_gid() for artist in line.artists]
        first = line.artists[0]
        assert isinstance(first, Line2D)
        found.append({"name": line.name, "ids": ids, "colour": to_hex(first.get_color()), "points": points})
    return {"names": [axes.get_xlabel(), axes.get_ylabel(), threshold], "lines": found}


def thinned(rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return at most _MOST_POINTS rows, evenly spread, the first and the last among them."""
    return rows[np.unique(np.linspace(0, len(rows) - 1, _MOST_POINTS).astype(int))] if len(rows) else rows


def _short(values: Floats) -> list[float | None]:
    """Return numbers with four digits; JSON has no infinite ones."""
    return [float(f"{v:.4g}") if np.isfinite(v) else None for v in values]


def _role(artist: Artist) -> str:
    """Return which colour of the page the artist takes."""
    if isinstance(artist, Spine):
        colour = to_hex(artist.get_edgecolor())
    else:
        colour = to_hex(artist.get_color()) if isinstance(artist, Line2D | Text) else ""
    return {_INK: "ink", _GRID: "grid"}.get(colour, "line")
