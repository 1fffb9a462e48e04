"""From counts and tables to the figures of metrics.json and the curves."""

from __future__ import annotations

import csv
import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from meta_ood.evaluation.counting import Counts
from meta_ood.metrics import component, pixel, segment, semantic
from meta_ood.metrics.catalogue import METRICS
from meta_ood.segments.table import SegmentTable

logger = logging.getLogger(__name__)

Flags = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

HEADLINES = ("auroc", "auprc", "fpr95")
SIZES = np.array([1, 100, 1000, 10_000, 100_000, 1_000_000_000], np.float64)
"""Edges of the size groups of components [px]."""


def read_removed(meta: Path, table: SegmentTable) -> tuple[Floats, Flags]:
    """Read ``probabilities.csv`` of the stage `meta`.

    Returns
    -------
    probability
        ``(S,)`` out-of-fold probability of being false.
    removed
        ``(S,) bool``.

    Raises
    ------
    FileNotFoundError
        If the stage has not run.
    ValueError
        If the file does not fit the table.
    """
    path = meta / "probabilities.csv"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: run `meta` first")
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    images = [table.image_ids[i] for i in table.image]
    if [row.get("image_id") for row in rows] != images:
        raise ValueError(f"{path}: {len(rows)} rows do not fit the table's {len(images)} segments")
    try:
        probability = np.array([float(row["probability"]) for row in rows], np.float64)
    except (KeyError, ValueError) as error:
        raise ValueError(f"{path}: expected a number in every `probability`: {error}") from None
    removed = np.array([row.get("removed") in ("1", "true", "True") for row in rows], bool)
    return probability, removed


def read_calibration(meta: Path) -> dict[str, Floats]:
    """Read the calibration of the out-of-fold probabilities from ``metrics.json`` of `meta`.

    Returns
    -------
    ``predicted`` (mean probability of being false), ``observed`` (fraction that is false) and
    ``segments`` (how many) of each bin that holds segments.

    Raises
    ------
    FileNotFoundError
        If the stage has not run.
    ValueError
        If the file does not hold a calibration.
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
        raise ValueError(
            f"{path}: no calibration with predicted, observed, count: {error!r}"
        ) from None
    return {"predicted": predicted, "observed": observed, "segments": segments}


def measure(
    counts: Counts,
    table: SegmentTable,
    removed: Flags,
    *,
    score: str,
    protocols: Sequence[str],
    label_names: Mapping[int, str] | None = None,
) -> dict[str, Any]:
    """Compute all figures of one network, variant and dataset.

    Parameters
    ----------
    counts
        Sum over all frames.
    table, removed
        Segments of the set and what meta classification removes, ``(S,) bool``.
    score
        The score whose figures are the headline.
    protocols
        Keys of :data:`meta_ood.metrics.pixel.PROTOCOLS`; ``exact`` is always there.
    label_names
        What the label ids of components are called.

    Returns
    -------
    Plain values for metrics.json; NaN where undefined.
    """
    main = counts.histograms[score]
    defined = bool(main.positives and main.negatives)
    if not defined:
        logger.warning("no OoD pixel or no other pixel: AUROC, AUPRC and FPR95 are not defined")
    results = {
        protocol: {
            name: asdict((pixel.pixel_metrics if defined else pixel.undefined)(histogram, protocol))
            for name, histogram in counts.histograms.items()
        }
        for protocol in dict.fromkeys(("exact", *protocols))
    }
    judged = segment.segment_errors(table, removed)
    errors, of_segments = asdict(judged), judged.summary()
    before = component.component_metrics(component.of_table(table))
    after = component.component_metrics(component.of_table(table, ~removed))
    confusion = sum(counts.confusion.values(), np.zeros((1, 1), np.int64))
    assert counts.reliability is not None
    return {
        **{name: results["exact"][score][name] for name in HEADLINES},
        "score": score,
        "frames": main.frames,
        "scenes": len(set(table.scenes)),
        "pixels": main.positives + main.negatives,
        "positives": main.positives,
        "ignored": main.ignored,
        "neutral": main.neutral,
        "segments": errors["segments"],
        "components": errors["components"],
        "true_segments_removed": errors["true_segments_removed"],
        **{f"segment_{k}": v for k, v in errors.items() if k.startswith("false")},
        "segments_removed": errors["removed"],
        "published_false_positives_after_meta": errors["published_false_positives_after_meta"],
        "segment_f1": of_segments["before"]["f1"],
        "segment_f1_after_meta": of_segments["after_meta"]["f1"],
        "segment": of_segments,
        "component_f1": before.f1,
        "component_f1_after_meta": after.f1,
        "component": {"before": asdict(before), "after_meta": asdict(after)},
        "miou": semantic.mean_iou(confusion),
        "class_iou": semantic.class_iou(confusion).tolist() if confusion.any() else None,
        "calibration_error": counts.reliability.error,
        "detection": detection(table, removed, label_names or {}),
        "scores": results["exact"],
        "protocols": results,
    }


def headlines(values: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics of :data:`METRICS` that are defined: what DVC shows and compares.

    Examples
    --------
    >>> headlines({"auroc": 0.5, "miou": None, "pixels": 7})
    {'auroc': 0.5}
    """
    return {name: values[name] for name in METRICS if values.get(name) is not None}


def detection(
    table: SegmentTable, removed: Flags, label_names: Mapping[int, str]
) -> dict[str, Any]:
    """Return how many components are found by size, by row of their lower edge, by label.

    Labels stand under their names where these are known, else under their ids; without any label
    id there is no group.
    """
    is_labelled = bool((table.component_label_id >= 0).any())
    names = {"-1": "unknown", **{str(label_id): name for label_id, name in label_names.items()}}
    groups = {
        "size": (table.component_size, SIZES),
        "row": (table.component_box[:, 2], None if not len(table.component_box) else _rows(table)),
        "label_id": (table.component_label_id, None),
    }
    found = {}
    for name, (values, edges) in groups.items():
        one = segment.detection_by(table, removed, values, edges)
        titles = one.group
        if name == "label_id":
            titles = tuple(names.get(group, group) for group in titles) if is_labelled else ()
        found[name] = {
            title: {
                "components": int(one.components[i]),
                "found": int(one.found[i]),
                "found_after_meta": int(one.found_after_meta[i]),
            }
            for i, title in enumerate(titles)
        }
    return found


def _rows(table: SegmentTable) -> Floats:
    """Return five equal groups of rows up to the lowest component."""
    return np.linspace(0, float(table.component_box[:, 2].max()) + 1, 6).round()


def plain(value: Any) -> Any:
    """Return `value` for JSON: NaN and infinities become None, NumPy numbers plain ones.

    Examples
    --------
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


def curve_tables(
    counts: Counts, table: SegmentTable, probability: Floats, score: str
) -> dict[str, dict[str, npt.NDArray[Any]]]:
    """Return the curves of the headline score: file stem -> column -> values.

    Without OoD pixels there is no ROC and no precision-recall curve: no rows.
    """
    histogram = counts.histograms[score]
    both = bool(histogram.positives and histogram.negatives)
    empty = (np.empty(0),) * 3
    fpr, tpr, roc_threshold = pixel.roc_curve(histogram) if both else empty
    recall, precision, pr_threshold = pixel.pr_curve(histogram) if both else empty
    trade = segment.trade_off(table, probability)
    assert counts.reliability is not None
    confidence, accuracy, pixels = counts.reliability.curve()
    edges, negatives, positives = pixel.score_distribution(histogram)
    return {
        "roc": {
            "false_positive_rate": fpr,
            "true_positive_rate": tpr,
            "threshold": roc_threshold,
        },
        "pr": {"recall": recall, "precision": precision, "threshold": pr_threshold},
        "histogram": {"score": edges, "in_distribution": negatives, "ood": positives},
        "trade_off": {
            "operating_point": trade.operating_point,
            "false_positives": trade.false_positives,
            "false_negatives": trade.false_negatives,
            "true_segments_removed": trade.true_segments_removed,
        },
        "reliability": {"confidence": confidence, "accuracy": accuracy, "pixels": pixels},
    }


def write_columns(path: Path, columns: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write a CSV file atomically: a header and one row per index, numbers in 10 digits."""
    temporary = path.with_name(f"{path.name}.tmp")
    with temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        for row in zip(*columns.values(), strict=True):
            writer.writerow([f"{value:.10g}" for value in row])
    temporary.replace(path)


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write plain values atomically."""
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text(json.dumps(values, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    temporary.replace(path)
