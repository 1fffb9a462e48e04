"""The page's break-downs: by score, protocol, kind of error, overlap, size and label."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from meta_ood.metrics.catalogue import METRICS, Metric
from meta_ood.report.results import Evaluation, Pair, Results

_PIXEL = [METRICS[key] for key in ("auroc", "fpr95", "auprc")]
_METRICS = {
    "scores": _PIXEL,
    "protocols": _PIXEL,
    "segments": [
        Metric("true_positives", "true segments", ("true", "segments"), "count", "higher"),
        Metric("false_positives", "false segments", ("FP", "segments"), "count", "lower"),
        Metric("false_negatives", "missed objects", ("FN", "objects"), "count", "lower"),
        Metric("f1", "segment F1", ("segment F1", "%"), "percent", "higher"),
    ],
    "components": [
        Metric("siou", "sIoU", ("sIoU", "%"), "percent", "higher"),
        Metric("ppv", "PPV", ("PPV", "%"), "percent", "higher"),
        Metric("f1", "mean F1", ("mean F1", "%"), "percent", "higher"),
    ],
    "known": [METRICS["miou"], replace(METRICS["calibration_error"], heading=("calibration", "error, %"))],
}
"""Anchor in the page -> metrics of its columns."""


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


def breakdowns(results: Results) -> dict[str, Breakdown | None]:
    """Return the break-downs by their anchor in the page; None for one without a row."""
    found: dict[str, Breakdown | None] = {}
    for anchor, metrics in _METRICS.items():
        groups = {}
        for variants in results.groups:
            # rows of either variant, without those that have no metric
            places = _places(anchor, variants[0]) | _places(anchor, variants[-1])
            rows = {name: _row(variants, place, metrics) for name, place in places.items()}
            rows = {name: row for name, row in rows.items() if any(c[1:3] != (None, None) for c in row)}
            if anchor == "scores":
                _mark_best(rows, metrics)
            if rows:
                groups[variants[0].dataset, variants[0].network] = rows
        found[anchor] = Breakdown(metrics, groups) if groups else None
    return found


def _places(anchor: str, one: Evaluation) -> dict[str, tuple[str, ...]]:
    """Return name of a row -> keys in metrics.json below which its metrics are."""
    match anchor:
        case "scores":
            return {name: ("scores", name) for name in one.section("scores")}
        case "protocols" if len(one.section("protocols")) > 1:
            return {name: ("protocols", name, str(one.metrics.get("score", ""))) for name in one.section("protocols")}
        case "segments" | "components" if one.value("components"):
            section = anchor.removesuffix("s")
            return {"all segments": (section, "before"), "after meta classification": (section, "after_meta")}
        case "known" if one.value("miou") is not None:
            return {"all classes": ()}
    return {}


def _row(variants: Sequence[Evaluation], place: tuple[str, ...], metrics: Sequence[Metric]) -> list[Change]:
    return [Change(m, variants[0].value(*place, m.key), variants[-1].value(*place, m.key)) for m in metrics]


def _mark_best(rows: Mapping[str, list[Change]], metrics: Sequence[Metric]) -> None:
    """Mark the last variant's best value of each metric, in place; one row alone is not the best."""
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
