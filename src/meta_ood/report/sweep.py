"""Many experiments side by side: gain against cost, and what no other experiment beats."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np
import numpy.typing as npt

from meta_ood.report import plots
from meta_ood.report.charts import inline
from meta_ood.report.experiments import Experiment
from meta_ood.report.markup import document, head_cells, wide
from meta_ood.report.plots import Axis, Line


def pareto_front(x: npt.NDArray[np.floating], y: npt.NDArray[np.floating]) -> npt.NDArray[np.bool_]:
    """Return which points no other point beats: none is at least as high in both and not the same.

    Parameters
    ----------
    x, y
        ``(N,)`` each, higher is better.

    Returns
    -------
    ``(N,) bool``.

    Examples
    --------
    >>> pareto_front(np.array([1.0, 2.0, 0.5]), np.array([2.0, 1.0, 1.5])).tolist()
    [True, True, False]
    """
    above = (x[None] >= x[:, None]) & (y[None] >= y[:, None])
    differs = (x[None] != x[:, None]) | (y[None] != y[:, None])
    return np.asarray(~(above & differs).any(axis=1))


def sweep_page(title: str, experiments: Sequence[Experiment]) -> str:
    """Return a page with a Pareto plot and a table for each network and OoD set.

    AUPRC is that of the OoD-trained network on the set, mIoU that on the sets where it is defined.
    """
    count = sum(any(variant != "baseline" for _, variant, _ in e.cells) for e in experiments)
    head = (
        f'<header><p class="kicker">{escape(title)}</p>'
        f"<h1>{count} experiment{'s' * (count != 1)}: detection against segmentation</h1>"
        '<p class="lead">Up is better detection (AUPRC), right is better segmentation of the known '
        "classes (mIoU). Nothing beats in both what lies on the dashed front; what lies below it "
        "pays for nothing.</p></header>"
    )
    return document(title, head, "\n".join(pareto_blocks(experiments)))


def pareto_blocks(experiments: Sequence[Experiment], level: int = 2) -> list[str]:
    """Return a plot and a table for each network and OoD set, under headings of a level."""
    keys = {key for e in experiments for key in e.values}
    cells = sorted({(n, d) for n, variant, d, name in keys if name == "auprc"})
    return [_block(experiments, *cell, i, level) for i, cell in enumerate(cells)]


def _block(
    experiments: Sequence[Experiment], network: str, dataset: str, index: int, level: int
) -> str:
    rows = []
    for experiment in experiments:
        gain = experiment.mean(network, "ood_trained", dataset, "auprc")
        cost = _miou(experiment, network, "ood_trained")
        if gain is not None and cost is not None:
            rows.append((experiment, cost, gain))
    if not rows:
        return ""
    x = np.array([100 * cost for _, cost, _ in rows])
    y = np.array([100 * gain for _, _, gain in rows])
    front = pareto_front(x, y)
    order = np.flatnonzero(front)[np.argsort(x[front])]
    lines = [
        Line("", x[order], y[order], plots.INK, "dashed"),
        Line("OoD-trained", x, y, "#e06c00", "points", notes=[e.name for e, _, _ in rows][:_NOTES]),
    ]
    start = _start(experiments, network, dataset)
    if start is not None:
        lines.append(Line("baseline", *start, "#7486a8", "points"))
    svg = plots.curves(lines, Axis("mIoU [%]"), Axis("AUPRC [%]"), size=(6.4, 3.6))
    text = f"AUPRC on {dataset} over mIoU of {network}, {len(rows)} experiments."
    name = f"{escape(dataset)} <span class='soft'>{escape(network)}</span>"
    table = _table(rows, front, network, dataset)
    return (
        f"<h{level}>{name}</h{level}>"
        f'<figure class="large">{inline(svg, f"s{index}", text)}</figure>'
        f"{wide(table, text)}"
    )


_NOTES = 30
"""So many points get a name in the plot; the table has all."""


def _miou(experiment: Experiment, network: str, variant: str) -> float | None:
    found = [
        value
        for n, v, dataset, name in experiment.values
        if (n, v, name) == (network, variant, "miou")
        and (value := experiment.mean(n, v, dataset, name)) is not None
    ]
    return sum(found) / len(found) if found else None


def _start(
    experiments: Sequence[Experiment], network: str, dataset: str
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]] | None:
    """Return the distinct baselines as points, [%]."""
    found = set()
    for experiment in experiments:
        gain = experiment.mean(network, "baseline", dataset, "auprc")
        cost = _miou(experiment, network, "baseline")
        if gain is not None and cost is not None:
            found.add((100 * cost, 100 * gain))
    if not found:
        return None
    points = np.array(sorted(found))
    return points[:, 0], points[:, 1]


def _table(
    rows: Sequence[tuple[Experiment, float, float]],
    front: npt.NDArray[np.bool_],
    network: str,
    dataset: str,
) -> str:
    body = []
    for (experiment, cost, gain), is_front in sorted(
        zip(rows, front, strict=True), key=lambda pair: -pair[0][2]
    ):
        values = experiment.spread(network, "ood_trained", dataset, "auprc")
        assert values is not None  # it has a mean
        fpr = experiment.mean(network, "ood_trained", dataset, "fpr95")
        spread = f"{100 * values.low:.1f} to {100 * values.high:.1f}" if values.n > 1 else "–"
        mark = '<span class="chip good">✓ front</span>' if is_front else ""
        body.append(
            f'<tr class="first"><th scope="row">{escape(experiment.name)}</th>'
            f"<td>{mark}{100 * gain:.1f}</td><td>{spread}</td><td>{values.n}</td>"
            f"<td>{'–' if fpr is None else f'{100 * fpr:.1f}'}</td><td>{100 * cost:.1f}</td></tr>"
        )
    titles = [
        ("experiment", ""),
        ("AUPRC", "%"),
        ("lowest to highest", "%"),
        ("seeds", ""),
        ("FPR95", "%"),
        ("mIoU", "%"),
    ]
    return (
        f"<table><thead><tr>{head_cells(titles, 1)}</tr></thead>"
        f"<tbody>{''.join(body)}</tbody></table>"
    )
