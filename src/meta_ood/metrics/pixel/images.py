"""Curves of single images, for the protocols that treat images one by one."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from meta_ood.metrics.pixel.keys import Keys, key_scores

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

QUANTILES = 384
"""Edges per class and image in SegmentMeIfYouCan's curve (768 in all)."""


@dataclass(frozen=True)
class ImageCurve:
    """Pixel metrics of one image, and its share in the curve of SegmentMeIfYouCan.

    Attributes
    ----------
    image_id
        Its name: curves are put in the order of names, so that no sum depends on who came first.
    positives, negatives
        Evaluated pixels.
    auroc, auprc, fpr95
        Exact; NaN without a positive or without a negative pixel.
    thresholds
        ``(n,) float64`` falling: lower edges of the image's own bins.
    tp, fp
        ``(n,) int64`` positives and negatives in each bin.
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


def image_curve(image_id: str, negative: Keys, positive: Keys, tpr: float = 0.95) -> ImageCurve:
    """Evaluate one image.

    Parameters
    ----------
    image_id
        Its name.
    negative, positive
        Sorted keys of its pixels, see :func:`meta_ood.metrics.pixel.keys.order_keys`.
    tpr
        Where FPR95 is read: at the first threshold with at least this TPR.
    """
    auroc = auprc = fpr95 = math.nan
    if positive.size and negative.size:
        values, counts = np.unique(positive, return_counts=True)
        values, counts = values[::-1], counts[::-1].astype(np.float64)
        above = negative.size - np.searchsorted(negative, values, side="right")
        fp = negative.size - np.searchsorted(negative, values, side="left")
        tp = np.cumsum(counts)
        pairs = float(positive.size) * float(negative.size)
        auroc = float(1 - np.sum(counts * (above + fp) / 2) / pairs)
        auprc = float(np.sum(counts * (tp / (tp + fp))) / positive.size)
        first = int(np.searchsorted(tp / positive.size, tpr, side="left"))
        fpr95 = float(fp[first] / negative.size)
    thresholds, true, false = _quantile_bins(key_scores(negative), key_scores(positive))
    return ImageCurve(
        image_id, positive.size, negative.size, auroc, auprc, fpr95, thresholds, true, false
    )


def _quantile_bins(
    negative: npt.NDArray[np.float32], positive: npt.NDArray[np.float32]
) -> tuple[Floats, Integers, Integers]:
    """Count both classes between the quantiles of both, and a margin around the whole range."""
    parts = [part for part in (positive, negative) if part.size]
    if not parts:
        return np.empty(0), np.empty(0, np.int64), np.empty(0, np.int64)
    low, high = (float(f(p[i] for p in parts)) for f, i in ((min, 0), (max, -1)))
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
