"""Curves of single images, for the protocols that treat images one by one."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from meta_ood.metrics import Floats, Integers
from meta_ood.metrics.pixel.keys import Keys, key_scores

QUANTILES = 384
"""Edges per class and image in SegmentMeIfYouCan's curve (768 in all)."""


@dataclass(frozen=True)
class ImageCurve:
    """Pixel metrics of one image, and its part of SegmentMeIfYouCan's curve.

    Attributes:
        image_id: Its name: curves are sorted by name, so that sums do not depend on the order of adding.
        positives, negatives: Evaluated pixels.
        auroc, auprc, fpr95: Exact; NaN without a positive or without a negative pixel.
        thresholds: ``(n,) float64`` falling: lower edges of the image's own bins. Empty where a score is infinite: then
            there are no quantiles.
        tp, fp: ``(n,) int64`` positives and negatives in each bin.
    """

    image_id: str
    positives: int
    negatives: int
    auroc: float
    auprc: float
    fpr95: float
    thresholds: Floats
    tp: Integers
    fp: Integers


def image_curve(image_id: str, negative: Keys, positive: Keys) -> ImageCurve:
    """Evaluate one image, given the sorted keys of its pixels (:func:`.keys.order_keys`)."""
    auroc = auprc = fpr95 = math.nan
    if positive.size and negative.size:
        # the curve changes in a way that counts only where there is a positive: one point for each
        # distinct positive score, from the highest down
        values, counts = np.unique(positive, return_counts=True)
        values, counts = values[::-1], counts[::-1].astype(np.float64)
        above = negative.size - np.searchsorted(negative, values, side="right")
        fp = negative.size - np.searchsorted(negative, values, side="left")
        tp = np.cumsum(counts)
        pairs = float(positive.size) * float(negative.size)
        auroc = float(1 - np.sum(counts * (above + fp) / 2) / pairs)
        auprc = float(np.sum(counts * (tp / (tp + fp))) / positive.size)
        fpr95 = float(fp[np.searchsorted(tp / positive.size, 0.95)] / negative.size)
    bins = _quantile_bins(key_scores(negative), key_scores(positive))
    return ImageCurve(image_id, positive.size, negative.size, auroc, auprc, fpr95, *bins)


def _quantile_bins(
    negative: npt.NDArray[np.float32], positive: npt.NDArray[np.float32]
) -> tuple[Floats, Integers, Integers]:
    """Count both classes between the quantiles of both, and a margin around the whole range."""
    parts = [part for part in (positive, negative) if part.size]
    ends = np.array([part[i] for part in parts for i in (0, -1)], np.float64)
    if not parts or not np.isfinite(ends).all():
        return np.empty(0), np.empty(0, np.int64), np.empty(0, np.int64)
    # edges: the quantiles of each class, and the range widened by 1 %, at least 0.01, as in the benchmark
    low, high = ends.min(), ends.max()
    margin = max((high - low) * 1e-2, 1e-2)
    edges = [np.array([low - margin, high + margin])]
    edges += [_quantiles(part, min(QUANTILES, part.size)) for part in parts]
    bins = np.unique(np.concatenate(edges))
    counts = []
    for part in (positive, negative):
        below = np.searchsorted(part, bins[:-1], side="left")
        counts.append(np.diff(np.append(below, part.size))[::-1].astype(np.int64))
    return bins[-2::-1].copy(), counts[0], counts[1]


def _quantiles(rising: npt.NDArray[np.float32], count: int) -> Floats:
    """Return `count` evenly spaced linear quantiles of sorted values, as NumPy rounds them."""
    place = np.linspace(0, 1, count) * (rising.size - 1)
    low = np.floor(place).astype(np.int64)
    share = place - low
    a = rising[low].astype(np.float64)
    b = rising[np.minimum(low + 1, rising.size - 1)].astype(np.float64)
    return np.asarray(np.where(share < 0.5, a + (b - a) * share, b - (b - a) * (1 - share)))
