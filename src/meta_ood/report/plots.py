"""Curves as SVG or PNG plots."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

Style = Literal["solid", "dashed", "dotted", "points"]


@dataclass(frozen=True)
class Line:
    """One curve of a plot.

    Attributes
    ----------
    label
        Its name in the legend; empty leaves it out.
    x, y
        ``(N,)`` numbers each, in drawing order; NaN leaves a gap.
    colour
        ``#rrggbb``.
    style
        ``solid``, ``dashed`` or ``dotted`` line; ``points`` draws markers only.
    mark
        One point ``(x, y)`` to be marked, say an operating point.
    notes
        One short text beside each point; none by default.
    """

    label: str
    x: npt.NDArray[np.floating]
    y: npt.NDArray[np.floating]
    colour: str
    style: Style = "solid"
    mark: tuple[float, float] | None = None
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Axis:
    """One axis of a plot: its label, its limits (None fits the data) and its scale."""

    label: str
    limits: tuple[float, float] | None = None
    log: bool = False


INK, GRID = "#3f4654", "#c9ced6"
"""Colours of text and axes, and of the grid; a page may replace them in the SVG's text."""


def curves(
    lines: Sequence[Line],
    x: Axis,
    y: Axis,
    *,
    title: str = "",
    guides: Sequence[tuple[Literal["x", "y"], float]] = (),
    size: tuple[float, float] = (3.2, 2.7),
    form: Literal["svg", "png"] = "svg",
) -> bytes:
    """Plot curves: ROC, precision-recall, histograms, trade-offs; same input, same bytes.

    Parameters
    ----------
    lines
        The curves, drawn in order.
    x, y
        The axes.
    title
        Above the axes; empty leaves it out.
    guides
        Thin lines across the axes: ``("y", 0.95)`` is horizontal at 0.95.
    size
        Width and height [inch], 72 SVG points or 150 PNG pixels each.
    form
        ``svg`` (text stays text, transparent background) or ``png`` (white background).

    Returns
    -------
    The file's bytes.

    Examples
    --------
    >>> line = Line("chance", np.array([0.0, 1.0]), np.array([0.0, 1.0]), "#888888", "dashed")
    >>> b"<svg" in curves([line], Axis("false positive rate"), Axis("true positive rate"))
    True
    """
    fixed: dict[Any, Any] = {
        "svg.hashsalt": "meta-ood",
        "svg.fonttype": "none",
        "font.family": "DejaVu Sans",
    }
    with matplotlib.rc_context(fixed):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.add_subplot()
        for line in lines:
            _draw(axes, line)
        for direction, value in guides:
            draw = axes.axvline if direction == "x" else axes.axhline
            draw(value, color=INK, linewidth=0.7, linestyle=(0, (1, 2)), zorder=1)
        for axis, scale, limits, label in (
            (x, axes.set_xscale, axes.set_xlim, axes.set_xlabel),
            (y, axes.set_yscale, axes.set_ylim, axes.set_ylabel),
        ):
            if axis.log:
                scale("log")
            if axis.limits is not None:
                limits(*axis.limits)
            label(axis.label, color=INK, fontsize=9)
        axes.set_title(title, color=INK, fontsize=10, loc="left")
        axes.grid(visible=True, color=GRID, linewidth=0.5)
        axes.set_axisbelow(True)
        axes.tick_params(colors=INK, labelsize=8, length=3, which="both")
        for side, spine in axes.spines.items():
            spine.set_visible(side in ("left", "bottom"))
            spine.set_color(INK)
        if any(line.label for line in lines):
            axes.legend(fontsize=8, labelcolor=INK, frameon=False)
        buffer = io.BytesIO()
        if form == "svg":
            unsaid = {"Date": None, "Creator": None, "Format": None, "Type": None}
            FigureCanvasSVG(figure)
            figure.savefig(buffer, format="svg", transparent=True, metadata=unsaid)
        else:
            FigureCanvasAgg(figure)
            figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    return buffer.getvalue()


def _draw(axes: matplotlib.axes.Axes, line: Line) -> None:
    name = line.label or "_unnamed"
    form = "o" if line.style == "points" else ""
    drawn = axes.plot(line.x, line.y, form, color=line.colour, label=name, linewidth=1.8)
    drawn[0].set(markersize=5, linestyle="" if form else line.style)
    for x, y, note in zip(line.x, line.y, line.notes, strict=False):
        axes.annotate(note, (x, y), (4, 3), textcoords="offset points", fontsize=7, color=INK)
    if line.mark is not None:
        axes.plot(*line.mark, "o", color=line.colour, markersize=6, markeredgecolor="white")
