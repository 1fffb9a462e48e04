"""Several runs of one setting: which belong together, and mean, spread and n of their figures.

Runs come from ``dvc exp show --csv``, from the tracking store, or from folders; they belong
together if their settings differ in nothing but the seed.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from meta_ood.config import Params

METRICS = (
    "auroc",
    "auprc",
    "fpr95",
    "segment_false_positives",
    "segment_false_positives_after_meta",
    "segment_false_negatives",
    "segment_false_negatives_after_meta",
    "segment_f1",
    "segment_f1_after_meta",
    "component_f1",
    "component_f1_after_meta",
    "miou",
    "calibration_error",
)
"""Figures that are summed up, in the order of the table; keys of metrics.json."""

SEED = "seed"
_CELL = "evaluate/([^/]+)/([^/]+)/([^/]+)/(?:summary|metrics)"  # metrics.json until version 0.1
_METRIC = re.compile(rf"{_CELL}\.json:({'|'.join(METRICS)})$")
_PARAMS = frozenset(Params.model_fields)

Cell = tuple[str, str, str]
"""Network, variant, evaluation set."""
Key = tuple[str, str, str, str]
"""Network, variant, evaluation set, metric."""


@dataclass(frozen=True)
class Spread:
    """One figure over several runs.

    Attributes
    ----------
    mean, deviation
        Mean and standard deviation (n - 1); NaN deviation for one run.
    low, high
        Extremes.
    n
        Number of runs in which the figure is defined.
    """

    mean: float
    deviation: float
    low: float
    high: float
    n: int


def spread(values: Sequence[float]) -> Spread | None:
    """Sum up a figure over runs; None if it is nowhere defined.

    Examples
    --------
    >>> s = spread([0.5, 0.7])
    >>> s.mean, round(s.deviation, 4), s.low, s.high, s.n
    (0.6, 0.1414, 0.5, 0.7, 2)
    >>> spread([0.5]).deviation
    nan
    """
    known = np.array([value for value in values if math.isfinite(value)])
    if not known.size:
        return None
    deviation = float(known.std(ddof=1)) if known.size > 1 else math.nan
    extremes = float(known.min()), float(known.max())
    return Spread(float(known.mean()), deviation, *extremes, known.size)


@dataclass(frozen=True)
class Run:
    """One evaluation of one cell.

    Attributes
    ----------
    settings
        Parameter -> text, the seed among them.
    cell
        Network, variant, evaluation set.
    figures
        Key of :data:`METRICS` -> value; what is undefined is left out or NaN.
    """

    settings: Mapping[str, str]
    cell: Cell
    figures: Mapping[str, float]


@dataclass(frozen=True)
class Experiment:
    """One setting, and the figures of its runs.

    Attributes
    ----------
    settings
        The parameters that differ between experiments, without the seed.
    values
        Network, variant, set and metric -> its values, one a seed; fractions in [0, 1].
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
        return ", ".join(f"{k.split('.')[-1]} {v}" for k, v in self.settings) or "one setting"

    def spread(self, *key: str) -> Spread | None:
        """Return mean, spread and n of the figure with this key, None if unknown."""
        return spread(self.values.get((key[0], key[1], key[2], key[3]), ()))

    def mean(self, *key: str) -> float | None:
        """Return the mean over seeds of the figure with this key, None if unknown."""
        found = self.spread(*key)
        return None if found is None else found.mean

    @property
    def cells(self) -> list[Cell]:
        """The cells that have a figure, sorted by evaluation set, network and variant."""
        return sorted({key[:3] for key in self.values}, key=lambda cell: (cell[2], *cell[:2]))


def gather(runs: Iterable[Run]) -> list[Experiment]:
    """Put runs together that differ in nothing but the seed.

    Of runs of one cell with the same settings and the same seed the first counts. Settings that
    are the same in all runs of a cell do not name an experiment.

    Examples
    --------
    >>> cell = ("mini", "ood_trained", "fs")
    >>> runs = [Run({"seed": seed, "x": "1"}, cell, {"auprc": float(seed)}) for seed in "01"]
    >>> [(e.name, e.mean(*cell, "auprc")) for e in gather(runs)]
    [('one setting', 0.5)]
    """
    distinct: dict[tuple[Cell, tuple[tuple[str, str], ...]], Run] = {}
    for run in runs:
        distinct.setdefault((run.cell, tuple(sorted(run.settings.items()))), run)
    seen: dict[tuple[Cell, str], set[str]] = {}
    for run in distinct.values():
        for name, value in run.settings.items():
            seen.setdefault((run.cell, name), set()).add(value)
    varying = {name for (_, name), values in seen.items() if len(values) > 1} - {SEED}
    groups: dict[tuple[tuple[str, str], ...], dict[Key, list[float]]] = {}
    for run in distinct.values():
        own = tuple((k, v) for k, v in run.settings.items() if k in varying)
        values_of = groups.setdefault(own, {})
        for name in METRICS:
            figure = run.figures.get(name, math.nan)
            if math.isfinite(figure):
                values_of.setdefault((*run.cell, name), []).append(figure)
    return [
        Experiment(settings, {key: tuple(found) for key, found in values.items()})
        for settings, values in sorted(groups.items())
    ]


def read_experiments(text: str) -> list[Experiment]:
    r"""Read what ``dvc exp show --csv`` prints.

    Its columns are parameters by their dotted key, metrics as
    ``data/evaluate/<network>/<variant>/<set>/summary.json:<key>`` (by the key alone where it occurs
    once), and hashes of files. The workspace is left out where a commit or experiment has the same
    parameters, and so is what has not run yet. Baselines do not depend on ``train``: those that
    differ in nothing else are one.

    Raises
    ------
    ValueError
        If there is no metric of an evaluation.

    Examples
    --------
    >>> column = "data/evaluate/mini/ood_trained/fs/summary.json:auprc"
    >>> text = f"Experiment,rev,{column},seed,train.ood_weight\na,1,0.4,0,0.5\nb,2,0.6,1,0.5\n"
    >>> [e.mean("mini", "ood_trained", "fs", "auprc") for e in read_experiments(text)]
    [0.5]
    """
    rows = list(csv.DictReader(io.StringIO(text)))
    columns = list(rows[0]) if rows else []
    metrics = {c: match.groups() for c in columns if (match := _METRIC.search(c))}
    if not metrics:
        raise ValueError(
            "no column like data/evaluate/NETWORK/VARIANT/SET/summary.json:auprc; expected what "
            "'dvc exp show --csv' prints"
        )
    params = [c for c in columns if c.split(".")[0] in _PARAMS]
    runs = []
    for row in sorted(rows, key=lambda r: r.get("rev") == "workspace"):
        cells: dict[Cell, dict[str, float]] = {}
        for column, (network, variant, dataset, name) in metrics.items():
            cells.setdefault((network, variant, dataset), {})[name] = _number(row[column])
        if not any(row[column] for column in metrics):
            continue
        for cell, figures in cells.items():
            of_cell = [c for c in params if cell[1] != "baseline" or not c.startswith("train.")]
            runs.append(Run({c: row[c] or "" for c in of_cell}, cell, figures))
    return gather(runs)


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan


def spreads_text(experiments: Sequence[Experiment]) -> str:
    """Return mean, spread and n of every cell and setting as a table for people."""
    lines: list[str] = []
    row = "  {:<36}{:>10}{:>10}{:>10}{:>10}{:>4}"
    cells = sorted({c for e in experiments for c in e.cells}, key=lambda c: (c[2], *c[:2]))
    for cell in cells:
        own = [e for e in experiments if cell in e.cells]
        for experiment in own:
            title = (
                [*cell] if len(own) == 1 and not experiment.settings else [*cell, experiment.name]
            )
            lines += ["", " · ".join(title)]
            lines.append(row.format("", "mean", "sd", "least", "most", "n"))
            for name in METRICS:
                s = experiment.spread(*cell, name)
                if s is not None:
                    figures = (_short(v) for v in (s.mean, s.deviation, s.low, s.high))
                    lines.append(row.format(name, *figures, s.n))
    return "\n".join(lines[1:])


def _short(value: float) -> str:
    if math.isnan(value):
        return "–"
    return f"{value:.4f}" if abs(value) < 1 or value != int(value) else f"{value:.0f}"
