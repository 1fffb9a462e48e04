"""Bootstrap over scenes: replicates of the headline figures, and their intervals."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from meta_ood.evaluation.counting import Counts
from meta_ood.metrics import bootstrap, component, segment, semantic
from meta_ood.metrics.pixel import resampled_figures
from meta_ood.segments.table import SegmentTable

logger = logging.getLogger(__name__)

Flags = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

FEW = 10
"""Below so many scenes an interval is too narrow to be believed: a warning says so."""


def replicates(
    counts: Counts,
    table: SegmentTable,
    removed: Flags,
    figures: Mapping[str, object],
    *,
    count: int,
    seed: int,
) -> dict[str, Floats]:
    """Evaluate resampled scenes.

    Parameters
    ----------
    counts, table, removed
        As for :func:`meta_ood.evaluation.measure`.
    figures
        What that returned: the thin counts' small error is taken out of the replicates by
        shifting them by (exact figure - thin figure) of the whole set.
    count, seed
        Number of replicates and the seed of the draw.

    Returns
    -------
    Metric name -> ``(count,)``; empty with fewer than two scenes or no replicate.
    """
    scenes = sorted(set(table.scenes))
    if len(scenes) < FEW:
        logger.warning("%d scenes: intervals over scenes mean little", len(scenes))
    if len(scenes) < 2 or not count:
        return {}
    weights = bootstrap.resample(len(scenes), count, seed)
    whole = np.ones((1, len(scenes)), np.int64)
    thin = [counts.thin[scene] for scene in scenes]
    result = resampled_figures(thin, weights)
    for name, value in resampled_figures(thin, whole).items():
        exact = figures[name]
        assert isinstance(exact, float)
        result[name] = np.clip(result[name] + (exact - value[0]), 0, 1)
    result |= _of_segments(table, removed, scenes, weights)
    confusion = np.stack([counts.confusion[scene] for scene in scenes])
    result["miou"] = np.array(
        [semantic.mean_iou(np.tensordot(weight, confusion, 1)) for weight in weights]
    )
    return result


def _of_segments(
    table: SegmentTable, removed: Flags, scenes: list[str], weights: Integers
) -> dict[str, Floats]:
    """Resample the counts of false and missed segments, and F1 of segments and components."""
    place = np.array([scenes.index(scene) for scene in table.scenes])
    of_segment, of_component = place[table.image], place[table.component_image]
    result: dict[str, Floats] = {}
    for suffix, gone in (("", np.zeros_like(removed)), ("_after_meta", removed)):
        true, false = (
            np.bincount(of_segment[kind & ~gone], minlength=len(scenes))
            for kind in (~table.is_false, table.is_false)
        )
        lost = np.bincount(of_component[segment.missed(table, ~gone)], minlength=len(scenes))
        result[f"segment_false_positives{suffix}"] = (weights @ false).astype(np.float64)
        result[f"segment_false_negatives{suffix}"] = (weights @ lost).astype(np.float64)
        result[f"segment_f1{suffix}"] = segment.segment_f1(
            *(weights @ n for n in (true, false, lost))
        )
        overlaps = component.of_table(table, ~gone)
        kept_scene = of_segment[~gone]
        result[f"component_f1{suffix}"] = np.array(
            [
                component.component_metrics(
                    component.Overlaps(
                        np.repeat(overlaps.siou, weight[of_component]),
                        np.repeat(overlaps.ppv, weight[kept_scene]),
                    )
                ).f1
                for weight in weights
            ]
        )
    return result


def intervals(values: Mapping[str, Floats]) -> dict[str, tuple[float, float]]:
    """Return the 95 % interval of each metric; NaN where it is not defined."""
    result = {}
    for name, column in values.items():
        known = bool(np.isfinite(column).any())
        result[name] = bootstrap.interval(column) if known else (math.nan, math.nan)
    return result
