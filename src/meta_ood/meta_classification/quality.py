"""How good probabilities of being a false positive are: ranking, decisions, calibration."""

from __future__ import annotations

import numpy as np

from meta_ood.meta_classification.features import Flags, Floats


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
