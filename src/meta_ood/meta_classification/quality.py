"""How good probabilities of being a false positive are: ranking, decisions, calibration."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from meta_ood.meta_classification.features import Flags, Floats, Integers


def auroc(probability: Floats, false: Flags) -> float:
    """Return the area under the ROC curve, ties counted half; NaN with one kind of segment only.

    Parameters
    ----------
    probability
        ``(S,)`` probability of being a false positive.
    false
        ``(S,) bool``, the positive class.

    Examples
    --------
    >>> auroc(np.array([0.1, 0.4, 0.4]), np.array([False, True, False]))
    0.75
    """
    positives, negatives = int(false.sum()), int((~false).sum())
    if positives == 0 or negatives == 0:
        return float("nan")
    _, inverse, counts = np.unique(probability, return_inverse=True, return_counts=True)
    rank = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    pairs = rank[false].sum() - positives * (positives + 1) / 2
    return float(pairs / (positives * negatives))


def auprc(probability: Floats, false: Flags) -> float:
    """Return average precision: the step-wise area under the precision-recall curve.

    NaN without a false positive.

    Examples
    --------
    >>> auprc(np.array([0.1, 0.4, 0.8]), np.array([True, False, True])).__round__(4)
    0.8333
    """
    if not false.any():
        return float("nan")
    order = np.argsort(-probability, kind="stable")
    hits, ranked = np.cumsum(false[order]), probability[order]
    last = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
    precision = hits[last] / (last + 1)
    recall_steps = np.diff(hits[last] / hits[-1], prepend=0.0)
    return float(precision @ recall_steps)


def accuracy(probability: Floats, false: Flags, operating_point: float = 0.5) -> float:
    """Return the fraction of right decisions; NaN without segments.

    Examples
    --------
    >>> accuracy(np.array([0.2, 0.9]), np.array([True, True]))
    0.5
    """
    if len(false) == 0:
        return float("nan")
    return float(((probability > operating_point) == false).mean())


def brier(probability: Floats, false: Flags) -> float:
    """Return the mean squared error of the probabilities, in [0, 1]; NaN without segments.

    Examples
    --------
    >>> brier(np.array([0.0, 1.0]), np.array([True, True]))
    0.5
    """
    if len(false) == 0:
        return float("nan")
    return float(((probability - false) ** 2).mean())


@dataclass(frozen=True)
class Calibration:
    """Said against seen: segments in bins of equal width of their probability.

    Attributes
    ----------
    count
        ``(bins,)`` segments in each bin.
    said
        ``(bins,)`` mean probability; NaN in an empty bin.
    seen
        ``(bins,)`` fraction that is false; NaN in an empty bin.
    """

    count: Integers
    said: Floats
    seen: Floats

    @property
    def error(self) -> float:
        """Expected calibration error: mean ``|said - seen|``, weighted by count, in [0, 1]."""
        if not self.count.sum():
            return float("nan")
        gap = np.abs(np.nan_to_num(self.said - self.seen))
        return float(gap @ self.count / self.count.sum())


def calibration(probability: Floats, false: Flags, bins: int = 10) -> Calibration:
    """Sort segments into `bins` by probability, the upper edge belonging to the bin above.

    Examples
    --------
    >>> calibration(np.array([0.1, 0.3, 0.9]), np.array([False, True, True]), bins=2).seen
    array([0.5, 1. ])
    """
    bin_of = np.minimum((probability * bins).astype(np.int64), bins - 1)
    count = np.bincount(bin_of, minlength=bins)
    filled = np.where(count, count, 1)
    empty = np.where(count, 0.0, np.nan)
    said = np.bincount(bin_of, probability, bins) / filled + empty
    seen = np.bincount(bin_of, false.astype(np.float64), bins) / filled + empty
    return Calibration(count.astype(np.int64), said, seen)


def point_that_loses_at_most(probability: Floats, false: Flags, max_lost: float) -> float:
    """Return the lowest operating point that removes at most a fraction of the true segments.

    Parameters
    ----------
    probability
        ``(S,)`` in [0, 1]; segments above the operating point are removed.
    false
        ``(S,) bool``.
    max_lost
        Fraction of the true segments, in [0, 1], that may be removed.

    Returns
    -------
    The operating point in [0, 1]; 0 without a true segment, where nothing can be lost.

    Examples
    --------
    >>> true = np.zeros(4, bool)
    >>> point_that_loses_at_most(np.array([0.1, 0.9, 0.3, 0.2]), true, 0.25)
    0.3
    """
    falling = np.sort(probability[~false])[::-1]
    allowed = int(np.floor(max_lost * len(falling) + 1e-9))
    return float(falling[allowed]) if allowed < len(falling) else 0.0
