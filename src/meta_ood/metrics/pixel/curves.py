"""Curves, areas and thresholds of counted scores.

They are exact where each cell holds one score. In a coarse cell, which covers several scores, the pixels are taken as
evenly mixed, and the areas come with a bound of the error.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from meta_ood.metrics import Flags, Floats, Integers
from meta_ood.metrics.pixel.keys import Keys, key_scores

TPR = 0.95
"""True positive rate at which FPR95 is read."""
QUANTILES = 384
"""Edges per class and image in SegmentMeIfYouCan's curve (768 in all)."""


@dataclass(frozen=True)
class Sweep:
    """Numbers of pixels at every threshold, from the highest cell down.

    Attributes:
        thresholds: ``(n,) float64`` falling: positive is ``score >= threshold``.
        cell_tp, cell_fp: ``(n,) float64`` positives and negatives in the cell.
        coarse: ``(n,) bool``: the cell covers several scores.
    """

    thresholds: Floats
    cell_tp: Floats
    cell_fp: Floats
    coarse: Flags

    @cached_property
    def tp(self) -> Floats:
        """True positives at each threshold, ``(n,) float64``."""
        return np.cumsum(self.cell_tp)

    @cached_property
    def fp(self) -> Floats:
        """False positives at each threshold, ``(n,) float64``."""
        return np.cumsum(self.cell_fp)


def auroc_of(s: Sweep) -> tuple[float, float]:
    """Return the area under the ROC curve, ties half, and its error bound."""
    # pairs of a positive and a negative with the higher score; pairs within a cell count half
    above = s.fp - s.cell_fp
    pairs = s.tp[-1] * s.fp[-1]
    wrong = float(np.sum(s.cell_tp * (above + s.cell_fp / 2)))
    open_pairs = float(np.sum((s.cell_tp * s.cell_fp)[s.coarse]))
    return float(1 - wrong / pairs), float(open_pairs / 2 / pairs)


def auprc_of(s: Sweep) -> tuple[float, float]:
    """Return the average precision ``Σ (R_i - R_(i-1)) P_i`` and its error bound.

    In a coarse cell with n positives the j-th one comes after the share (j - 1/2) / n of the cell's negatives, and the
    sum over j is an integral.
    """
    total = s.tp[-1]
    sums = s.cell_tp * (s.tp / (s.tp + s.fp))
    error = 0.0
    some = np.flatnonzero(s.coarse & (s.cell_tp > 0))
    if some.size:
        # n positives and m negatives in the cell, tp and fp above it
        n, m = s.cell_tp[some], s.cell_fp[some]
        tp, fp = s.tp[some] - n, s.fp[some] - m
        rate = 1 + m / n
        start = tp + fp - (rate - 1) / 2
        growth = np.log1p(rate * n / (start + rate / 2))
        mixed = n / rate + (tp - start / rate) / rate * growth
        # bounds: all positives of the cell before its negatives, or all of them after
        best, worst = n * (tp + n) / (tp + n + fp), n * (tp + 1) / (tp + 1 + fp + m)
        sums[some] = np.clip(mixed, worst, best)
        error = float(np.sum(np.maximum(best - sums[some], sums[some] - worst)))
    return float(np.sum(sums) / total), float(error / total)


def fpr_at_tpr(s: Sweep, tpr: float = TPR) -> tuple[float, float]:
    """Return the FPR at the first TPR >= `tpr`, and its error bound."""
    i = int(np.searchsorted(s.tp / s.tp[-1], tpr, side="left"))
    total = s.fp[-1]
    if not s.coarse[i] or s.cell_fp[i] == 0:
        return float(s.fp[i] / total), 0.0
    # the share of the cell that reaches the wanted rate, and with it of its negatives
    before = s.tp[i] - s.cell_tp[i]
    share = min(1.0, max(0.0, (tpr * s.tp[-1] - before) / s.cell_tp[i]))
    value = s.fp[i] - s.cell_fp[i] * (1 - share)
    error = s.cell_fp[i] * max(share, 1 - share)
    return float(value / total), float(error / total)


def f1_at(s: Sweep, threshold: float, strict: bool = False) -> float:
    """Return the pixel F1 of ``score >= float32(threshold)``, or of ``score > threshold``."""
    value, side = (threshold, "left") if strict else (float(np.float32(threshold)), "right")
    n = int(np.searchsorted(-s.thresholds, -value, side=side))  # type: ignore[call-overload]
    return float(2 * s.tp[n - 1] / (s.tp[-1] + s.tp[n - 1] + s.fp[n - 1])) if n else 0.0


def best_f1_threshold(s: Sweep) -> float:
    """Return the threshold of the best pixel F1 *on this very set*, an oracle; `>=` is positive."""
    return float(s.thresholds[int(np.argmax(2 * s.tp / (s.tp[-1] + s.tp + s.fp)))])


def roc_curve(s: Sweep, points: int = 1000) -> tuple[Floats, Floats, Floats]:
    """Return ``(fpr, tpr, threshold)``, thinned to about `points` points; the first is (0, 0)."""
    fpr, tpr = s.fp / s.fp[-1], s.tp / s.tp[-1]
    keep = _thin(fpr, tpr, points)
    return (
        np.concatenate([[0.0], fpr[keep]]),
        np.concatenate([[0.0], tpr[keep]]),
        np.concatenate([[np.inf], s.thresholds[keep]]),
    )


def pr_curve(s: Sweep, points: int = 1000) -> tuple[Floats, Floats, Floats]:
    """Return ``(recall, precision, threshold)``, thinned to about `points` points."""
    recall, precision = s.tp / s.tp[-1], s.tp / (s.tp + s.fp)
    keep = _thin(recall, precision, points)
    return recall[keep], precision[keep], s.thresholds[keep]


def _thin(x: Floats, y: Floats, points: int) -> Integers:
    """Return at most `points` indices with both ends.

    They are even in arc length, so that steep and flat parts both keep their shape.
    """
    if x.size <= points:
        return np.arange(x.size)
    length = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))])
    marks = np.linspace(0, length[-1], points)
    return np.unique(np.append(np.searchsorted(length, marks[:-1]), x.size - 1))


def score_distribution(s: Sweep, bins: int = 100) -> tuple[Floats, Integers, Integers]:
    """Return ``(centre, negatives, positives)`` over equal bins between the extreme scores.

    Infinite scores count in the outermost bins.
    """
    finite = s.thresholds[np.isfinite(s.thresholds)]
    if not finite.size:
        return np.empty(0), np.empty(0, np.int64), np.empty(0, np.int64)
    low, high = float(finite[-1]), float(finite[0])
    width = (high - low) / bins or 1.0
    index = ((np.clip(s.thresholds, low, high) - low) / width).astype(np.int64)
    index = np.minimum(index, bins - 1)
    centres: Floats = low + width * (np.arange(bins, dtype=np.float64) + 0.5)
    below, above = (np.bincount(index, cell, bins).astype(np.int64) for cell in (s.cell_fp, s.cell_tp))
    return centres, below, above


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
