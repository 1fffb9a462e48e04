"""The page's break-downs: by score, protocol, kind of error, size, label and class."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from meta_ood.data.labels import CITYSCAPES
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


@dataclass(frozen=True)
class Change:
    """One metric of the first and the last variant; whether it is the last one's best value."""

    metric: Metric
    first: float | None
    last: float | None
    is_best: bool = False


@dataclass(frozen=True)
class Breakdown:
    """A table of changes from the first to the last variant.

    Attributes:
        metrics: Its columns.
        groups: ``(dataset, network)`` -> name of the row -> one change per metric.
    """

    metrics: Sequence[Metric]
    groups: Mapping[tuple[str, str], Mapping[str, Sequence[Change]]]


def _scores(one: Evaluation) -> Places:
    return {name: ("scores", name) for name in one.section("scores")}


def _protocols(one: Evaluation) -> Places:
    score = str(one.metrics.get("score", ""))
    found = {name: ("protocols", name, score) for name in one.section("protocols")}
    return found if len(found) > 1 else {}


def _segments(one: Evaluation) -> Places:
    if not one.value("components"):
        return {}
    return {title: ("segment", stage) for stage, title in _STAGES.items()}


def _components(one: Evaluation) -> Places:
    return {
        title: ("component", stage)
        for stage, title in _STAGES.items()
        if one.section("component", stage).get("components")
    }


def _known_classes(one: Evaluation) -> Places:
    return {"all classes": ()} if one.value("miou") is not None else {}


def breakdowns(results: Results) -> dict[str, Breakdown | None]:
    """Return the break-downs by their anchor in the page; None for one without a row."""
    kinds: dict[str, tuple[Callable[[Evaluation], Places], Sequence[Metric]]] = {
        "scores": (_scores, PIXEL),
        "protocols": (_protocols, PIXEL),
        "segments": (_segments, _SEGMENT),
        "components": (_components, _COMPONENT),
        "known": (_known_classes, _KNOWN),
    }
    found: dict[str, Breakdown | None] = {}
    for anchor, (places, metrics) in kinds.items():
        groups = {
            (variants[0].dataset, variants[0].network): rows
            for variants in results.groups
            if (rows := _changes(variants, places, metrics, mark_best=anchor == "scores"))
        }
        found[anchor] = Breakdown(metrics, groups) if groups else None
    return found


def _changes(
    variants: Sequence[Evaluation],
    places: Callable[[Evaluation], Places],
    metrics: Sequence[Metric],
    *,
    mark_best: bool,
) -> dict[str, list[Change]]:
    named = {name: place for one in variants for name, place in places(one).items()}
    rows = {}
    for name, place in named.items():
        row = [Change(m, variants[0].value(*place, m.key), variants[-1].value(*place, m.key)) for m in metrics]
        if any(change.first is not None or change.last is not None for change in row):
            rows[name] = row
    if mark_best and len(rows) > 1:
        for i, metric in enumerate(metrics):
            known = [v for row in rows.values() if (v := row[i].last) is not None]
            best = (max if metric.better == "higher" else min)(known, default=None)
            for row in rows.values():
                row[i] = replace(row[i], is_best=best is not None and row[i].last == best)
    return rows


def object_groups(pairs: Sequence[Pair], by: str) -> list[str]:
    """Return the groups of objects, by ``size`` or ``label_id``, that some pair has objects of."""
    names = [
        name for _, after in pairs for name, group in after.section("detection", by).items() if group.get("components")
    ]
    return list(dict.fromkeys(names))


def size_text(name: str) -> str:
    """Return a size group for people.

    Examples:
        >>> size_text("100-1000"), size_text("1000-1e+09").replace(chr(0x202F), " ")
        ('100 to 999', 'from 1 000')
    """
    low, high = (float(end) for end in name.replace("e+", "e").split("-"))
    return f"from {thousands(low)}" if high >= 1e8 else f"{thousands(low)} to {thousands(high - 1)}"


def class_ious(pairs: Sequence[Pair]) -> dict[str, list[tuple[float | None, float | None]]]:
    """Return class name -> its IoU before and after, for each pair; all pairs have them."""
    columns = [[one.metrics["class_iou"] for one in pair] for pair in pairs]
    count = max((len(ious) for pair in columns for ious in pair), default=0)
    names = CITYSCAPES.names if count == len(CITYSCAPES.names) else [str(i) for i in range(count)]
    return {
        name: [tuple(ious[i] if i < len(ious) else None for ious in pair) for pair in columns]  # type: ignore[misc]
        for i, name in enumerate(names)
    }


def thousands(value: float | None) -> str:
    """Return a number with thin spaces between thousands; a dash for None."""
    return "–" if value is None else f"{value:,.0f}".replace(",", "\u202f")
