"""The table of segments in slow, obvious code on sets, in double precision: the kernel's oracle."""

import math

import numpy as np
from scipy import ndimage

from meta_ood.data.labels import IGNORE, OOD

EPSILON = 2.0**-23
Pixel = tuple[int, int]


def upsampled(logits: np.ndarray, size: tuple[int, int], align_corners: bool) -> np.ndarray:
    """Bilinear up-sampling in double precision, one axis after the other."""
    for axis, large in ((1, size[0]), (2, size[1])):
        small = logits.shape[axis]
        if align_corners:
            at = np.arange(large) * ((small - 1) / (large - 1) if large > 1 else 0)
        else:
            at = np.clip((np.arange(large) + 0.5) * small / large - 0.5, 0, None)
        low = np.minimum(np.floor(at).astype(int), small - 1)
        high = np.minimum(low + 1, small - 1)
        share = (at - low).reshape((-1, 1) if axis == 1 else (1, -1))
        logits = logits.take(low, axis) * (1 - share) + logits.take(high, axis) * share
    return logits


def softmax(logits: np.ndarray) -> np.ndarray:
    exponential = np.exp(logits - logits.max(0))
    return exponential / exponential.sum(0)


def entropy(p: np.ndarray) -> np.ndarray:
    p = p / p.sum(0)
    return -(p * np.log(np.where(p > 0, p, 1))).sum(0) / math.log(len(p))


def regions(mask: np.ndarray) -> list[list[Pixel]]:
    """8-connected components in raster order of their first pixel, by scipy."""
    labels, count = ndimage.label(mask, np.ones((3, 3)))
    pixels = [[(int(y), int(x)) for y, x in np.argwhere(labels == k + 1)] for k in range(count)]
    return sorted(pixels)


def around(pixel: Pixel, shape: tuple[int, int]) -> list[Pixel]:
    y, x = pixel
    return [
        (j, i)
        for j in range(max(y - 1, 0), min(y + 2, shape[0]))
        for i in range(max(x - 1, 0), min(x + 2, shape[1]))
        if (j, i) != pixel
    ]


def adjusted_ious(parts: list[list[Pixel]], mask: np.ndarray, other: np.ndarray) -> list[float]:
    pieces = regions(other & ~mask)
    ious = []
    for region in parts:
        common = sum(other[p] for p in region)
        touched = {n for p in region for n in around(p, mask.shape)} if common else set()
        union = len(region) + sum(len(r) for r in pieces if touched & set(r))
        ious.append(common / union)
    return ious


Maps = dict[str, np.ndarray]


def segment_features(region: list[Pixel], mask: np.ndarray, p: np.ndarray, scores: Maps) -> dict[str, float]:
    classes = len(p)
    is_inner = {q: all(mask[n] for n in around(q, mask.shape)) for q in region}
    inner = [q for q in region if is_inner[q]]
    boundary = [q for q in region if not is_inner[q]]
    size, ins, bound = len(region), len(inner), max(len(boundary), 1)
    ordered = np.sort(p, axis=0)
    maps = {
        "E": -(p * np.log(p + EPSILON)).sum(0) / math.log(classes),
        "D": 1 - ordered[-1] + ordered[-2],
        "V": 1 - ordered[-1],
        **scores,
    }
    features = {
        "S": size,
        "S_in": ins,
        "S_bd": len(boundary),
        "S_rel": size / bound,
        "S_rel_in": ins / bound,
        "mean_x": np.mean([q[0] for q in region]),
        "mean_y": np.mean([q[1] for q in region]),
    }
    for name, heat in maps.items():
        for suffix, part in (("", region), ("_in", inner), ("_bd", boundary)):
            values = [heat[q] for q in part] or [0.0]
            features[f"{name}{suffix}"] = np.mean(values)
            features[f"{name}_var{suffix}"] = np.var(values)
        for kind in (name, f"{name}_var"):
            features[f"{kind}_rel"] = features[kind] * size / bound
            features[f"{kind}_rel_in"] = features[f"{kind}_in"] * ins / bound
    arg_max = p.argmax(0)
    outside = [int(arg_max[n]) for q in region for n in around(q, mask.shape) if not mask[n]]
    for c in range(classes):
        features[f"cprob{c}"] = np.mean([p[c][q] for q in region])
        features[f"ndist{c}"] = outside.count(c) / max(len(outside), 1)
    return features


def table(p: np.ndarray, above: np.ndarray, target: np.ndarray, scores: Maps | None = None) -> dict[str, list]:
    """Return what a SegmentTable of one image must hold; `above`: score >= threshold; `scores` are features too."""
    predicted, true = above & (target != IGNORE), target == OOD
    segments, components = regions(predicted), regions(true)
    return {
        "features": [segment_features(s, predicted, p, scores or {}) for s in segments],
        "iou": adjusted_ious(segments, predicted, true),
        "box": [_box(s) for s in segments],
        "component_size": [len(c) for c in components],
        "component_box": [_box(c) for c in components],
        "overlaps": [
            [i, j, len(set(s) & set(c))]
            for i, s in enumerate(segments)
            for j, c in enumerate(components)
            if set(s) & set(c)
        ],
    }


def _box(region: list[Pixel]) -> list[int]:
    rows, columns = [q[0] for q in region], [q[1] for q in region]
    return [min(rows), min(columns), max(rows) + 1, max(columns) + 1]
