"""What the stage `evaluate` computes: per-frame counts that add up, and the figures from them."""

from __future__ import annotations

import csv
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from meta_ood import figures
from meta_ood.labels import IGNORE, lookup
from meta_ood.metrics import component, pixel, segment, semantic
from meta_ood.metrics.pixel import ScoreHistogram
from meta_ood.predictions import Prediction
from meta_ood.scores import SCORES, pixel_maps
from meta_ood.segments.table import SegmentTable

logger = logging.getLogger(__name__)

Flags = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

HEADLINES = ("auroc", "auprc", "fpr95")
MAX_WIDTH = 1024
"""Pictures are thinned to at most so many columns [px]."""
UNIT = ("entropy", "max_softmax", "margin")
"""Scores whose pictures span [0, 1]; the others span their own range."""


@dataclass
class Counts:
    """Everything that is counted frame by frame; adds up in place, in any order to the same.

    Attributes
    ----------
    histograms
        Score name -> pixels.
    confusion
        ``(C, C) int64``.
    reliability
        How often the arg max is right at each confidence.
    """

    histograms: dict[str, ScoreHistogram]
    confusion: npt.NDArray[np.int64]
    reliability: semantic.Reliability

    def __iadd__(self, other: Counts) -> Counts:
        """Add the frames of `other`."""
        for name in self.histograms:
            self.histograms[name] += other.histograms[name]
        self.confusion = self.confusion + other.confusion
        self.reliability = self.reliability + other.reliability
        return self


def count_frame(prediction: Prediction, scores: Sequence[str]) -> Counts:
    """Count one frame.

    Parameters
    ----------
    prediction
        Logits and target.
    scores
        Keys of :data:`meta_ood.scores.SCORES`.

    Raises
    ------
    ValueError
        Unknown score; wrong target values; NaN. The frame is named.
    """
    functions = {name: lookup("score", SCORES, name) for name in scores}
    classes = prediction.logits.shape[0]
    maps = pixel_maps(prediction)
    target, name = prediction.target, prediction.image_id
    return Counts(
        {
            key: ScoreHistogram().add(function(maps), target, classes, name)
            for key, function in functions.items()
        },
        semantic.confusion_matrix(maps.arg_max, target, classes),
        semantic.reliability(maps.first, maps.arg_max, target, classes),
    )


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


def measure(
    counts: Counts,
    table: SegmentTable,
    removed: Flags,
    *,
    score: str,
    protocols: Sequence[str],
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

    Returns
    -------
    Plain values for metrics.json; NaN where undefined.
    """
    results = {
        protocol: {
            name: asdict(pixel.pixel_metrics(histogram, protocol))
            for name, histogram in counts.histograms.items()
        }
        for protocol in dict.fromkeys(("exact", *protocols))
    }
    main = counts.histograms[score]
    errors = asdict(segment.segment_errors(table, removed))
    segments, components = errors.pop("segments"), errors.pop("components")
    before = component.component_metrics(component.of_table(table))
    after = component.component_metrics(component.of_table(table, ~removed))
    return {
        **{name: results["exact"][score][name] for name in HEADLINES},
        "score": score,
        "frames": main.frames,
        "scenes": len(set(table.scenes)),
        "pixels": main.positives + main.negatives,
        "positives": main.positives,
        "ignored": main.ignored,
        "neutral": main.neutral,
        "segments": segments,
        "components": components,
        "true_segments_removed": errors["true_segments_removed"],
        **{f"segment_{k}": v for k, v in errors.items() if k.startswith("false")},
        "segments_removed": errors["removed"],
        "published_false_positives_after_meta": errors["published_false_positives_after_meta"],
        "component_f1": before.f1,
        "component_f1_after_meta": after.f1,
        "component": {"before": asdict(before), "after_meta": asdict(after)},
        "miou": semantic.mean_iou(counts.confusion),
        "calibration_error": counts.reliability.error,
        "scores": results["exact"],
        "protocols": results,
    }


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


def choose_pictures(table: SegmentTable, count: int) -> list[int]:
    """Choose frames for pictures: with OoD first, evenly spread, by the true components alone.

    The same frames are chosen for every network and variant.

    Returns
    -------
    Rising indices into ``table.image_ids``.
    """
    with_ood = set(table.component_image.tolist())
    chosen: list[int] = []
    for wanted in (True, False):
        pool = [i for i in range(len(table.image_ids)) if (i in with_ood) is wanted]
        n = min(count - len(chosen), len(pool))
        chosen += [pool[(2 * k + 1) * len(pool) // (2 * n)] for k in range(n)]
    return sorted(chosen)


def write_pictures(
    folder: Path,
    prediction: Prediction,
    image: Path,
    removed: Flags,
    score: str,
    threshold: float,
) -> None:
    """Write ``<image_id>_{image,target,score,classes,segments}.png``, at most 1024 columns wide.

    Parameters
    ----------
    folder
        Where to.
    prediction, image
        One frame and its image file; a missing image file leaves its picture out.
    removed
        ``(S,) bool`` of the frame's segments, in raster order of their first pixel.
    score, threshold
        What makes the segments.

    Raises
    ------
    ValueError
        If the frame has another number of segments.
    """
    maps = pixel_maps(prediction)
    score_map = SCORES[score](maps)
    target = prediction.target
    mask = (score_map >= np.float32(threshold)) & (target != IGNORE)
    labels, count = ndimage.label(mask, np.ones((3, 3), bool))
    if count != len(removed):
        raise ValueError(
            f"{prediction.image_id}: {count} segments, but the table has {len(removed)}"
        )
    step = -(-target.shape[1] // MAX_WIDTH)
    small = (slice(None, None, step),) * 2
    picture = None
    if image.is_file():
        with Image.open(image) as file:
            picture = np.asarray(file.convert("RGB"))[small]
    valid = score_map[target != IGNORE]
    low, high = (0.0, 1.0) if score in UNIT else (float(valid.min()), float(valid.max()))
    panels = {
        "target": figures.label_map(target[small]),
        "score": figures.score_map(score_map[small], low, high if high > low else low + 1),
        "classes": figures.label_map(maps.arg_max[small]),
        "segments": figures.segments_map(
            picture, labels[small].astype(np.int32), removed, target[small]
        ),
    }
    if picture is not None:
        panels["image"] = picture
    for kind, panel in panels.items():
        figures.write_png(folder / f"{prediction.image_id}_{kind}.png", panel)
