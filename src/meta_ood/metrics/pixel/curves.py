"""From a histogram to curves and areas: exact where its cells are, bounded where they are not."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from meta_ood.metrics.pixel.histogram import ScoreHistogram
from meta_ood.metrics.pixel.keys import key_scores

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
TPR = 0.95


@dataclass(frozen=True)
class Sweep:
    """Counts at every threshold, from the highest cell down.

    Attributes
    ----------
    thresholds
        ``(n,) float64``: positive is ``score >= threshold``.
    tp, fp
        ``(n,) float64`` numbers of true and false positives.
    cell_tp, cell_fp
        ``(n,) float64`` what the cell itself adds.
    coarse
        ``(n,) bool``: the cell covers several scores.
    """

    thresholds: Floats
    tp: Floats
    fp: Floats
    cell_tp: Floats
    cell_fp: Floats
    coarse: npt.NDArray[np.bool_]


def sweep(histogram: ScoreHistogram) -> Sweep:
    """Return the counts at every threshold of a histogram."""
    keys, negatives, positives, coarse = histogram.counts()
    cell_tp, cell_fp = positives[::-1].astype(np.float64), negatives[::-1].astype(np.float64)
    return Sweep(
        key_scores(keys)[::-1].astype(np.float64),
        np.cumsum(cell_tp),
        np.cumsum(cell_fp),
        cell_tp,
        cell_fp,
        coarse[::-1],
    )


def auroc_of(s: Sweep) -> tuple[float, float]:
    """Return the area under the ROC curve, ties half, and its error bound."""
    above = s.fp - s.cell_fp
    pairs = s.tp[-1] * s.fp[-1]
    wrong = float(np.sum(s.cell_tp * (above + s.cell_fp / 2)))
    open_pairs = float(np.sum((s.cell_tp * s.cell_fp)[s.coarse]))
    return float(1 - wrong / pairs), float(open_pairs / 2 / pairs)


def auprc_of(s: Sweep) -> tuple[float, float]:
    """Return the average precision ``Σ (R_i - R_(i-1)) P_i`` and its error bound.

    In a cell that covers several scores the pixels are taken as evenly mixed: its j-th positive
    comes after the share (j - 1/2) / n of its negatives, and the sum over j is an integral.
    """
    total = s.tp[-1]
    sums = s.cell_tp * (s.tp / (s.tp + s.fp))
    error = 0.0
    some = np.flatnonzero(s.coarse & (s.cell_tp > 0))
    if some.size:
        n, m = s.cell_tp[some], s.cell_fp[some]
        tp, fp = s.tp[some] - n, s.fp[some] - m
        rate = 1 + m / n
        start = tp + fp - (rate - 1) / 2
        growth = np.log1p(rate * n / (start + rate / 2))
        mixed = n / rate + (tp - start / rate) / rate * growth
        best, worst = n * (tp + n) / (tp + n + fp), n * (tp + 1) / (tp + 1 + fp + m)
        sums[some] = np.clip(mixed, worst, best)
        error = float(np.sum(np.maximum(best - sums[some], sums[some] - worst)))
    return float(np.sum(sums) / total), float(error / total)


def fpr_at_tpr(s: Sweep, tpr: float = TPR) -> tuple[float, float, float]:
    """Return FPR and threshold at the first TPR >= `tpr`, and the FPR's error bound.

    In a cell that covers several scores the pixels are taken as evenly mixed.
    """
    rates = s.tp / s.tp[-1]
    i = int(np.searchsorted(rates, tpr, side="left"))
    total = s.fp[-1]
    if not s.coarse[i] or s.cell_fp[i] == 0:
        return float(s.fp[i] / total), float(s.thresholds[i]), 0.0
    before = s.tp[i] - s.cell_tp[i]
    share = min(1.0, max(0.0, (tpr * s.tp[-1] - before) / s.cell_tp[i]))
    value = s.fp[i] - s.cell_fp[i] * (1 - share)
    error = s.cell_fp[i] * max(share, 1 - share)
    return float(value / total), float(s.thresholds[i]), float(error / total)


def roc_curve(histogram: ScoreHistogram, points: int = 1000) -> tuple[Floats, Floats, Floats]:
    """Return ``(fpr, tpr, threshold)`` of the ROC curve, thinned to at most about `points` points.

    Thinned by arc length, so that steep and flat parts both keep their shape; first point (0, 0).
    """
    s = sweep(histogram)
    fpr, tpr = s.fp / s.fp[-1], s.tp / s.tp[-1]
    keep = _thin(fpr, tpr, points)
    return (
        np.concatenate([[0.0], fpr[keep]]),
        np.concatenate([[0.0], tpr[keep]]),
        np.concatenate([[np.inf], s.thresholds[keep]]),
    )


def pr_curve(histogram: ScoreHistogram, points: int = 1000) -> tuple[Floats, Floats, Floats]:
    """Return ``(recall, precision, threshold)``, thinned to at most about `points` points."""
    s = sweep(histogram)
    recall, precision = s.tp / s.tp[-1], s.tp / (s.tp + s.fp)
    keep = _thin(recall, precision, points)
    return recall[keep], precision[keep], s.thresholds[keep]


def _thin(x: Floats, y: Floats, points: int) -> npt.NDArray[np.int64]:
    """Return at most `points` indices, evenly spread along the curve, with both ends."""
    if x.size <= points:
        return np.arange(x.size)
    length = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))])
    marks = np.linspace(0, length[-1], points)
    return np.unique(np.append(np.searchsorted(length, marks[:-1]), x.size - 1))


@dataclass(frozen=True)
class AtThreshold:
    """Pixel figures at one threshold: positive is ``score >= threshold``."""

    threshold: float
    tpr: float
    fpr: float
    precision: float
    f1: float


def at_threshold(histogram: ScoreHistogram, threshold: float) -> AtThreshold:
    """Return TPR, FPR, precision and F1 at a given threshold (NaN where undefined)."""
    s = sweep(histogram)
    n = int(np.searchsorted(-s.thresholds, -float(np.float32(threshold)), side="right"))
    tp, fp = (s.tp[n - 1], s.fp[n - 1]) if n else (0.0, 0.0)
    return AtThreshold(
        threshold,
        _ratio(tp, histogram.positives),
        _ratio(fp, histogram.negatives),
        _ratio(tp, tp + fp),
        _ratio(2 * tp, histogram.positives + tp + fp),
    )


def best_f1(histogram: ScoreHistogram) -> AtThreshold:
    """Return the threshold of the best pixel F1 *on this very set*: an oracle."""
    s = sweep(histogram)
    f1 = 2 * s.tp / (s.tp[-1] + s.tp + s.fp)
    return at_threshold(histogram, float(s.thresholds[int(np.argmax(f1))]))


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else math.nan


def score_distribution(
    histogram: ScoreHistogram, bins: int = 100
) -> tuple[Floats, Integers, Integers]:
    """Return ``(centre, negatives, positives)`` over equal bins between the extreme scores.

    Infinite scores count in the outermost bins.
    """
    keys, negatives, positives, _ = histogram.counts()
    scores = key_scores(keys).astype(np.float64)
    finite = scores[np.isfinite(scores)]
    if not finite.size:
        return np.empty(0), np.empty(0, np.int64), np.empty(0, np.int64)
    low, high = float(finite[0]), float(finite[-1])
    width = (high - low) / bins or 1.0
    index = ((np.clip(scores, low, high) - low) / width).astype(np.int64)
    index = np.minimum(index, bins - 1)
    centres: Floats = low + width * (np.arange(bins, dtype=np.float64) + 0.5)
    below: Integers = np.zeros(bins, np.int64)
    above: Integers = np.zeros(bins, np.int64)
    np.add.at(below, index, negatives)
    np.add.at(above, index, positives)
    return centres, below, above


def just_below(threshold: float) -> float:
    """Return the next smaller ``float32``: ``score >= t`` is ``score > just_below(t)``.

    Examples
    --------
    >>> just_below(0.0) < 0
    True
    """
    return float(np.nextafter(np.float32(threshold), np.float32(-np.inf)))
