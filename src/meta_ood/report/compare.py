"""Compare evaluations: in pairs over the same scenes, over seeds, and gain against cost."""

import csv
import io
import logging
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from meta_ood.config import Params
from meta_ood.data.registry import known_names
from meta_ood.data.text_table import markdown_table, text_table
from meta_ood.metrics.bootstrap import interval
from meta_ood.metrics.catalogue import METRICS, Metric
from meta_ood.report.results import Evaluation, Floats, Key, Pair, read_evaluations

logger = logging.getLogger(__name__)

Tone = Literal["better", "worse", "unchanged"]


@dataclass(frozen=True)
class Difference:
    """How one metric changes between two evaluations, with the 95 % interval over scenes."""

    metric: Metric
    before: float
    after: float
    low: float = math.nan  # NaN if unknown
    high: float = math.nan

    @property
    def change(self) -> float:
        """``after - before``."""
        return self.after - self.before

    @property
    def tone(self) -> Tone:
        """Whether the change is an improvement."""
        gain = self.metric.gain(self.before, self.after) or 0.0
        # smaller changes are called none: half a unit of the last printed digit
        if abs(gain) < {"percent": 0.0005, "count": 0.5}[self.metric.unit]:
            return "unchanged"
        return "better" if gain > 0 else "worse"

    @property
    def has_interval(self) -> bool:
        """Whether the interval is known."""
        return not math.isnan(self.low)

    @property
    def could_be_chance(self) -> bool:
        """Whether something changed and the interval contains 0; False if it is unknown."""
        return self.low <= 0 <= self.high and self.tone != "unchanged"

    def signed(self, value: float) -> str:
        """Return a change with its sign, a true minus, in points or segments; ``±0.0`` where it rounds to none."""
        text = f"{100 * value:+.1f}" if self.metric.unit == "percent" else f"{value:+.0f}"
        return text.replace("-", "−") if text.strip("+-0.") else "±" + text[1:]


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
    before, after = (float(total([pair[i].value(key) for pair in known])) for i in (0, 1))
    changes = [_replicates_of_change(b, a, key) for b, a in known]
    if len({len(change) for change in changes}) > 1:
        return Difference(metric, before, after)
    return Difference(metric, before, after, *interval(np.asarray(total(changes, axis=0))))


def _replicates_of_change(before: Evaluation, after: Evaluation, key: str) -> Floats:
    """Return one change per replicate; empty if the replicates cannot be paired."""
    first, second = (one.curves.get("bootstrap", {}).get(key, np.empty(0)) for one in (before, after))
    if len(first) == len(second):
        return second - first
    if len(first) and len(second):
        text = "%s has %d replicates, %s %d: evaluate both with the same evaluate.bootstrap"
        logger.warning(text, "/".join(before.key), len(first), "/".join(after.key), len(second))
    return np.empty(0)


def differences(evaluations: Mapping[Key, Evaluation]) -> list[tuple[Evaluation, Evaluation, list[Difference]]]:
    """Return the changes of all metrics between all comparable evaluations of a run, in pairs.

    Comparable are two variants of one network, and two networks of one variant, on one dataset.
    """
    order = sorted(evaluations.values(), key=lambda one: (one.dataset, one.network, one.variant))
    pairs = [(a, b) for a, b in combinations(order, 2) if a.dataset == b.dataset]
    # of each dataset, pairs of variants come before pairs of networks
    return [
        (a, b, [d for key in METRICS if (d := difference(key, (a, b)))])
        for a, b in sorted(pairs, key=lambda p: (p[0].dataset, p[0].network != p[1].network))
        if (a.network == b.network) != (a.variant == b.variant)
    ]


def pairs_text(evaluations: Mapping[Key, Evaluation]) -> str:
    """Return :func:`differences` as text, one table per pair."""
    blocks = []
    for a, b, changes in differences(evaluations):
        rows = []
        for d in changes:
            ends = f"[{_short(d.low)}, {_short(d.high)}]" if d.has_interval else ""
            rows.append([d.metric.key, *map(_short, (d.before, d.after, d.change)), ends])
        table = text_table(["", "before", "after", "change", "95 % interval over scenes"], rows)
        blocks.append(f"{b.dataset}: {a.network} {a.variant} -> {b.network} {b.variant}\n{table}")
    return "\n\n".join(blocks)


def pair_records(evaluations: Mapping[Key, Evaluation]) -> list[dict[str, Any]]:
    """Return :func:`differences` as records for JSON; an interval that is not known is NaN."""
    return [
        {
            "dataset": b.dataset,
            "before": {"network": a.network, "variant": a.variant},
            "after": {"network": b.network, "variant": b.variant},
            "metrics": {
                d.metric.key: {key: getattr(d, key) for key in ("before", "after", "change", "low", "high")}
                for d in changes
            },
        }
        for a, b, changes in differences(evaluations)
    ]


def protocols_text(root: Path) -> str:
    """Return the main score's AUROC / AUPRC / FPR95 under every protocol, as Markdown.

    Raises:
        FileNotFoundError: If no evaluation below `root` has OoD pixels.
    """
    found = [one for one in read_evaluations(root).values() if one.value("auroc") is not None]
    if not found:
        raise FileNotFoundError(f"{root}: no evaluation with OoD pixels below it; `dvc repro evaluate` makes some")
    protocols = list(found[0].section("protocols"))
    rows = []
    for one in found:
        row = [one.dataset, one.network, one.variant]
        for protocol in protocols:
            place = ("protocols", protocol, str(one.metrics["score"]))
            values = (one.value(*place, key) for key in ("auroc", "auprc", "fpr95"))
            row.append(" / ".join("–" if v is None else f"{100 * v:.2f}" for v in values))
        rows.append(row)
    return markdown_table(["dataset", "network", "variant", *protocols], sorted(rows))


def best_thresholds(root: Path, dataset: str) -> dict[str, dict[str, float]]:
    """Return the thresholds with the best F1 on a dataset, network -> variant -> threshold.

    Raises:
        ValueError: If there is no evaluation of the dataset below `root`, if a threshold there was given instead of
            chosen, or the dataset has no OoD pixels.
    """
    datasets: dict[str, list[Evaluation]] = {}
    for one in read_evaluations(root).values():
        datasets.setdefault(one.dataset, []).append(one)
    if dataset not in datasets:
        raise ValueError(f"{root}: no evaluation of dataset {dataset!r}; {known_names(dataset, datasets)}")
    networks: dict[str, dict[str, float]] = {}
    for one in datasets[dataset]:
        of_score = one.section("component", "of_score")
        if not of_score.get("threshold_is_oracle") or of_score["threshold"] is None:
            raise ValueError(f"{root.joinpath(*one.key, 'metrics.json')}: no finite threshold was chosen on this set")
        networks.setdefault(one.network, {})[one.variant] = float(of_score["threshold"])
    return networks


def _short(value: float) -> str:
    if math.isnan(value):
        return "–"
    return f"{value:.4f}" if abs(value) < 1 or value != int(value) else f"{value:.0f}"


_Parameters = tuple[tuple[str, str], ...]  # sorted (name, value)


class Repetition(NamedTuple):
    """One evaluation under one setting."""

    key: Key
    parameters: Mapping[str, str]  # the seed is one of them
    metrics: Mapping[str, float | None]  # keys of METRICS; undefined: left out, None or NaN


class Spread(NamedTuple):
    """One metric over seeds."""

    mean: float
    deviation: float  # n - 1; NaN for one seed
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Setting:
    """Evaluations that differ in nothing but the seed."""

    parameters: _Parameters  # those that differ between settings
    values: Mapping[Key, Mapping[str, Sequence[float]]]  # metric -> one value per seed

    @property
    def name(self) -> str:
        """The parameters as one text."""
        return ", ".join(f"{k.split('.')[-1]} {v}" for k, v in self.parameters) or "one setting"

    def spread(self, key: Key, metric: str) -> Spread | None:
        """Return mean and spread of a metric; None if no seed has it."""
        if values := self.values.get(key, {}).get(metric):
            deviation = stdev(values) if len(values) > 1 else math.nan
            return Spread(fmean(values), deviation, min(values), max(values), len(values))
        return None

    def mean(self, key: Key, metric: str) -> float | None:
        """Return the mean of a metric over seeds; None if no seed has it."""
        return found.mean if (found := self.spread(key, metric)) else None


def group_by_setting(repetitions: Iterable[Repetition]) -> list[Setting]:
    """Group evaluations that differ in nothing but the seed.

    Of evaluations with the same key, parameters and seed the first counts. Parameters that are equal in all evaluations
    of each key do not name a setting.
    """
    # 1. each evaluation once
    distinct: dict[tuple[Key, _Parameters], Repetition] = {}
    for one in repetitions:
        distinct.setdefault((one.key, tuple(sorted(one.parameters.items()))), one)
    # 2. the parameters that vary within some key
    texts: dict[tuple[Key, str], set[str]] = {}
    for one in distinct.values():
        for name, text in one.parameters.items():
            texts.setdefault((one.key, name), set()).add(text)
    varying = {name for (_, name), found in texts.items() if len(found) > 1} - {"seed"}
    # 3. values of equal settings side by side
    groups: dict[_Parameters, dict[Key, dict[str, list[float]]]] = {}
    for one in distinct.values():
        setting = tuple((k, v) for k, v in one.parameters.items() if k in varying)
        metrics = groups.setdefault(setting, {}).setdefault(one.key, {})
        for name in METRICS:
            value = one.metrics.get(name)
            if value is not None and math.isfinite(value):
                metrics.setdefault(name, []).append(value)
    return [Setting(parameters, values) for parameters, values in sorted(groups.items())]


def read_experiments(text: str) -> list[Setting]:
    """Read what ``dvc exp show --csv`` prints.

    Its columns are parameters by their dotted key, metrics as
    ``data/evaluate/<network>/<variant>/<dataset>/summary.json:<key>`` and hashes of files. The workspace is left out if
    a commit or experiment has the same parameters, and so is what has not run yet. Baselines do not depend on
    ``train``: those that differ in nothing else are one.

    Raises:
        ValueError: If there is no metric of an evaluation.
    """
    rows = list(csv.DictReader(io.StringIO(text)))
    columns = list(rows[0]) if rows else []
    # the file was metrics.json in version 0.1
    column = re.compile(rf"evaluate/([^/]+)/([^/]+)/([^/]+)/\w+\.json:({'|'.join(METRICS)})$")
    of_metrics = {c: ((match[1], match[2], match[3]), match[4]) for c in columns if (match := column.search(c))}
    if not of_metrics:
        place = "data/evaluate/NETWORK/VARIANT/DATASET/summary.json:auprc"
        raise ValueError(f"no column like {place}; expected what 'dvc exp show --csv' prints")
    parameters = [c for c in columns if c.split(".")[0] in Params.model_fields]
    repetitions = []
    # the workspace last: of equal evaluations the first counts
    for row in sorted(rows, key=lambda row: row.get("rev") == "workspace"):
        for key in dict.fromkeys(key for key, _ in of_metrics.values()):
            values = {name: float(row[c]) for c, (k, name) in of_metrics.items() if k == key and row[c]}
            used = [c for c in parameters if key[1] != "baseline" or not c.startswith("train.")]
            if values:
                repetitions.append(Repetition(key, {c: row[c] or "" for c in used}, values))
    return group_by_setting(repetitions)


def spreads_text(settings: Sequence[Setting]) -> str:
    """Return mean, spread and number of every metric, one table per evaluation and setting."""
    blocks = []
    for key in all_keys(settings):
        found = [setting for setting in settings if key in setting.values]
        for setting in found:
            is_named = len(found) > 1 or setting.parameters
            spreads = [(name, s) for name in METRICS if (s := setting.spread(key, name))]
            rows = [[name, *map(_short, s[:4]), str(s.n)] for name, s in spreads]
            table = text_table(["", "mean", "sd", "lowest", "highest", "n"], rows)
            blocks.append(f"{' · '.join([*key, setting.name] if is_named else key)}\n{table}")
    return "\n\n".join(blocks)


def spread_records(settings: Sequence[Setting]) -> list[dict[str, Any]]:
    """Return what :func:`spreads_text` shows, as records for JSON."""
    return [
        {
            **dict(zip(("network", "variant", "dataset"), key, strict=True)),
            "parameters": dict(setting.parameters),
            "metrics": {name: s._asdict() for name in METRICS if (s := setting.spread(key, name))},
        }
        for key in all_keys(settings)
        for setting in settings
        if key in setting.values
    ]


def all_keys(settings: Sequence[Setting]) -> list[Key]:
    """Return the keys of all settings, sorted by dataset, network and variant."""
    found = {key for setting in settings for key in setting.values}
    return sorted(found, key=lambda key: (key[2], *key[:2]))


class TradeOffPoint(NamedTuple):
    """A setting: mIoU, the mean over the labelled datasets, against AUPRC."""

    setting: Setting
    miou: float
    auprc: Spread
    is_optimal: bool = False


class TradeOff(NamedTuple):
    """All settings of one OoD-trained network on one dataset, the highest AUPRC first."""

    network: str
    dataset: str
    points: Sequence[TradeOffPoint]
    baselines: Sequence[tuple[float, float]]  # distinct (mIoU, AUPRC)


def trade_offs(settings: Sequence[Setting]) -> list[TradeOff]:
    """Return gain against cost for each network and dataset that has both."""
    found = []
    for network, variant, dataset in all_keys(settings):
        points = [p for s in settings if (p := _point(s, network, variant, dataset))]
        if variant == "ood_trained" and points:
            points.sort(key=lambda point: -point.auprc.mean)
            optimal = pareto_front(np.array([(p.miou, p.auprc.mean) for p in points]))
            points = [p._replace(is_optimal=bool(o)) for p, o in zip(points, optimal, strict=True)]
            before = [p for s in settings if (p := _point(s, network, "baseline", dataset))]
            found.append(TradeOff(network, dataset, points, sorted({(p.miou, p.auprc.mean) for p in before})))
    return found


def _point(setting: Setting, network: str, variant: str, dataset: str) -> TradeOffPoint | None:
    auprc = setting.spread((network, variant, dataset), "auprc")
    keys = [key for key in setting.values if key[:2] == (network, variant)]
    mious = [mean for key in keys if (mean := setting.mean(key, "miou")) is not None]
    return TradeOffPoint(setting, fmean(mious), auprc) if auprc and mious else None


def pareto_front(points: Floats) -> npt.NDArray[np.bool_]:
    """Return which of ``(N, 2)`` points are Pareto-optimal, ``(N,) bool``; in both columns higher is better."""
    # dominated: another point is at least as high in both and differs
    at_least = (points[None] >= points[:, None]).all(axis=2)
    different = (points[None] != points[:, None]).any(axis=2)
    return np.asarray(~(at_least & different).any(axis=1))
