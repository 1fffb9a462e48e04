"""Replicates of the headline metrics over resampled scenes."""

import logging
from collections.abc import Mapping, Sequence

import numpy as np

from meta_ood.evaluation.counting import SetCounts
from meta_ood.metrics import Flags, Floats, Integers, bootstrap, component, segment, semantic
from meta_ood.metrics.pixel import ThinCounts, resampled_metrics
from meta_ood.segments.table import SegmentTable

logger = logging.getLogger(__name__)

FEW = 10  # with fewer scenes than this, intervals are much too narrow: a warning says so


def replicates(
    counts: SetCounts, table: SegmentTable, removed: Flags, metrics: Mapping[str, object], *, count: int, seed: int
) -> dict[str, Floats]:
    """Return the metrics of resampled scenes.

    The arguments are those of :func:`meta_ood.evaluation.summary.measure`, the metrics that it returned, and number of
    replicates and seed of the draw.

    Returns:
        Metric name -> ``(count,)``; empty with fewer than two scenes or no replicate.
    """
    scenes = sorted(set(table.scenes))
    if len(scenes) < FEW:
        logger.warning("%d scenes: intervals over scenes mean little", len(scenes))
    if len(scenes) < 2 or not count:
        return {}
    weights = bootstrap.resample(len(scenes), count, seed)
    # 1. pixels
    result = pixel_replicates([counts.thin[scene] for scene in scenes], weights, metrics)
    # 2. segments and components, before and after meta classification
    place = np.array([scenes.index(scene) for scene in table.scenes])
    result |= _of_segments(table, np.zeros_like(removed), place, weights, "")
    result |= _of_segments(table, removed, place, weights, "_after_meta")
    # 3. frames with a false alarm, and objects found
    alarm, objects = segment.has_alarm(table, removed), np.bincount(place[table.component_image], minlength=len(scenes))
    frames, alarms = (weights @ np.bincount(place, of, len(scenes)) for of in (None, alarm))
    result["alarm_rate"] = alarms / frames
    drawn = weights @ objects
    found = drawn - result["segment_false_negatives_after_meta"]
    result["object_recall"] = np.where(drawn > 0, found / np.maximum(drawn, 1), np.nan)
    # 4. known classes
    confusion = np.stack([counts.confusion[scene] for scene in scenes])
    result["miou"] = np.array([semantic.mean_iou(np.tensordot(weight, confusion, 1)) for weight in weights])
    return result


def pixel_replicates(
    scenes: Sequence[ThinCounts], weights: Integers, metrics: Mapping[str, object]
) -> dict[str, Floats]:
    """Return what :func:`meta_ood.metrics.pixel.resampled_metrics` does; `metrics` are the exact ones of all scenes."""
    result = resampled_metrics(scenes, weights)
    whole = resampled_metrics(scenes, np.ones((1, len(scenes)), np.int64))
    # thin counts have a small error: that of the whole set is taken from the replicates
    for name, value in whole.items():
        exact = metrics[name]
        assert isinstance(exact, float)
        result[name] = np.clip(result[name] + (exact - value[0]), 0, 1)
    return result


def _of_segments(
    table: SegmentTable, removed: Flags, place: Integers, weights: Integers, suffix: str
) -> dict[str, Floats]:
    """Resample segment errors, and F1 of segments and components; scene of image i is ``place[i]``."""
    # all of them are functions of numbers per scene, which are summed with the weights
    scenes = weights.shape[1]
    of_segment, of_component = place[table.image][~removed], place[table.component_image]
    is_false = table.is_false[~removed]
    true, false, missed = (
        weights @ np.bincount(where, minlength=scenes)
        for where in (of_segment[~is_false], of_segment[is_false], of_component[segment.missed(table, ~removed)])
    )
    overlaps, taus = component.of_table(table, ~removed), np.array(component.TAUS)
    # (scenes, taus): components found and segments false at each overlap threshold
    found, wrong = (np.zeros((scenes, len(taus)), np.int64) for _ in range(2))
    np.add.at(found, of_component, overlaps.siou[:, None] >= taus)
    np.add.at(wrong, of_segment, overlaps.ppv[:, None] < taus)
    components = np.bincount(of_component, minlength=scenes)
    hits = weights @ found
    f1 = segment.segment_f1(hits, weights @ wrong, (weights @ components)[:, None] - hits)
    return {
        f"segment_false_positives{suffix}": false.astype(np.float64),
        f"segment_false_negatives{suffix}": missed.astype(np.float64),
        f"segment_f1{suffix}": segment.segment_f1(true, false, missed),
        f"component_f1{suffix}": f1.mean(axis=1),
    }
