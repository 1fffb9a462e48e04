"""The page's break-downs: by score, protocol, kind of error, overlap, size and label."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from meta_ood.metrics.catalogue import METRICS, Metric
from meta_ood.report.results import Evaluation, Pair, Results

PIXEL = tuple(METRICS[key] for key in ("auroc", "fpr95", "auprc"))
_SEGMENT = (
    Metric("true_positives", "true segments", ("true", "segments"), "count", "higher"),
    Metric("false_positives", "false segments", ("FP", "segments"), "count", "lower"),
    Metric("false_negatives", "missed objects", ("FN", "objects"), "count", "lower"),
    Metric("f1", "segment F1", ("segment F1", "%"), "percent", "higher"),
)
_COMPONENT = (
    Metric("siou", "sIoU", ("sIoU", "%"), "percent", "higher"),
    Metric("ppv", "PPV", ("PPV", "%"), "percent", "higher"),
    Metric("f1", "mean F1", ("mean F1", "%"), "percent", "higher"),
)
_KNOWN = (METRICS["miou"], replace(METRICS["calibration_error"], heading=("calibration", "error, %")))
_STAGES = {"before": "all segments", "after_meta": "after meta classification"}

Places = Mapping[str, tuple[str, ...]]
"""Name of a row -> keys in metrics.json below which its metrics are."""


class Change(NamedTuple):
    """One metric of the first and the last variant; whether that is the best of all rows."""

    metric: Metric
    first: float | None
    last: float | None
    is_best: bool = False


class Breakdown(NamedTuple):
    """A table: ``(dataset, network)`` -> name of the row -> one change per metric."""

    metrics: Sequence[Metric]
    groups: Mapping[tuple[str, str], Mapping[str, Sequence[Change]]]


def _scores(one: Evaluation) -> Places:
    return {name: ("scores", name) for name in one.section("scores")}


def _protocols(one: Evaluation) -> Places:
    score = str(one.metrics.get("score", ""))
    found = {name: ("protocols", name, score) for name in one.section("protocols")}
    return found if len(found) > 1 else {}


def _stages(section: str) -> Callable[[Evaluation], Places]:
    places = {title: (section, stage) for stage, title in _STAGES.items()}
    return lambda one: places if one.value("components") else {}


def _known_classes(one: Evaluation) -> Places:
    return {"all classes": ()} if one.value("miou") is not None else {}


_KINDS: dict[str, tuple[Callable[[Evaluation], Places], Sequence[Metric]]] = {
    "scores": (_scores, PIXEL),
    "protocols": (_protocols, PIXEL),
    "segments": (_stages("segment"), _SEGMENT),
    "components": (_stages("component"), _COMPONENT),
    "known": (_known_classes, _KNOWN),
}


def breakdowns(results: Results) -> dict[str, Breakdown | None]:
    """Return the break-downs by their anchor in the page; None for one without a row."""
    found: dict[str, Breakdown | None] = {}
    for anchor, (places, metrics) in _KINDS.items():
        groups = {
            (variants[0].dataset, variants[0].network): rows
            for variants in results.groups
            if (rows := _changes(variants, places, metrics))
        }
        if anchor == "scores":
            for rows in groups.values():
                _mark_best(rows, metrics)
        found[anchor] = Breakdown(metrics, groups) if groups else None
    return found


def _changes(
    variants: Sequence[Evaluation], places: Callable[[Evaluation], Places], metrics: Sequence[Metric]
) -> dict[str, list[Change]]:
    first, last = variants[0], variants[-1]
    rows = {
        name: [Change(m, first.value(*p, m.key), last.value(*p, m.key)) for m in metrics]
        for name, p in {**places(first), **places(last)}.items()
    }
    return {name: row for name, row in rows.items() if any(c[1:3] != (None, None) for c in row)}


def _mark_best(rows: Mapping[str, list[Change]], metrics: Sequence[Metric]) -> None:
    """Mark the last variant's best value of each metric, in place."""
    for i, metric in enumerate(metrics if len(rows) > 1 else ()):
        known = [value for row in rows.values() if (value := row[i].last) is not None]
        best = (max if metric.better == "higher" else min)(known, default=None)
        for row in rows.values():
            row[i] = row[i]._replace(is_best=best is not None and row[i].last == best)


def object_groups(pairs: Sequence[Pair], by: str) -> list[str]:
    """Return the groups of objects, by ``size`` or ``label_id``, that some pair has objects of."""
    found = (pair[1].section("detection", by).items() for pair in pairs)
    names = (name for groups in found for name, group in groups if group.get("components"))
    return list(dict.fromkeys(names))


def size_text(name: str) -> str:
    """Return a size group for people: ``100-1000`` -> ``100 to 999``."""
    low, high = (float(end) for end in name.replace("e+", "e").split("-"))
    return f"from {thousands(low)}" if high >= 1e8 else f"{thousands(low)} to {thousands(high - 1)}"


def thousands(value: float | None) -> str:
    """Return a number with thin spaces between thousands; a dash for None."""
    return "–" if value is None else f"{value:,.0f}".replace(",", "\u202f")
