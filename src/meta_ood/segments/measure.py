"""From a prediction to the table of its OoD segments: the API over the compiled kernel.

Formulas: METHOD.md G1. The published measures divide by the number of boundary pixels, which is
zero for a segment that covers a whole image without void; here S_bd counts as 1 in the ratios then,
so that S_rel = S, and means over the empty boundary are 0 as they are over an empty inside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from meta_ood.data.labels import IGNORE, OOD, LabelMap
from meta_ood.data.predictions import FloatMap, Prediction
from meta_ood.data.registry import lookup
from meta_ood.scores import SCORES
from meta_ood.scores.maps import Workspace, as_planes, entropy_scale, grid, pixel_maps
from meta_ood.segments import _kernel
from meta_ood.segments.features import (
    SCORE,
    SIZE,
    SUMS,
    component_feature_names,
    component_features,
    feature_names,
    segment_features,
)
from meta_ood.segments.table import FloatArray, IntArray, SegmentTable

Mask = npt.NDArray[np.bool_]


def measure_segments(
    prediction: Prediction,
    score: str = "entropy",
    threshold: float = 0.7,
    workspace: Workspace | None = None,
    threads: int = 1,
) -> SegmentTable:
    """Measure the segments where `score` reaches `threshold`, and the true components.

    Parameters
    ----------
    prediction
        One frame.
    score
        Key of :data:`meta_ood.scores.SCORES`.
    threshold
        Segments are the 8-connected components of score >= float32(threshold) outside void.
    workspace
        Memory to use again from frame to frame.
    threads
        How many threads share the pass over the pixels, where the compiler had OpenMP.

    Returns
    -------
    The table of one image, see :class:`SegmentTable`.

    Raises
    ------
    ValueError
        Unknown score; NaN or infinity in the prediction (the frame is named).
    """
    return measure_thresholds(prediction, score, [threshold], workspace, threads)[0]


def measure_thresholds(
    prediction: Prediction,
    score: str,
    thresholds: Sequence[float],
    workspace: Workspace | None = None,
    threads: int = 1,
) -> list[SegmentTable]:
    """Measure one frame at several thresholds with one pass over its pixels.

    Parameters and errors are those of :func:`measure_segments`; one table a threshold.
    """
    workspace = workspace or Workspace()
    needs = lookup("score", SCORES, score).needs
    maps = pixel_maps(prediction, {*needs, "arg_max"}, workspace, threads)
    frame = _Frame(prediction, SCORES[score](maps), maps.arg_max, workspace)
    target = np.ascontiguousarray(prediction.target)
    valid = np.not_equal(target, IGNORE, out=frame.mask("valid"))
    components = frame.regions("component", np.equal(target, OOD, out=frame.mask("true")))
    tables = []
    for value in thresholds:
        predicted = np.greater_equal(frame.score, np.float32(value), out=frame.mask("predicted"))
        predicted &= valid
        table = _table(frame, predicted, components)
        tables.append(replace(table, score=score, threshold=float(value)))
    return tables


def label_map(mask: Mask) -> npt.NDArray[np.int32]:
    """Return the 8-connected components of a mask, numbered in raster order of their first pixel.

    Parameters
    ----------
    mask
        ``(H, W) bool``.

    Returns
    -------
    ``(H, W) int32``, from 1, and 0 outside the mask.

    Examples
    --------
    >>> label_map(np.array([[True, False, True], [False, True, False], [False, False, False]]))
    array([[1, 0, 1],
           [0, 1, 0],
           [0, 0, 0]], dtype=int32)
    """
    runs = _runs(np.ascontiguousarray(mask), "mask", Workspace())
    labels = np.zeros(mask.shape, np.int32)
    _kernel.paint_runs(runs.row_first, runs.start, runs.end, runs.label, labels)
    return labels


@dataclass(frozen=True)
class _Runs:
    """A mask as runs, the label of each run from 0, and the number of labels."""

    mask: Mask
    row_first: npt.NDArray[np.int32]
    start: npt.NDArray[np.int32]
    end: npt.NDArray[np.int32]
    label: npt.NDArray[np.int32]
    count: int

    @property
    def size(self) -> IntArray:
        """Pixels of each label."""
        return _sum_by(self.label, self.end - self.start, self.count)


@dataclass(frozen=True)
class _Regions:
    """Labelled runs with the sums over their pixels."""

    runs: _Runs
    sums: FloatArray
    probabilities: FloatArray
    box: IntArray
    neighbours: IntArray
    histogram: IntArray


def _runs(mask: Mask, name: str, workspace: Workspace) -> _Runs:
    height, width = mask.shape
    room = height * ((width + 1) // 2)
    row_first = np.empty(height + 1, np.int32)
    start, end, label = (
        workspace.array(f"{name} {part}", (room,), np.int32) for part in ("start", "end", "label")
    )
    used = _kernel.find_runs(mask.view(np.uint8), row_first, start, end)
    count = _kernel.label_runs(row_first, start, end, label)
    return _Runs(mask, row_first, start[:used], end[:used], label[:used], count)


@dataclass(frozen=True)
class _Frame:
    """What all thresholds of a frame have in common."""

    prediction: Prediction
    score: FloatMap
    arg_max: LabelMap
    workspace: Workspace

    def mask(self, name: str) -> Mask:
        """Return uninitialised memory for a mask."""
        return self.workspace.array(f"{name} mask", self.prediction.size, np.bool_)

    def regions(self, name: str, mask: Mask) -> _Regions:
        """Label `mask` and sum over its components."""
        runs = _runs(mask, name, self.workspace)
        classes = self.prediction.logits.shape[0]
        sums = np.zeros((runs.count, SUMS))
        probabilities = np.zeros((runs.count, classes))
        box = np.zeros((runs.count, 4), np.int32)
        is_segment = name == "segment"
        neighbours = np.zeros((runs.count if is_segment else 0, classes), np.int64)
        histogram = np.zeros((0 if is_segment else runs.count, classes), np.int64)
        _kernel.accumulate(
            mask.view(np.uint8),
            runs.row_first,
            runs.start,
            runs.end,
            runs.label,
            as_planes(self.prediction),
            *grid(self.prediction),
            self.prediction.is_softmax,
            entropy_scale(classes),
            self.score,
            self.arg_max,
            self.workspace.array("p", (classes, _kernel.points), np.float32),
            self.workspace.array("heat", (3, _kernel.points), np.float32),
            sums,
            probabilities,
            box,
            neighbours,
            histogram,
        )
        return _Regions(runs, sums, probabilities, box.astype(np.int64), neighbours, histogram)


def _table(frame: _Frame, predicted: Mask, components: _Regions) -> SegmentTable:
    segments, true = frame.regions("segment", predicted), components.runs.mask
    segment_count, component_count = segments.runs.count, components.runs.count
    component_size = components.sums[:, SIZE].astype(np.int64)
    overlaps = _overlaps(segments.runs, components.runs)
    missed = _runs(np.greater(true, predicted, out=frame.mask("rest")), "rest", frame.workspace)
    iou = _adjusted_iou(segments, missed, overlaps[:, [0, 2]])
    false = _runs(np.greater(predicted, true, out=frame.mask("rest")), "rest", frame.workspace)
    component_iou = _adjusted_iou(components, false, overlaps[:, [1, 2]])
    classes = frame.prediction.logits.shape[0]
    return SegmentTable(
        image_ids=(frame.prediction.image_id,),
        scenes=(frame.prediction.scene,),
        image=np.zeros(segment_count, np.int64),
        features=segment_features(segments.sums, segments.probabilities, segments.neighbours),
        feature_names=feature_names(classes),
        iou=iou,
        component_image=np.zeros(component_count, np.int64),
        component_size=component_size,
        overlaps=overlaps,
        segment_box=segments.box,
        segment_score=segments.sums[:, SCORE] / segments.sums[:, SIZE],
        component_box=components.box,
        component_iou=component_iou,
        component_recall=_sum_by(overlaps[:, 1], overlaps[:, 2], component_count) / component_size,
        component_label_id=_first_label_id(components.runs, frame.prediction.label_ids),
        component_features=component_features(
            components.sums, components.probabilities, components.histogram
        ),
        component_feature_names=component_feature_names(classes),
    )


def _meetings(a: _Runs, b: _Runs, reach: int) -> IntArray:
    """Return the ``(n, 3)`` label pairs and common pixels of runs that meet, each pair once."""
    runs = (a.row_first, a.start, a.end, a.label, b.row_first, b.start, b.end, b.label)
    room = _kernel.meetings(*runs, reach, np.empty((0, 3), np.int64))
    found = np.empty((room, 3), np.int64)
    _kernel.meetings(*runs, reach, found)
    keys, inverse = np.unique(found[:, 0] * max(b.count, 1) + found[:, 1], return_inverse=True)
    common = _sum_by(inverse, found[:, 2], len(keys))
    return np.stack([*np.divmod(keys, max(b.count, 1)), common], axis=1)


def _overlaps(segments: _Runs, components: _Runs) -> IntArray:
    return _meetings(segments, components, 0)


def _adjusted_iou(regions: _Regions, rest: _Runs, common: IntArray) -> FloatArray:
    """Return I / (size + the pieces of `rest` that touch the region), 0 where I = 0."""
    size = regions.sums[:, SIZE]
    intersection = _sum_by(common[:, 0], common[:, 1], len(size))
    touching = _meetings(regions.runs, rest, 1)
    reached = _sum_by(touching[:, 0], rest.size[touching[:, 1]], len(size))
    iou: FloatArray = np.where(intersection > 0, intersection / (size + reached), 0.0)
    return iou


def _sum_by(
    index: npt.NDArray[np.integer], values: npt.NDArray[np.integer], count: int
) -> IntArray:
    """Return the integer sums of `values` for each index; exact below 2^53."""
    return np.bincount(index, values, count).astype(np.int64)


def _first_label_id(runs: _Runs, label_ids: LabelMap | None) -> IntArray:
    if label_ids is None:
        return np.full(runs.count, -1, np.int64)
    first = np.unique(runs.label, return_index=True)[1]
    row = np.searchsorted(runs.row_first, first, side="right") - 1
    return label_ids[row, runs.start[first]].astype(np.int64)
