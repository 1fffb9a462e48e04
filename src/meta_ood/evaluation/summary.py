"""Metrics and curves of an evaluated cell, from counts and segments to metrics.json."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from meta_ood.data import files
from meta_ood.evaluation.counting import SetCounts
from meta_ood.metrics import Flags, Floats, component, pixel, segment, semantic
from meta_ood.metrics.catalogue import METRICS
from meta_ood.segments import SegmentTable

logger = logging.getLogger(__name__)

Curve = Mapping[str, npt.NDArray[Any]]  # column name -> values, all of one length


def read_removed(meta: Path, table: SegmentTable) -> tuple[Floats, Flags]:
    """Read ``probabilities.csv`` of the stage `meta`: the out-of-fold probability of being false, and if it is removed.

    Returns:
        Two arrays ``(S,)``, ``float64`` and ``bool``.

    Raises:
        FileNotFoundError: If the stage has not run.
        ValueError: If the file does not fit the table.
    """
    path = _of_meta(meta, "probabilities.csv")
    columns = ("image_id", "probability", "removed")
    rows = files.read_csv(path, columns, optional=("segment", "scene", "estimated_iou", "severity"))
    if [row["image_id"] for row in rows] != [table.image_ids[i] for i in table.image]:
        raise ValueError(f"{path}: {len(rows)} rows do not fit the table's {len(table.image)} segments")
    try:
        probability = np.array([float(row["probability"]) for row in rows], np.float64)
        removed = np.array([int(row["removed"]) for row in rows], np.int64)
    except ValueError as error:
        raise ValueError(f"{path}: expected a number in every `probability` and `removed`: {error}") from None
    wrong = np.flatnonzero(~((probability >= 0) & (probability <= 1) & np.isin(removed, (0, 1))))
    if wrong.size:
        raise ValueError(f"{path}: row {wrong[0]}: expected `probability` in [0, 1] and `removed` 0 or 1")
    return probability, removed == 1


def read_calibration(meta: Path) -> Curve:
    """Read the calibration of the out-of-fold probabilities from ``metrics.json`` of `meta`.

    Returns:
        ``predicted`` (mean probability of being false), ``observed`` (fraction that is false) and ``segments`` (how
        many) of each bin that holds segments.

    Raises:
        FileNotFoundError: If the stage has not run.
        ValueError: If the file does not hold a calibration.
    """
    path = _of_meta(meta, "metrics.json")
    try:
        found = files.read_json(path)["calibration"]
        # version 0.1 called the two columns `said` and `seen`
        names = ("predicted", "observed") if "predicted" in found else ("said", "seen")
        columns = np.array([found[name] for name in (*names, "count")], np.float64)
        predicted, observed, segments = columns[:, columns[2] > 0]
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ValueError(f"{path}: no calibration with predicted, observed, count: {error!r}") from None
    return {"predicted": predicted, "observed": observed, "segments": segments}


def read_differing_decisions(meta: Path) -> int | None:
    """Read how many segments `classifier.json` decides differently than out of fold; None before version 0.2."""
    found = files.read_json(_of_meta(meta, "metrics.json")).get("differing_decisions")
    return found if isinstance(found, int) else None


def read_joint(meta: Path) -> tuple[dict[str, Any], bytes]:
    """Return what is known of a meta classifier for several sets, and the curve of recall against false alarms as CSV.

    ``train_on`` and ``promise`` (how it does on this set), as far as `metrics.json` of `meta` has them; both empty
    where each set has a classifier of its own.
    """
    found, curve = files.read_json(_of_meta(meta, "metrics.json")), meta / "froc.csv"
    about = {key: found[key] for key in ("train_on", "promise") if key in found}
    return about, curve.read_bytes() if "promise" in about and curve.is_file() else b""


def _of_meta(meta: Path, name: str) -> Path:
    if not (meta / name).is_file():
        raise FileNotFoundError(f"{meta / name} is missing: run `meta` first")
    return meta / name


def measure(
    counts: SetCounts, table: SegmentTable, removed: Flags, protocols: Sequence[str], label_names: Mapping[int, str]
) -> dict[str, Any]:
    """Return all metrics of one network, variant and dataset, for metrics.json; NaN where undefined.

    Args:
        counts: Counts of all frames.
        table, removed: Segments of the set and what meta classification removes, ``(S,) bool``.
        protocols: Keys of :data:`meta_ood.metrics.pixel.PROTOCOLS`; ``exact`` is always there.
        label_names: Names of the label ids of components.
    """
    # 1. pixels: each score is swept once for all protocols
    main = counts.histograms[counts.main]
    is_defined = bool(main.positives and main.negatives)
    if not is_defined:
        logger.warning("no OoD pixel or no other pixel: AUROC, AUPRC and FPR95 are not defined")
    pixels: dict[str, dict[str, Any]] = {name: {} for name in dict.fromkeys(("exact", *protocols))}
    for score, histogram in counts.histograms.items():
        curve = counts.curve if score == counts.main else pixel.sweep(histogram)
        for name, of_scores in pixels.items():
            if name == pixel.RESIZED:
                one = pixel.pixel_metrics(counts.resized[score], name, score=score)
            elif is_defined:
                one = pixel.pixel_metrics(histogram, name, curve, score)
            else:
                one = pixel.with_counts(histogram, name, {})
            of_scores[score] = asdict(one)
    # 2. segments and components
    errors = segment.segment_errors(table, removed)
    of_segments = errors.summary()
    before = component.component_metrics(component.of_table(table))
    after = component.component_metrics(component.of_table(table, ~removed))
    # 3. known classes
    confusion = np.sum(list(counts.confusion.values()), axis=0)
    return {
        **{name: pixels["exact"][counts.main][name] for name in ("auroc", "auprc", "fpr95")},
        "score": counts.main,
        "frames": main.frames,
        "scenes": len(set(table.scenes)),
        "pixels": main.positives + main.negatives,
        "positives": main.positives,
        "ignored": main.ignored,
        "neutral": main.neutral,
        "segments": errors.segments,
        "components": errors.components,
        "true_segments_removed": errors.true_segments_removed,
        "segment_false_positives": errors.false_positives,
        "segment_false_negatives": errors.false_negatives,
        "segment_false_positives_after_meta": errors.false_positives_after_meta,
        "segment_false_negatives_after_meta": errors.false_negatives_after_meta,
        "segments_removed": errors.removed,
        "published_false_positives_after_meta": errors.published_false_positives_after_meta,
        "alarm_rate": float(segment.has_alarm(table, removed).mean()) if table.image_ids else math.nan,
        "object_recall": 1 - errors.false_negatives_after_meta / errors.components if errors.components else math.nan,
        "segment_f1": of_segments["before"]["f1"],
        "segment_f1_after_meta": of_segments["after_meta"]["f1"],
        "segment": of_segments,
        "component_f1": before.f1,
        "component_f1_after_meta": after.f1,
        "component": {"before": asdict(before), "after_meta": asdict(after), **counts.components},
        "miou": semantic.mean_iou(confusion),
        "class_iou": semantic.class_iou(confusion).tolist() if confusion.any() else None,
        "calibration_error": counts.reliability.error,
        "detection": _found_components(table, removed, label_names),
        "scores": pixels["exact"],
        "protocols": pixels,
    }


def headlines(values: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics of :data:`METRICS` that are defined, and the promise: what DVC shows and compares."""
    promise = values.get("promise", {})
    shown = {f"promise_{name}": promise[name] for name in ("threshold", "budget", "confidence") if name in promise}
    return {name: values[name] for name in METRICS if values.get(name) is not None} | shown


def _found_components(table: SegmentTable, removed: Flags, label_names: Mapping[int, str]) -> dict[str, Any]:
    """Return how many components are found by size, by row of their lower edge, and by label id or its name."""
    sizes = np.array([1, 100, 1000, 10_000, 100_000, 1_000_000_000], np.float64)  # [px]
    lowest = table.component_box[:, 2]
    # five equal groups of rows, from the top to the lowest component
    rows = np.linspace(0, float(lowest.max(initial=0)) + 1, 6).round()
    names = {"-1": "unknown", **{str(label_id): name for label_id, name in label_names.items()}}
    is_labelled = bool((table.component_label_id >= 0).any())
    by_label = segment.found_by(table, removed, table.component_label_id) if is_labelled else {}
    return {
        "size": segment.found_by(table, removed, table.component_size, sizes),
        "row": segment.found_by(table, removed, lowest, rows) if len(lowest) else {},
        "label_id": {names.get(label, label): found for label, found in by_label.items()},
    }


def plain(value: Any) -> Any:
    """Return `value` for JSON: NaN and infinities become None, NumPy numbers plain ones."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def curve_tables(
    counts: SetCounts, table: SegmentTable, probability: Floats, class_names: Sequence[str]
) -> dict[str, Curve]:
    """Return the curves of the main score, file stem -> column -> values: ROC and PR have no row without OoD pixels."""
    main = counts.histograms[counts.main]
    roc = precision_recall = (np.empty(0),) * 3
    if main.positives and main.negatives:
        roc, precision_recall = pixel.roc_curve(counts.curve), pixel.pr_curve(counts.curve)
    confidence, accuracy, pixels = counts.reliability.curve()
    centres, negatives, positives = pixel.score_distribution(counts.curve)
    return {
        "roc": dict(zip(("false_positive_rate", "true_positive_rate", "threshold"), roc, strict=True)),
        "pr": dict(zip(("recall", "precision", "threshold"), precision_recall, strict=True)),
        "histogram": {"score": centres, "in_distribution": negatives, "ood": positives},
        "trade_off": segment.trade_off(table, probability),
        "reliability": {"confidence": confidence, "accuracy": accuracy, "pixels": pixels},
        "components": counts.at_thresholds.segment_columns(counts.least),
        "interior": counts.at_thresholds.interior_columns(class_names),
    }


def write_curve(path: Path, curve: Curve) -> None:
    """Write a CSV file atomically: a header and one row per index, numbers in 10 digits."""
    files.write_csv(path, list(curve), ([f"{v:.10g}" for v in row] for row in zip(*curve.values(), strict=True)))
