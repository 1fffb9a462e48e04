"""Many experiments side by side: gain against cost, its Pareto front, and means over seeds.

The experiments come from ``dvc exp show --csv``, whose columns are parameters by their dotted key
and metrics as ``data/evaluate/<network>/<variant>/<dataset>/metrics.json:<key>``.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
import numpy.typing as npt

from meta_ood import figures
from meta_ood.figures import Axis, Line
from meta_ood.reporting.charts import inline
from meta_ood.reporting.markup import head_cells, wide
from meta_ood.reporting.page import document

_METRIC = re.compile(r"evaluate/([^/]+)/([^/]+)/([^/]+)/metrics\.json:(auprc|fpr95|miou)$")
_FACTS = ("Experiment", "rev", "typ", "Created", "parent", "State", "Executor")
SEED = "seed"

Key = tuple[str, str, str, str]
"""Network, variant, evaluation set, metric."""


@dataclass(frozen=True)
class Experiment:
    """One set of parameters, and the mean of its metrics over seeds.

    Attributes
    ----------
    settings
        The parameters that differ between experiments, without the seed.
    values
        Metric -> its values, one a seed, fractions in [0, 1].
    """

    settings: tuple[tuple[str, str], ...]
    values: Mapping[Key, tuple[float, ...]]

    @property
    def name(self) -> str:
        """The settings as one text.

        Examples
        --------
        >>> Experiment((("train.ood_weight", "0.5"),), {}).name
        'ood_weight 0.5'
        """
        return ", ".join(f"{k.split('.')[-1]} {v}" for k, v in self.settings) or "as committed"

    def mean(self, *key: str) -> float | None:
        """Return the mean over seeds of the metric with this key, None if unknown."""
        found = self.values.get((key[0], key[1], key[2], key[3]), ())
        return sum(found) / len(found) if found else None


def read_experiments(text: str) -> list[Experiment]:
    r"""Read what ``dvc exp show --csv`` prints.

    The workspace is left out where a commit or experiment has the same parameters; experiments
    that differ in nothing but the seed become one.

    Raises
    ------
    ValueError
        If there is no metric of an evaluation.

    Examples
    --------
    >>> column = "data/evaluate/mini/ood_trained/fs/metrics.json:auprc"
    >>> text = f"Experiment,rev,{column},seed,train.ood_weight\na,1,0.4,0,0.5\nb,2,0.6,1,0.5\n"
    >>> [e.mean("mini", "ood_trained", "fs", "auprc") for e in read_experiments(text)]
    [0.5]
    """
    rows = list(csv.DictReader(io.StringIO(text)))
    columns = list(rows[0]) if rows else []
    metrics = {c: match.groups() for c in columns if (match := _METRIC.search(c))}
    if not metrics:
        raise ValueError(
            "no column like data/evaluate/NETWORK/VARIANT/SET/metrics.json:auprc; expected what "
            "'dvc exp show --csv' prints"
        )
    params = [c for c in columns if c not in _FACTS and ":" not in c]
    varying = [c for c in params if c != SEED and len({row[c] for row in rows}) > 1]
    runs: dict[tuple[str, ...], dict[str, str]] = {}
    for row in sorted(rows, key=lambda r: r.get("rev") == "workspace"):
        runs.setdefault(tuple(row[c] for c in params), row)
    groups: dict[tuple[tuple[str, str], ...], dict[Key, list[float]]] = {}
    for row in runs.values():
        values = groups.setdefault(tuple((c, row[c]) for c in varying), {})
        for column, (network, variant, dataset, name) in metrics.items():
            number = _number(row[column])
            if number is not None:
                values.setdefault((network, variant, dataset, name), []).append(number)
    return [
        Experiment(settings, {key: tuple(found) for key, found in values.items()})
        for settings, values in sorted(groups.items())
    ]


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "nan")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


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
    keys = {key for e in experiments for key in e.values}
    cells = sorted({(n, d) for n, variant, d, name in keys if name == "auprc"})
    blocks = [_block(experiments, *cell, index) for index, cell in enumerate(cells)]
    count = len(experiments)
    head = (
        f'<header><p class="kicker">{escape(title)}</p>'
        f"<h1>{count} experiment{'s' * (count != 1)}: detection against segmentation</h1>"
        '<p class="lead">Up is better detection (AUPRC), right is better segmentation of the known '
        "classes (mIoU). Nothing beats in both what lies on the dashed front; what lies below it "
        "pays for nothing.</p></header>"
    )
    return document(title, head, "\n".join(blocks))


def _block(experiments: Sequence[Experiment], network: str, dataset: str, index: int) -> str:
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
        Line("", x[order], y[order], figures.INK, "dashed"),
        Line("OoD-trained", x, y, "#e06c00", "points", notes=[e.name for e, _, _ in rows][:_NOTES]),
    ]
    start = _start(experiments, network, dataset)
    if start is not None:
        lines.append(Line("baseline", *start, "#7486a8", "points"))
    svg = figures.curves(lines, Axis("mIoU [%]"), Axis("AUPRC [%]"), size=(6.4, 3.6))
    text = f"AUPRC on {dataset} over mIoU of {network}, {len(rows)} experiments."
    name = f"{escape(dataset)} <span class='soft'>{escape(network)}</span>"
    table = _table(rows, front, network, dataset)
    return (
        f'<h2>{name}</h2><figure class="large">{inline(svg, f"s{index}", text)}</figure>'
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
        values = experiment.values[network, "ood_trained", dataset, "auprc"]
        fpr = experiment.mean(network, "ood_trained", dataset, "fpr95")
        spread = f"{100 * min(values):.1f} to {100 * max(values):.1f}" if len(values) > 1 else "–"
        mark = '<span class="chip good">✓ front</span>' if is_front else ""
        body.append(
            f'<tr class="first"><th scope="row">{escape(experiment.name)}</th>'
            f"<td>{mark}{100 * gain:.1f}</td><td>{spread}</td><td>{len(values)}</td>"
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
