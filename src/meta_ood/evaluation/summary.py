"""Metrics and curves of an evaluated cell, from counts and segments to metrics.json."""

from __future__ import annotations

import json
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

Curve = Mapping[str, npt.NDArray[Any]]
"""Column name -> values, all of one length."""

SIZES = np.array([1, 100, 1000, 10_000, 100_000, 1_000_000_000], np.float64)
"""Edges of the size groups of components [px]."""
ROWS = 5
"""Groups of components by the row of their lower edge."""


def read_removed(meta: Path, table: SegmentTable) -> tuple[Floats, Flags]:
    """Read ``probabilities.csv`` of the stage `meta`.

    Returns:
        probability
            ``(S,)`` out-of-fold probability of being false.
        removed
            ``(S,) bool``.

    Raises:
        FileNotFoundError: If the stage has not run.
        ValueError: If the file does not fit the table.
    """
    path = meta / "probabilities.csv"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: run `meta` first")
    columns = ("image_id", "probability", "removed")
    rows = files.read_csv(path, columns, optional=("segment", "scene", "estimated_iou"))
    images = [table.image_ids[i] for i in table.image]
    if [row["image_id"] for row in rows] != images:
        raise ValueError(f"{path}: {len(rows)} rows do not fit the table's {len(images)} segments")
    try:
        probability = np.array([float(row["probability"]) for row in rows], np.float64)
        removed = np.array([bool(int(row["removed"])) for row in rows], bool)
    except ValueError as error:
        raise ValueError(f"{path}: expected a number in every `probability` and `removed`: {error}") from None
    return probability, removed


def read_calibration(meta: Path) -> Curve:
    """Read the calibration of the out-of-fold probabilities from ``metrics.json`` of `meta`.

    Returns:
        ``predicted`` (mean probability of being false), ``observed`` (fraction that is false) and ``segments`` (how
        many) of each bin that holds segments.

    Raises:
        FileNotFoundError: If the stage has not run.
        ValueError: If the file does not hold a calibration.
    """
    path = meta / "metrics.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: run `meta` first")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["calibration"]
        # version 0.1 called the two columns `said` and `seen`
        names = ("predicted", "observed") if "predicted" in found else ("said", "seen")
        columns = [np.array(found[name], np.float64) for name in (*names, "count")]
        filled = columns[2] > 0
        predicted, observed, segments = (column[filled] for column in columns)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ValueError(f"{path}: no calibration with predicted, observed, count: {error!r}") from None
    return {"predicted": predicted, "observed": observed, "segments": segments}


def measure(
    counts: SetCounts,
    table: SegmentTable,
    removed: Flags,
    *,
    protocols: Sequence[str],
    label_names: Mapping[int, str] | None = None,
) -> dict[str, Any]:
    """Return all metrics of one network, variant and dataset.

    Args:
        counts: Counts of all frames.
        table, removed: Segments of the set and what meta classification removes, ``(S,) bool``.
        protocols: Keys of :data:`meta_ood.metrics.pixel.PROTOCOLS`; ``exact`` is always there.
        label_names: Names of the label ids of components.

    Returns:
        Plain values for metrics.json; NaN where undefined.
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
            if is_defined:
                of_scores[score] = asdict(pixel.pixel_metrics(histogram, name, curve))
            else:
                of_scores[score] = asdict(pixel.with_counts(histogram, name, {}))
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
        "segment_f1": of_segments["before"]["f1"],
        "segment_f1_after_meta": of_segments["after_meta"]["f1"],
        "segment": of_segments,
        "component_f1": before.f1,
        "component_f1_after_meta": after.f1,
        "component": {"before": asdict(before), "after_meta": asdict(after), **counts.components},
        "miou": semantic.mean_iou(confusion),
        "class_iou": semantic.class_iou(confusion).tolist() if confusion.any() else None,
        "calibration_error": counts.reliability.error,
        "detection": found_components(table, removed, label_names or {}),
        "scores": pixels["exact"],
        "protocols": pixels,
    }


def headlines(values: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics of :data:`METRICS` that are defined: what DVC shows and compares.

    Examples:
        >>> headlines({"auroc": 0.5, "miou": None, "pixels": 7})
        {'auroc': 0.5}
    """
    return {name: values[name] for name in METRICS if values.get(name) is not None}


def found_components(table: SegmentTable, removed: Flags, label_names: Mapping[int, str]) -> dict[str, Any]:
    """Return how many components are found by size, by row of their lower edge, by label.

    Labels stand under their names where these are known, else under their ids; without any label id there is no group.
    """
    lowest = table.component_box[:, 2]
    # equal groups of rows up to the lowest component
    rows = np.linspace(0, float(lowest.max(initial=0)) + 1, ROWS + 1).round()
    by_label = segment.found_by(table, removed, table.component_label_id)
    names = {"-1": "unknown", **{str(label_id): name for label_id, name in label_names.items()}}
    return {
        "size": segment.found_by(table, removed, table.component_size, SIZES),
        "row": segment.found_by(table, removed, lowest, rows) if len(lowest) else {},
        "label_id": {names.get(label, label): found for label, found in by_label.items()}
        if (table.component_label_id >= 0).any()
        else {},
    }


def plain(value: Any) -> Any:
    """Return `value` for JSON: NaN and infinities become None, NumPy numbers plain ones.

    Examples:
        >>> plain({"a": [float("nan"), np.float64(0.5)], "b": np.int64(3)})
        {'a': [None, 0.5], 'b': 3}
    """
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def curve_tables(counts: SetCounts, table: SegmentTable, probability: Floats) -> dict[str, Curve]:
    """Return the curves of the main score: file stem -> column -> values.

    Without OoD pixels there is no ROC and no precision-recall curve: no rows.
    """
    main = counts.histograms[counts.main]
    both = bool(main.positives and main.negatives)
    empty = (np.empty(0),) * 3
    fpr, tpr, roc_threshold = pixel.roc_curve(counts.curve) if both else empty
    recall, precision, pr_threshold = pixel.pr_curve(counts.curve) if both else empty
    confidence, accuracy, pixels = counts.reliability.curve()
    centres, negatives, positives = pixel.score_distribution(counts.curve)
    return {
        "roc": {"false_positive_rate": fpr, "true_positive_rate": tpr, "threshold": roc_threshold},
        "pr": {"recall": recall, "precision": precision, "threshold": pr_threshold},
        "histogram": {"score": centres, "in_distribution": negatives, "ood": positives},
        "trade_off": segment.trade_off(table, probability),
        "reliability": {"confidence": confidence, "accuracy": accuracy, "pixels": pixels},
    }


def write_curve(path: Path, curve: Curve) -> None:
    """Write a CSV file atomically: a header and one row per index, numbers in 10 digits."""
    rows = zip(*curve.values(), strict=True)
    files.write_csv(path, list(curve), ([f"{value:.10g}" for value in row] for row in rows))
