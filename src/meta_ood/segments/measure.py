"""OoD segments of a prediction and their table, over the compiled kernel in _kernel.pyx.

Formulas stand in docs/method.md, section 4. The published measures divide by the number of boundary pixels, which is
zero for a segment that covers a whole image without void; here S_bd then counts as 1 in the ratios (decision 0031).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from meta_ood.data.labels import IGNORE, OOD, LabelMap
from meta_ood.data.predictions import FloatMap, Prediction
from meta_ood.scores import PixelMaps, find_score, pixel_maps
from meta_ood.scores.maps import Ints, Workspace, as_planes, entropy_scale, grid
from meta_ood.segments import _kernel
from meta_ood.segments.features import SCORE, SIZE, SUMS, feature_names, segment_features
from meta_ood.segments.table import FloatArray, IntArray, SegmentTable

Mask = npt.NDArray[np.bool_]


def predicted_ood(score: FloatMap, threshold: float, target: LabelMap | None = None, out: Mask | None = None) -> Mask:
    """Return where a score map predicts OoD: ``score >= float32(threshold)`` outside void.

    Segments are the 8-connected components of this mask, see :func:`label_map`. The threshold is rounded to ``float32``
    like the scores, so that a score equal to 0.7 reaches the threshold 0.7.

    `score` is ``(H, W) float32``, `target` ``(H, W) uint8``, None if nothing is void; `out` is memory for the result.
    """
    mask = np.greater_equal(score, np.float32(threshold), out=out)
    if target is not None:
        mask &= target != IGNORE
    return mask


def measure_segments(
    prediction: Prediction,
    score: str = "entropy",
    threshold: float = 0.7,
    workspace: Workspace | None = None,
    threads: int = 1,
    maps: PixelMaps | None = None,
    features: Sequence[str] = (),
) -> SegmentTable:
    """Measure the segments where `score` reaches `threshold`, and the true components.

    Args:
        prediction: One frame.
        score, threshold: Name as in :func:`meta_ood.scores.find_score`, and its threshold, see :func:`predicted_ood`.
        workspace: Memory to use again from frame to frame.
        threads: How many threads share the pass over the pixels, where the compiler had OpenMP.
        maps: Pixel maps of this prediction, with ``arg_max`` and what the scores need; None computes them.
        features: Scores whose means and variances are features too, beside the published ones.

    Raises:
        ValueError: Unknown score; NaN or infinity in the prediction (the frame is named).
    """
    workspace = workspace or Workspace()
    formula, further = find_score(score), [find_score(name) for name in features]

    # 1. score and most probable class of each pixel, in one pass over the logits
    needed = {need for each in (formula, *further) for need in each.needs}
    maps = maps or pixel_maps(prediction, {*needed, "arg_max"}, workspace, threads)
    score_map = formula(maps)

    # 2. predicted segments and true components. Each mask needs a buffer name of its own: all of
    #    them are in use until the table is done
    def mask(name: str) -> Mask:
        return workspace.array(f"mask {name}", prediction.size, np.bool_)

    target = np.ascontiguousarray(prediction.target)
    predicted = predicted_ood(score_map, threshold, target, mask("predicted"))
    true = np.equal(target, OOD, out=mask("true"))
    segments = _runs(predicted, "predicted", workspace)
    components = _runs(true, "true", workspace)

    # 3. sums over the pixels of each segment, and its features
    sums, probabilities, neighbours = _sums(segments, predicted, prediction, score_map, maps, workspace)
    sums = np.hstack([sums, *(_map_sums(segments, predicted, each(maps)) for each in further)])

    # 4. overlaps, and the adjusted IoU: parts of true components that no segment covers count
    #    against every segment that they touch
    overlaps = _contacts(segments, components, reach=0)
    uncovered = _runs(np.greater(true, predicted, out=mask("uncovered")), "uncovered", workspace)
    return SegmentTable(
        image_ids=(prediction.image_id,),
        scenes=(prediction.scene,),
        image=np.zeros(segments.count, np.int64),
        features=segment_features(sums, probabilities, neighbours, features),
        feature_names=feature_names(prediction.logits.shape[0], features),
        iou=_adjusted_iou(segments, uncovered, overlaps),
        component_image=np.zeros(components.count, np.int64),
        component_size=components.size,
        overlaps=overlaps,
        segment_box=segments.box,
        segment_score=sums[:, SCORE] / sums[:, SIZE],
        component_box=components.box,
        component_label_id=_first_label_id(components, prediction.label_ids),
        score=score,
        threshold=float(threshold),
    )


def label_map(mask: Mask) -> Ints:
    """Return the 8-connected components of a mask ``(H, W) bool``.

    ``(H, W) int32``, numbered from 1 in raster order of their first pixel, and 0 outside the mask.
    """
    runs = _runs(np.ascontiguousarray(mask), "mask", Workspace())
    labels = np.zeros(mask.shape, np.int32)
    _kernel.paint_runs(*runs.arrays, labels)
    return labels


def segment_means(labels: Ints, values: FloatMap) -> FloatMap:
    """Return ``(S, F) float32``: means of a coarser map ``(F, h, w)`` over the pixels of each segment.

    A pixel of `labels` ``(H, W)``, 0 outside and k + 1 in segment k, has the values of the cell that it lies in, so
    that the smallest segment has some.
    """
    (height, width), (_, h, w) = labels.shape, values.shape
    # 1. how many pixels of each segment lie in which cell; sorted by segment
    rows, columns = np.nonzero(labels)
    cells = rows * h // height * w + columns * w // width
    pairs, pixels = np.unique((labels[rows, columns] - 1) * np.int64(h * w) + cells, return_counts=True)
    segment, cell = np.divmod(pairs, h * w)
    # 2. their weighted sums
    first = np.flatnonzero(np.diff(segment, prepend=-1))
    sums = np.add.reduceat(values.reshape(-1, h * w).T[cell] * pixels[:, None].astype(np.float64), first)
    means: FloatMap = (sums / np.add.reduceat(pixels, first)[:, None]).astype(np.float32)
    return means


def count_segments(score: FloatMap, target: LabelMap, thresholds: FloatArray, least: Sequence[int] = (0,)) -> IntArray:
    """Count segments and found objects of a frame at each of several thresholds.

    A segment that shares no pixel with a true component is false; a component that shares one with a segment is found.

    Args:
        score: ``(H, W) float32``.
        target: ``(H, W) uint8``.
        thresholds: ``(T,)`` of the score, rising, see :func:`predicted_ood`.
        least: Least sizes of a segment [px]; smaller ones do not exist.

    Returns:
        ``(T, len(least), 3) int64``: false segments, true segments, components found.
    """
    workspace = Workspace()
    components = _runs(target == OOD, "true", workspace)
    mask = np.empty(score.shape, np.bool_)
    counts = np.zeros((len(thresholds), len(least), 3), np.int64)
    for place, threshold in enumerate(thresholds):
        segments = _runs(predicted_ood(score, threshold, target, mask), "predicted", workspace)
        if not segments.count:  # nor at higher thresholds
            break
        segment, component, _ = _contacts(segments, components, reach=0).T
        is_true = np.zeros(segments.count, bool)
        is_true[segment] = True
        for column, size in enumerate(least):
            kept = segments.size >= size
            found = np.unique(component[kept[segment]])
            counts[place, column] = (kept & ~is_true).sum(), (kept & is_true).sum(), found.size
    return counts


@dataclass(frozen=True)
class _Runs:
    """A labelled mask as runs: maximal pieces ``[start, end)`` of rows inside the mask."""

    row_first: Ints  # (H + 1,): the runs of row y are row_first[y] .. row_first[y + 1] - 1
    start: Ints  # (R,) first column of each run
    end: Ints  # (R,) column after it
    label: Ints  # (R,) its 8-connected component, from 0
    count: int  # number of components

    @property
    def arrays(self) -> tuple[Ints, Ints, Ints, Ints]:
        """The arrays as the kernel takes them."""
        return self.row_first, self.start, self.end, self.label

    @property
    def size(self) -> IntArray:
        """``(count,)`` pixels of each component."""
        return _sum_by(self.label, self.end - self.start, self.count)

    @property
    def row(self) -> IntArray:
        """``(R,)`` row of each run."""
        return np.repeat(np.arange(len(self.row_first) - 1), np.diff(self.row_first))

    @property
    def box(self) -> IntArray:
        """``(count, 4)``: first row, first column, end row, end column of each component."""
        box = np.zeros((self.count, 4), np.int64)
        box[:, :2] = np.iinfo(np.int32).max
        for column, first, end in ((0, self.row, self.row + 1), (1, self.start, self.end)):
            np.minimum.at(box[:, column], self.label, first)
            np.maximum.at(box[:, column + 2], self.label, end)
        return box


def _runs(mask: Mask, name: str, workspace: Workspace) -> _Runs:
    """Find and label the runs of a mask, in memory that the next call with this name overwrites."""
    height, width = mask.shape
    room = height * ((width + 1) // 2)  # the most runs that fit, every second pixel one
    row_first = np.empty(height + 1, np.int32)
    start, end, label = (workspace.array(f"{part} {name}", (room,), np.int32) for part in ("start", "end", "label"))
    used = _kernel.find_runs(mask.view(np.uint8), row_first, start, end)
    count = _kernel.label_runs(row_first, start, end, label)
    return _Runs(row_first, start[:used], end[:used], label[:used], count)


def _sums(
    segments: _Runs, mask: Mask, prediction: Prediction, score: FloatMap, maps: PixelMaps, workspace: Workspace
) -> tuple[FloatArray, FloatArray, IntArray]:
    """Sum over the pixels of each segment.

    Returns ``(S, SUMS)`` sums as in features.py, ``(S, C)`` sums of the softmax, and ``(S, C)`` numbers of pairs of a
    pixel and an 8-neighbour outside, by the neighbour's class.
    """
    classes = prediction.logits.shape[0]
    sums = np.zeros((segments.count, SUMS))
    probabilities = np.zeros((segments.count, classes))
    neighbours = np.zeros((segments.count, classes), np.int64)
    _kernel.accumulate(
        mask.view(np.uint8),
        segments.row_first,
        segments.start,
        segments.end,
        segments.label,
        as_planes(prediction),
        *grid(prediction),
        prediction.is_softmax,
        entropy_scale(classes),
        score,
        maps.arg_max,
        workspace.array("p", (classes, _kernel.points), np.float32),
        workspace.array("heat", (3, _kernel.points), np.float32),
        sums,
        probabilities,
        neighbours,
    )
    return sums, probabilities, neighbours


def _map_sums(segments: _Runs, mask: Mask, values: FloatMap) -> FloatArray:
    """Return ``(S, 4)`` sums of a map ``(H, W)``, as the kernel's of a heat map: values, squares, those inside."""
    # 1. inner pixels; beyond the image there is no neighbour that could lie outside
    across = np.pad(mask, 1, constant_values=True)
    across = across[:, :-2] & across[:, 1:-1] & across[:, 2:]
    inner = (across[:-2] & across[1:-1] & across[2:])[mask]
    # 2. runs are in raster order, as are the pixels of the mask
    label = np.repeat(segments.label, segments.end - segments.start)
    own = values[mask].astype(np.float64)
    columns = (own, own * own, own * inner, own * own * inner)
    return np.stack([np.bincount(label, column, segments.count) for column in columns], axis=1)


def _contacts(a: _Runs, b: _Runs, reach: int) -> IntArray:
    """Return the components of `a` and `b` that share pixels (reach 0) or touch (reach 1).

    ``(K, 3) int64``: component of `a`, component of `b`, common pixels; each pair once, sorted.
    """
    # runs that meet, counted first to know how much memory they need; a pair may occur often
    room = _kernel.contacts(*a.arrays, *b.arrays, reach, np.empty((0, 3), np.int64))
    found = np.empty((room, 3), np.int64)
    _kernel.contacts(*a.arrays, *b.arrays, reach, found)
    keys, inverse = np.unique(found[:, 0] * max(b.count, 1) + found[:, 1], return_inverse=True)
    common = _sum_by(inverse, found[:, 2], len(keys))
    return np.stack([*np.divmod(keys, max(b.count, 1)), common], axis=1)


def _adjusted_iou(segments: _Runs, uncovered: _Runs, overlaps: IntArray) -> FloatArray:
    """Return I / (size + the uncovered true parts that touch the segment), 0 where I = 0."""
    intersection = _sum_by(overlaps[:, 0], overlaps[:, 2], segments.count)
    touching = _contacts(segments, uncovered, reach=1)
    reached = _sum_by(touching[:, 0], uncovered.size[touching[:, 1]], segments.count)
    iou: FloatArray = np.where(intersection > 0, intersection / (segments.size + reached), 0.0)
    return iou


def _sum_by(index: npt.NDArray[np.integer], values: npt.NDArray[np.integer], count: int) -> IntArray:
    """Return the integer sums of `values` for each index; exact below 2^53."""
    return np.bincount(index, values, count).astype(np.int64)


def _first_label_id(components: _Runs, label_ids: LabelMap | None) -> IntArray:
    """Return the label id at the first pixel of each component, -1 without label ids."""
    if label_ids is None:
        return np.full(components.count, -1, np.int64)
    first = np.unique(components.label, return_index=True)[1]
    return label_ids[components.row[first], components.start[first]].astype(np.int64)
