"""From a prediction to the table of its OoD segments: the API over the compiled kernel.

Formulas: METHOD.md G1. The published measures divide by the number of boundary pixels, which is
zero for a segment that covers a whole image without void; here the ratio S / S_bd then counts as S.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from meta_ood.labels import IGNORE, OOD, lookup
from meta_ood.predictions import FloatMap, Prediction
from meta_ood.scores import SCORES, pixel_maps, upsampled_rows
from meta_ood.segments import _kernel
from meta_ood.segments.table import FloatArray, IntArray, SegmentTable

_EPSILON = np.float32(2.0**-23)
_HEATS = ("E", "D", "V")


def measure_segments(
    prediction: Prediction,
    score: str = "entropy",
    threshold: float = 0.7,
    label_ids: npt.NDArray[np.integer] | None = None,
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
    label_ids
        ``(H, W)`` raw label ids, for ``component_label_id``.

    Returns
    -------
    The table of one image, see :class:`SegmentTable`.

    Raises
    ------
    ValueError
        Unknown score; NaN or infinity in the prediction (the frame is named).
    """
    lookup("score", SCORES, score)
    maps = pixel_maps(prediction)
    score_map = SCORES[score](maps)
    target = np.ascontiguousarray(prediction.target)
    predicted = (score_map >= np.float32(threshold)) & (target != IGNORE)
    true = target == OOD
    segments, segment_count = _label(predicted)
    components, component_count = _label(true)

    classes = prediction.logits.shape[0]
    both = np.flatnonzero(predicted | true)
    probabilities, heats = _pixels(prediction, both, score_map)
    of_segments = _Sums(segments, segment_count, both, heats, probabilities)
    of_components = _Sums(components, component_count, both, heats[:, :0], probabilities)

    neighbours = np.zeros((segment_count, classes), np.int64)
    _kernel.neighbours(segments, both, maps.arg_max, neighbours)
    histogram = np.zeros((component_count, classes), np.int64)
    inside = np.flatnonzero(true)
    np.add.at(histogram, (components.flat[inside] - 1, maps.arg_max.flat[inside]), 1)

    overlaps = _overlaps(segments, components, both)
    iou = _adjusted_iou(segments, segment_count, true & ~predicted, both, overlaps[:, [0, 2]])
    component_iou = _adjusted_iou(
        components, component_count, predicted & ~true, both, overlaps[:, [1, 2]]
    )
    recall = np.bincount(overlaps[:, 1], overlaps[:, 2], component_count) / of_components.size
    features = _features(of_segments, neighbours)
    names = sorted(features)
    component_features = _component_features(of_components, histogram)
    first = np.unique(components.flat[inside], return_index=True)[1]
    return SegmentTable(
        image_ids=(prediction.image_id,),
        scenes=(prediction.scene,),
        image=np.zeros(segment_count, np.int64),
        features=np.stack([features[name] for name in names], axis=1),
        feature_names=tuple(names),
        iou=iou,
        component_image=np.zeros(component_count, np.int64),
        component_size=of_components.size.astype(np.int64),
        overlaps=overlaps,
        segment_box=of_segments.box.astype(np.int64),
        segment_score=of_segments.mean(len(_HEATS)),
        component_box=of_components.box.astype(np.int64),
        component_iou=component_iou,
        component_recall=recall,
        component_label_id=(
            np.full(component_count, -1, np.int64)
            if label_ids is None
            else np.asarray(label_ids).flat[inside[first]].astype(np.int64)
        ),
        component_features=np.stack(list(component_features.values()), axis=1),
        component_feature_names=tuple(component_features),
        score=score,
        threshold=float(threshold),
    )


def _label(mask: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.int32], int]:
    height, width = mask.shape
    labels = np.empty((height, width), np.int32)
    parent = np.empty(((height + 1) // 2) * ((width + 1) // 2) * 2 + 2, np.int32)
    return labels, _kernel.label(np.ascontiguousarray(mask).view(np.uint8), labels, parent)


def _pixels(
    prediction: Prediction, pixels: IntArray, score_map: FloatMap
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return the softmax ``(n, C)`` and E, D, V and the score ``(n, 4)`` at `pixels`."""
    classes, width = prediction.logits.shape[0], prediction.size[1]
    values = np.empty((len(pixels), classes), np.float32)
    rows, columns = np.divmod(pixels, width)
    for row in np.unique(rows):
        chosen = slice(*np.searchsorted(rows, [row, row + 1]))
        values[chosen] = upsampled_rows(prediction, slice(row, row + 1))[:, 0, columns[chosen]].T
    if not prediction.is_softmax:
        values = np.exp(values - values.max(1, keepdims=True, initial=-np.inf))
        values /= values.sum(1, keepdims=True)
    ordered = np.sort(values, axis=1)
    first = ordered[:, -1]
    second = ordered[:, -2] if classes > 1 else np.zeros_like(first)
    heat = -(values * np.log(values + _EPSILON)).sum(1) / max(np.log(classes), 1e-30)
    heats = np.stack([heat, 1 - first + second, 1 - first, score_map.flat[pixels]], axis=1)
    return values, heats.astype(np.float32)


class _Sums:
    """Sums over the pixels of each labelled region, and what follows from them at once."""

    def __init__(
        self,
        labels: npt.NDArray[np.int32],
        count: int,
        pixels: IntArray,
        maps: npt.NDArray[np.float32],
        probabilities: npt.NDArray[np.float32],
    ) -> None:
        self.maps = maps.shape[1]
        self.all = np.zeros((count, 3 + 2 * self.maps))
        self.inner = np.zeros_like(self.all)
        self.probabilities = np.zeros((count, probabilities.shape[1]))
        self.box = np.zeros((count, 4), np.int32)
        self.box[:, :2] = np.iinfo(np.int32).max
        _kernel.accumulate(
            labels,
            pixels,
            np.ascontiguousarray(maps),
            probabilities,
            self.all,
            self.inner,
            self.probabilities,
            self.box,
        )
        self.size, self.inner_size = self.all[:, 0], self.inner[:, 0]
        self.boundary_size = self.size - self.inner_size

    def mean(self, index: int) -> FloatArray:
        """Return the mean of map `index` over each region."""
        return self.all[:, 3 + index] / self.size


def _features(sums: _Sums, neighbours: IntArray) -> dict[str, FloatArray]:
    size, inner, boundary = sums.size, sums.inner_size, sums.boundary_size
    relative = size / np.maximum(boundary, 1)
    relative_inner = inner / np.maximum(boundary, 1)
    features = {
        "S": size,
        "S_in": inner,
        "S_bd": boundary,
        "S_rel": relative,
        "S_rel_in": relative_inner,
        "mean_x": sums.all[:, 1] / size,
        "mean_y": sums.all[:, 2] / size,
    }
    for index, heat in enumerate(_HEATS):
        for suffix, part, count in (
            ("", sums.all, size),
            ("_in", sums.inner, inner),
            ("_bd", sums.all - sums.inner, boundary),
        ):
            mean = part[:, 3 + index] / np.maximum(count, 1)
            square = part[:, 3 + sums.maps + index] / np.maximum(count, 1)
            features[f"{heat}{suffix}"] = mean
            features[f"{heat}_var{suffix}"] = square - mean * mean
        for name in (heat, f"{heat}_var"):
            features[f"{name}_rel"] = features[name] * relative
            features[f"{name}_rel_in"] = features[f"{name}_in"] * relative_inner
    pairs = np.maximum(neighbours.sum(1), 1)
    for c in range(neighbours.shape[1]):
        features[f"cprob{c}"] = sums.probabilities[:, c] / size
        features[f"ndist{c}"] = neighbours[:, c] / pairs
    return features


def _component_features(sums: _Sums, histogram: IntArray) -> dict[str, FloatArray]:
    features = {
        "mean_x": sums.all[:, 1] / sums.size,
        "mean_y": sums.all[:, 2] / sums.size,
        "S_in": sums.inner_size,
        "S_bd": sums.boundary_size,
    }
    for c in range(histogram.shape[1]):
        features[f"S_{c}"] = histogram[:, c].astype(np.float64)
        features[f"cprob{c}"] = sums.probabilities[:, c] / sums.size
    return features


def _overlaps(
    segments: npt.NDArray[np.int32], components: npt.NDArray[np.int32], pixels: IntArray
) -> IntArray:
    pairs = np.stack([segments.flat[pixels], components.flat[pixels]], axis=1).astype(np.int64)
    pairs = pairs[(pairs > 0).all(1)] - 1
    unique, counts = np.unique(pairs, axis=0, return_counts=True)
    return np.concatenate([unique, counts[:, None]], axis=1).astype(np.int64)


def _adjusted_iou(
    labels: npt.NDArray[np.int32],
    count: int,
    rest: npt.NDArray[np.bool_],
    pixels: IntArray,
    common: IntArray,
) -> FloatArray:
    """Return I / (size + what of `rest` is reachable from the region), 0 where I = 0."""
    intersection = np.bincount(common[:, 0], common[:, 1], count)
    size = np.bincount(labels.flat[pixels], minlength=count + 1)[1:]
    others, _ = _label(rest)
    other_size = np.bincount(others.ravel())
    pairs = np.empty((0, 2), np.int64)
    pairs = np.empty((_kernel.contacts(labels, pixels, others, pairs), 2), np.int64)
    _kernel.contacts(labels, pixels, others, pairs)
    unique = np.unique(pairs, axis=0)
    reached = np.bincount(unique[:, 0], other_size[unique[:, 1]], count + 1)[1:]
    iou: FloatArray = intersection / np.maximum(size + reached, 1) * (intersection > 0)
    return iou
