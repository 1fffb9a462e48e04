"""Compare evaluations: in pairs over the same scenes, over seeds, and gain against cost."""

from __future__ import annotations

import csv
import io
import logging
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from meta_ood.config import Params
from meta_ood.data.text_table import text_table
from meta_ood.metrics.bootstrap import interval
from meta_ood.metrics.catalogue import METRICS, Metric
from meta_ood.report.results import Evaluation, Floats, Key, Pair, read_evaluations

logger = logging.getLogger(__name__)

Tone = Literal["better", "worse", "unchanged"]

UNCHANGED = {"percent": 0.0005, "count": 0.5}
"""Smaller changes are called none: half a unit of the last printed digit."""


@dataclass(frozen=True)
class Difference:
    """How one metric changes between two evaluations.

    Attributes:
        metric: Which.
        before, after: Its values.
        low, high: 95 % interval of the change over resampled scenes; NaN if unknown.
    """

    metric: Metric
    before: float
    after: float
    low: float = math.nan
    high: float = math.nan

    @property
    def change(self) -> float:
        """``after - before``."""
        return self.after - self.before

    @property
    def tone(self) -> Tone:
        """Whether the change is an improvement.

        Examples:
            >>> Difference(METRICS["fpr95"], 0.2, 0.1).tone, Difference(METRICS["miou"], 0.2, 0.1).tone
            ('better', 'worse')
        """
        gain = self.metric.gain(self.before, self.after) or 0.0
        if abs(gain) < UNCHANGED[self.metric.unit]:
            return "unchanged"
        return "better" if gain > 0 else "worse"

    @property
    def has_interval(self) -> bool:
        """Whether the interval is known."""
        return not math.isnan(self.low)

    @property
    def could_be_chance(self) -> bool:
        """Whether the interval contains 0; False if it is unknown."""
        return self.low <= 0 <= self.high

    def signed(self, value: float) -> str:
        """Return a change with its sign, a true minus, in points or segments.

        Examples:
            >>> percent, count = (Difference(METRICS[k], 0, 0) for k in ("auroc", "segment_f1"))
            >>> percent.signed(-0.0123), percent.signed(0.00001)
            ('−1.2', '±0.0')
        """
        is_percent = self.metric.unit == "percent"
        text = f"{100 * value:+.1f}" if is_percent else f"{value:+.0f}"
        if not text.strip("+-0."):
            return "±" + text[1:]
        return text.replace("-", "−")


def difference(key: str, *pairs: Pair) -> Difference | None:
    """Compare a metric over one or several pairs of evaluations.

    Args:
        key: Key of ``METRICS``.
        pairs: Two evaluations of one dataset each. Over several pairs, fractions are averaged and counts are summed.

    Returns:
        None if no pair has the metric in both evaluations. Both evaluations of a dataset were resampled with the same
        scenes, so the interval is that of the replicates' differences: what is hard for both cancels.
    """
    known = [(b, a) for b, a in pairs if None not in (b.value(key), a.value(key))]
    if not known:
        return None
    metric = METRICS[key]
    total = np.mean if metric.unit == "percent" else np.sum
    before = float(total([pair[0].value(key) for pair in known]))
    after = float(total([pair[1].value(key) for pair in known]))
    changes = [_replicates_of_change(b, a, key) for b, a in known]
    low, high = math.nan, math.nan
    if len({len(change) for change in changes}) == 1:
        low, high = interval(np.asarray(total(changes, axis=0)))
    return Difference(metric, before, after, low, high)


def _replicates_of_change(before: Evaluation, after: Evaluation, key: str) -> Floats:
    """Return one change per replicate; empty if the replicates cannot be paired."""
    first, second = (one.curves.get("bootstrap", {}).get(key) for one in (before, after))
    if first is None or second is None:
        return np.empty(0)
    if len(first) != len(second):
        logger.warning(
            "%s has %d replicates, %s %d: no interval; evaluate both with the same evaluate.bootstrap",
            *("/".join(before.key), len(first), "/".join(after.key), len(second)),
        )
        return np.empty(0)
    return second - first


def pairs_text(evaluations: Mapping[Key, Evaluation]) -> str:
    """Return the changes between all comparable evaluations of a run, one table per pair.

    Comparable are two variants of one network, and two networks of one variant, on one dataset.
    """
    order = sorted(evaluations.values(), key=lambda one: (one.dataset, one.network, one.variant))
    pairs = [
        (a, b)
        for a, b in combinations(order, 2)
        if a.dataset == b.dataset and (a.network == b.network) != (a.variant == b.variant)
    ]
    blocks = []
    pairs.sort(key=lambda pair: (pair[0].dataset, pair[0].network != pair[1].network))
    for a, b in pairs:
        rows = []
        for d in (difference(key, (a, b)) for key in METRICS):
            if d is not None:
                ends = f"[{_short(d.low)}, {_short(d.high)}]" if d.has_interval else ""
                rows.append([d.metric.key, *map(_short, (d.before, d.after, d.change)), ends])
        header = ["", "before", "after", "change", "95 % interval over scenes"]
        title = f"{b.dataset}: {a.network} {a.variant} -> {b.network} {b.variant}"
        blocks.append(f"{title}\n{text_table(header, rows)}")
    return "\n\n".join(blocks)


def protocols_text(root: Path) -> str:
    """Return the main score's AUROC / AUPRC / FPR95 under every protocol, as Markdown.

    Raises:
        FileNotFoundError: If no evaluation below `root` has OoD pixels.
    """
    found = [one for one in read_evaluations(root).values() if one.value("auroc") is not None]
    if not found:
        raise FileNotFoundError(f"{root}: no evaluation with OoD pixels below it")
    protocols = list(found[0].section("protocols"))
    lines = [f"| dataset | network | variant | {' | '.join(protocols)} |", "|" + " --- |" * (3 + len(protocols))]
    for one in sorted(found, key=lambda one: (one.dataset, one.network, one.variant)):
        score = str(one.metrics["score"])
        cells = [
            " / ".join(
                "–" if value is None else f"{100 * value:.2f}"
                for key in ("auroc", "auprc", "fpr95")
                for value in [one.value("protocols", protocol, score, key)]
            )
            for protocol in protocols
        ]
        lines.append(f"| {one.dataset} | {one.network} | {one.variant} | {' | '.join(cells)} |")
    return "\n".join(lines)


def thresholds_text(root: Path, dataset: str) -> str:
    """Return the thresholds with the best F1 on a dataset, as a section for params.yaml.

    Raises:
        FileNotFoundError: If there is no evaluation of the dataset below `root`.
        ValueError: If a threshold there was given instead of chosen, or the dataset has no OoD pixels.
    """
    found = [one for one in read_evaluations(root).values() if one.dataset == dataset]
    if not found:
        raise FileNotFoundError(f"{root}: no <network>/<variant>/{dataset}/metrics.json below it")
    networks: dict[str, list[str]] = {}
    for one in found:
        of_score = one.section("component", "of_score")
        if not of_score.get("threshold_is_oracle"):
            path = root.joinpath(*one.key, "metrics.json")
            raise ValueError(f"{path}: no threshold was chosen on this set")
        networks.setdefault(one.network, []).append(f"{one.variant}: {of_score['threshold']:.9g}")
    lines = ["evaluate:", f"  component_thresholds:       # best F1 on {dataset}"]
    return "\n".join(lines + [f"    {n}: {{{', '.join(t)}}}" for n, t in networks.items()])


def _short(value: float) -> str:
    if math.isnan(value):
        return "–"
    return f"{value:.4f}" if abs(value) < 1 or value != int(value) else f"{value:.0f}"


# Settings over seeds


class Repetition(NamedTuple):
    """One evaluation under one setting.

    Attributes:
        key: Network, variant, dataset.
        parameters: Parameter -> text; the seed is one of them.
        metrics: Key of ``METRICS`` -> value; what is undefined is left out, None or NaN.
    """

    key: Key
    parameters: Mapping[str, str]
    metrics: Mapping[str, float | None]


@dataclass(frozen=True)
class Spread:
    """One metric over seeds: mean, standard deviation (n - 1; NaN for one), extremes, number."""

    mean: float
    deviation: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Setting:
    """Evaluations that differ in nothing but the seed.

    Attributes:
        parameters: Those that differ between settings, without the seed.
        values: Network, variant and dataset -> metric -> its values, one per seed.
    """

    parameters: tuple[tuple[str, str], ...]
    values: Mapping[Key, Mapping[str, Sequence[float]]]

    @property
    def name(self) -> str:
        """The parameters as one text.

        Examples:
            >>> Setting((("train.ood_weight", "0.5"),), {}).name
            'ood_weight 0.5'
        """
        return ", ".join(f"{k.split('.')[-1]} {v}" for k, v in self.parameters) or "one setting"

    def spread(self, key: Key, metric: str) -> Spread | None:
        """Return mean and spread of a metric; None if no seed has it.

        Examples:
            >>> key = ("mini", "baseline", "fs")
            >>> s = Setting((), {key: {"auroc": (0.5, 0.7)}}).spread(key, "auroc")
            >>> s.mean, round(s.deviation, 4), s.low, s.high, s.n
            (0.6, 0.1414, 0.5, 0.7, 2)
        """
        values = np.array(self.values.get(key, {}).get(metric, ()))
        if not values.size:
            return None
        deviation = float(values.std(ddof=1)) if values.size > 1 else math.nan
        extremes = float(values.min()), float(values.max())
        return Spread(float(values.mean()), deviation, *extremes, values.size)

    def mean(self, key: Key, metric: str) -> float | None:
        """Return the mean of a metric over seeds; None if no seed has it."""
        found = self.spread(key, metric)
        return None if found is None else found.mean


def group_by_setting(repetitions: Iterable[Repetition]) -> list[Setting]:
    """Group evaluations that differ in nothing but the seed.

    Of evaluations with the same key, parameters and seed the first counts. Parameters that are equal in all evaluations
    of each key do not name a setting.

    Examples:
        >>> key = ("mini", "ood_trained", "fs")
        >>> runs = [Repetition(key, {"seed": s, "x": "1"}, {"auprc": float(s)}) for s in "01"]
        >>> [(setting.name, setting.mean(key, "auprc")) for setting in group_by_setting(runs)]
        [('one setting', 0.5)]
    """
    # 1. each evaluation once
    distinct: dict[tuple[Key, tuple[tuple[str, str], ...]], Repetition] = {}
    for one in repetitions:
        distinct.setdefault((one.key, tuple(sorted(one.parameters.items()))), one)
    # 2. the parameters that vary within some key
    texts: dict[tuple[Key, str], set[str]] = {}
    for one in distinct.values():
        for name, text in one.parameters.items():
            texts.setdefault((one.key, name), set()).add(text)
    varying = {name for (_, name), found in texts.items() if len(found) > 1} - {"seed"}
    # 3. values of equal settings side by side
    groups: dict[tuple[tuple[str, str], ...], dict[Key, dict[str, list[float]]]] = {}
    for one in distinct.values():
        setting = tuple((k, v) for k, v in one.parameters.items() if k in varying)
        metrics = groups.setdefault(setting, {}).setdefault(one.key, {})
        for name in METRICS:
            value = one.metrics.get(name)
            if value is not None and math.isfinite(value):
                metrics.setdefault(name, []).append(value)
    return [Setting(parameters, values) for parameters, values in sorted(groups.items())]


_COLUMN = re.compile(rf"evaluate/([^/]+)/([^/]+)/([^/]+)/\w+\.json:({'|'.join(METRICS)})$")
_SECTIONS = frozenset(Params.model_fields)


def read_experiments(text: str) -> list[Setting]:
    r"""Read what ``dvc exp show --csv`` prints.

    Its columns are parameters by their dotted key, metrics as
    ``data/evaluate/<network>/<variant>/<dataset>/<file>.json:<key>`` and hashes of files. The workspace is left out if
    a commit or experiment has the same parameters, and so is what has not run yet. Baselines do not depend on
    ``train``: those that differ in nothing else are one.

    Raises:
        ValueError: If there is no metric of an evaluation.

    Examples:
        >>> column = "data/evaluate/mini/ood_trained/fs/summary.json:auprc"
        >>> text = f"Experiment,rev,{column},seed,train.ood_weight\na,1,0.4,0,0.5\nb,2,0.6,1,0.5\n"
        >>> [s.mean(("mini", "ood_trained", "fs"), "auprc") for s in read_experiments(text)]
        [0.5]
    """
    rows = list(csv.DictReader(io.StringIO(text)))
    columns = list(rows[0]) if rows else []
    metric_columns = {c: match.groups() for c in columns if (match := _COLUMN.search(c))}
    if not metric_columns:
        raise ValueError(
            "no column like data/evaluate/NETWORK/VARIANT/DATASET/summary.json:auprc; expected "
            "what 'dvc exp show --csv' prints"
        )
    parameters = [c for c in columns if c.split(".")[0] in _SECTIONS]
    repetitions = []
    # the workspace last: of equal evaluations the first counts
    for row in sorted(rows, key=lambda row: row.get("rev") == "workspace"):
        metrics: dict[Key, dict[str, float]] = {}
        for column, (network, variant, dataset, name) in metric_columns.items():
            if row[column]:
                metrics.setdefault((network, variant, dataset), {})[name] = _number(row[column])
        for key, values in metrics.items():
            used = [c for c in parameters if key[1] != "baseline" or not c.startswith("train.")]
            repetitions.append(Repetition(key, {c: row[c] or "" for c in used}, values))
    return group_by_setting(repetitions)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def spreads_text(settings: Sequence[Setting]) -> str:
    """Return mean, spread and number of every metric, one table per evaluation and setting."""
    blocks = []
    for key in all_keys(settings):
        found = [setting for setting in settings if key in setting.values]
        for setting in found:
            is_named = len(found) > 1 or setting.parameters
            title = " · ".join([*key, setting.name] if is_named else key)
            spreads = [(m, s) for m in METRICS if (s := setting.spread(key, m)) is not None]
            rows = [[name, *map(_short, (s.mean, s.deviation, s.low, s.high)), str(s.n)] for name, s in spreads]
            table = text_table(["", "mean", "sd", "lowest", "highest", "n"], rows)
            blocks.append(f"{title}\n{table}")
    return "\n\n".join(blocks)


def all_keys(settings: Sequence[Setting]) -> list[Key]:
    """Return the keys of all settings, sorted by dataset, network and variant."""
    found = {key for setting in settings for key in setting.values}
    return sorted(found, key=lambda key: (key[2], *key[:2]))


# Gain against cost


class TradeOffPoint(NamedTuple):
    """A setting's mean mIoU over the labelled datasets, its AUPRC, and whether none beats it."""

    setting: Setting
    miou: float
    auprc: Spread
    is_optimal: bool


@dataclass(frozen=True)
class TradeOff:
    """AUPRC against mIoU of all settings of one OoD-trained network on one dataset.

    Attributes:
        network, dataset: Which.
        points: One per setting, the highest AUPRC first.
        baselines: Distinct ``(mIoU, AUPRC)`` of the baselines.
    """

    network: str
    dataset: str
    points: Sequence[TradeOffPoint]
    baselines: Sequence[tuple[float, float]]


def trade_offs(settings: Sequence[Setting]) -> list[TradeOff]:
    """Return gain against cost for each network and dataset that has both."""
    datasets = {
        (network, dataset)
        for setting in settings
        for (network, _, dataset), metrics in setting.values.items()
        if "auprc" in metrics
    }
    found = []
    for network, dataset in sorted(datasets):
        points = []
        for setting in settings:
            auprc = setting.spread((network, "ood_trained", dataset), "auprc")
            miou = _mean_miou(setting, network, "ood_trained")
            if auprc is not None and miou is not None:
                points.append(TradeOffPoint(setting, miou, auprc, is_optimal=False))
        if not points:
            continue
        optimal = pareto_front(
            np.array([point.miou for point in points]), np.array([point.auprc.mean for point in points])
        )
        points = [p._replace(is_optimal=bool(o)) for p, o in zip(points, optimal, strict=True)]
        points.sort(key=lambda point: -point.auprc.mean)
        baselines = {
            (cost, gain)
            for setting in settings
            if (gain := setting.mean((network, "baseline", dataset), "auprc")) is not None
            and (cost := _mean_miou(setting, network, "baseline")) is not None
        }
        found.append(TradeOff(network, dataset, points, sorted(baselines)))
    return found


def _mean_miou(setting: Setting, network: str, variant: str) -> float | None:
    means = [
        mean
        for key in setting.values
        if key[:2] == (network, variant) and (mean := setting.mean(key, "miou")) is not None
    ]
    return sum(means) / len(means) if means else None


def pareto_front(x: Floats, y: Floats) -> npt.NDArray[np.bool_]:
    """Return which points are Pareto-optimal: no other is as high in both and higher in one.

    Args:
        x, y: ``(N,)`` each, higher is better.

    Returns:
        ``(N,) bool``.

    Examples:
        >>> pareto_front(np.array([1.0, 2.0, 0.5]), np.array([2.0, 1.0, 1.5])).tolist()
        [True, True, False]
    """
    at_least = (x[None] >= x[:, None]) & (y[None] >= y[:, None])
    different = (x[None] != x[:, None]) | (y[None] != y[:, None])
    return np.asarray(~(at_least & different).any(axis=1))
