"""Curves, areas and thresholds of counted scores; of single images and of resampled scenes, too.

They are exact where each cell holds one score. In a coarse cell, which covers several scores, the pixels are taken as
evenly mixed, and the areas come with a bound of the error.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import numpy.typing as npt

from meta_ood.data.labels import IN, NEUTRAL, OOD, LabelMap
from meta_ood.metrics import Flags, Floats, Integers
from meta_ood.metrics.pixel.keys import Keys, key_scores, order_keys

TPR = 0.95
"""True positive rate at which FPR95 is read."""
DROPPED = 13
"""Bits dropped from a key: 1024 cells an octave, a cell is 0.07 to 0.14 % of its score wide."""


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

    def finite_range(self) -> tuple[float, float]:
        """Return the lowest and the highest finite threshold; ``(0, 0)`` without one."""
        finite = self.thresholds[np.isfinite(self.thresholds)]
        return (float(finite[-1]), float(finite[0])) if finite.size else (0.0, 0.0)


def auroc_of(s: Sweep) -> tuple[float, float]:
    """Return the area under the ROC curve, ties half, and its error bound."""
    # pairs of a positive and a negative with the higher score; pairs within a cell count half
    pairs = s.tp[-1] * s.fp[-1]
    wrong = np.sum(s.cell_tp * (s.fp - s.cell_fp / 2))
    undecided = np.sum((s.cell_tp * s.cell_fp)[s.coarse])
    return float(1 - wrong / pairs), float(undecided / 2 / pairs)


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


def rates(s: Sweep) -> dict[str, tuple[float, float]]:
    """Return ``auroc``, ``auprc`` and ``fpr95``, each with its error bound."""
    return {"auroc": auroc_of(s), "auprc": auprc_of(s), "fpr95": fpr_at_tpr(s)}


def f1_at(s: Sweep, threshold: float, strict: bool = False) -> float:
    """Return the pixel F1 of ``score >= float32(threshold)``, or of ``score > threshold``."""
    value, side = (threshold, "left") if strict else (float(np.float32(threshold)), "right")
    n = int(np.searchsorted(-s.thresholds, -value, side=side))  # type: ignore[call-overload]
    return float(2 * s.tp[n - 1] / (s.tp[-1] + s.tp[n - 1] + s.fp[n - 1])) if n else 0.0


def best_f1_threshold(s: Sweep) -> float:
    """Return the threshold of the best pixel F1 chosen on this set itself, which is optimistic; `>=` is positive."""
    return float(s.thresholds[int(np.argmax(2 * s.tp / (s.tp[-1] + s.tp + s.fp)))])


def roc_curve(s: Sweep, points: int = 1000) -> tuple[Floats, Floats, Floats]:
    """Return ``(fpr, tpr, threshold)``, thinned to about `points` points; the first is (0, 0)."""
    fpr, tpr = s.fp / s.fp[-1], s.tp / s.tp[-1]
    keep = _thin(fpr, tpr, points)
    return np.append(0.0, fpr[keep]), np.append(0.0, tpr[keep]), np.append(np.inf, s.thresholds[keep])


def pr_curve(s: Sweep, points: int = 1000) -> tuple[Floats, Floats, Floats]:
    """Return ``(recall, precision, threshold)``, thinned to about `points` points."""
    recall, precision = s.tp / s.tp[-1], s.tp / (s.tp + s.fp)
    keep = _thin(recall, precision, points)
    return recall[keep], precision[keep], s.thresholds[keep]


def _thin(x: Floats, y: Floats, points: int) -> Integers:
    """Return at most `points` indices with both ends, even in arc length: steep and flat parts keep their shape."""
    if x.size <= points:
        return np.arange(x.size)
    length = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))])
    marks = np.linspace(0, length[-1], points)
    return np.unique(np.append(np.searchsorted(length, marks[:-1]), x.size - 1))


def score_distribution(s: Sweep, bins: int = 100) -> tuple[Floats, Integers, Integers]:
    """Return ``(centre, negatives, positives)`` in equal bins of the finite range; its ends hold infinite scores."""
    if not np.isfinite(s.thresholds).any():
        return np.empty(0), np.empty(0, np.int64), np.empty(0, np.int64)
    low, high = s.finite_range()
    width = (high - low) / bins or 1.0
    index = np.minimum((np.clip(s.thresholds, low, high) - low) / width, bins - 1).astype(np.int64)
    below, above = (np.bincount(index, cell, bins).astype(np.int64) for cell in (s.cell_fp, s.cell_tp))
    return np.asarray(low + width * (np.arange(bins) + 0.5), np.float64), below, above


@dataclass(frozen=True)
class ImageCurve:
    """Pixel metrics of one image, and its part of SegmentMeIfYouCan's curve.

    Attributes:
        image_id: Its name: curves are sorted by name, so that sums do not depend on the order of adding.
        values: Exact ``auroc``, ``auprc`` and ``fpr95``; empty without a positive or without a negative pixel.
        bins: Pixels in the image's own quantile bins; None with an infinite score: then there are no quantiles.
    """

    image_id: str
    values: dict[str, float]
    bins: Sweep | None


def image_curve(image_id: str, negative: Keys, positive: Keys) -> ImageCurve:
    """Evaluate one image, given the sorted keys of its pixels (:func:`.keys.order_keys`)."""
    values = {}
    if positive.size and negative.size:
        # one point for each distinct positive score, from the highest down: others change no value
        scores, counts = np.unique(positive, return_counts=True)
        scores, counts = scores[::-1], counts[::-1].astype(np.float64)
        above = negative.size - np.searchsorted(negative, scores, side="right")
        fp = negative.size - np.searchsorted(negative, scores, side="left")
        tp = np.cumsum(counts)
        values["auroc"] = float(1 - np.sum(counts * (above + fp) / 2) / (positive.size * negative.size))
        values["auprc"] = float(np.sum(counts * (tp / (tp + fp))) / positive.size)
        values["fpr95"] = float(fp[np.searchsorted(tp / positive.size, TPR)] / negative.size)
    return ImageCurve(image_id, values, _quantile_bins([key_scores(positive), key_scores(negative)]))


def _quantile_bins(both: list[npt.NDArray[np.float32]]) -> Sweep | None:
    """Return the sweep over bins between the quantiles of both classes, each at its lower edge, as in the benchmark."""
    parts = [part for part in both if part.size]
    if not parts:
        return Sweep(np.empty(0), np.empty(0), np.empty(0), np.empty(0, bool))
    ends = np.array([part[i] for part in parts for i in (0, -1)], np.float64)
    if not np.isfinite(ends).all():
        return None
    # edges: at most 384 quantiles of each class, and the range widened by 1 %, at least 0.01
    margin = max((ends.max() - ends.min()) * 1e-2, 1e-2)
    edges = [_quantiles(part, min(384, part.size)) for part in parts]
    bins = np.unique(np.concatenate([*edges, [ends.min() - margin, ends.max() + margin]]))[:-1]
    # pixels from each edge up to the next; the last edge lies above all pixels
    below = (np.append(np.searchsorted(part, bins), part.size) for part in both)
    tp, fp = (np.diff(counts)[::-1].astype(np.float64) for counts in below)
    return Sweep(bins[::-1].copy(), tp, fp, np.zeros(bins.size, bool))


def _quantiles(rising: npt.NDArray[np.float32], count: int) -> Floats:
    """Return `count` evenly spaced linear quantiles of sorted values, as NumPy rounds them (its own sorts again)."""
    place = np.linspace(0, 1, count) * (rising.size - 1)
    low = place.astype(np.int64)
    share = place - low
    a, b = (rising[np.minimum(i, rising.size - 1)].astype(np.float64) for i in (low, low + 1))
    return np.asarray(np.where(share < 0.5, a + (b - a) * share, b - (b - a) * (1 - share)))


@dataclass(frozen=True)
class ThinCounts:
    """Pixels per coarse cell of score, a few kB a scene: enough to resample scenes. Adds up in any order.

    Attributes:
        cells: ``(n,) int64`` rising: key without its last :data:`DROPPED` bits.
        counts: ``(2, n) int64``: negatives and positives.
    """

    cells: Integers
    counts: Integers

    @classmethod
    def of(cls, score: npt.NDArray[np.float32], target: LabelMap) -> Self:
        """Count one map: ``(H, W)`` scores without NaN where they are evaluated, and its target."""
        positive = target == OOD
        evaluated = positive | (target < NEUTRAL) | (target == IN)
        keys = (order_keys(score[evaluated]) >> np.uint32(DROPPED)).astype(np.int64)
        # one array from the lowest to the highest cell for each kind of pixel
        low = int(keys.min(initial=1 << 32))
        span = max(int(keys.max(initial=0)) - low + 1, 0)
        counts = np.bincount(keys - low + span * positive[evaluated], minlength=2 * span).reshape(2, span)
        cells = np.flatnonzero(counts.any(0))
        return cls(cells + low, counts[:, cells])

    def __add__(self, other: Self) -> Self:
        """Return the pixels of both."""
        cells = np.union1d(self.cells, other.cells)
        counts = np.zeros((2, cells.size), np.int64)
        for part in (self, other):
            counts[:, np.searchsorted(cells, part.cells)] += part.counts
        return type(self)(cells, counts)


def resampled_metrics(scenes: Sequence[ThinCounts], weights: Integers) -> dict[str, Floats]:
    """Return ``auroc``, ``auprc`` and ``fpr95``, ``(B,)`` each, of B weighted sums of S scenes.

    ``weights (B, S) int64`` say how often each scene counts. NaN without a positive or a negative pixel.
    """
    cells = np.unique(np.concatenate([scene.cells for scene in scenes]))
    table = np.zeros((2, len(scenes), cells.size), np.int64)
    for index, scene in enumerate(scenes):
        table[:, index, np.searchsorted(cells, scene.cells)] = scene.counts
    cells, table = cells[::-1], table[:, :, ::-1]  # a sweep goes from the highest score down
    thresholds = key_scores((cells << DROPPED).astype(np.uint32)).astype(np.float64)
    coarse = np.ones(cells.size, bool)
    result = np.full((3, len(weights)), math.nan)
    for index, weight in enumerate(weights):
        # sums of integers, which BLAS does not touch: equal on every machine
        fp, tp = ((weight @ part).astype(np.float64) for part in table)
        used = fp + tp > 0
        if fp.any() and tp.any():
            s = Sweep(thresholds[used], tp[used], fp[used], coarse[used])
            result[:, index] = [value for value, _ in rates(s).values()]
    return dict(zip(("auroc", "auprc", "fpr95"), result, strict=True))
