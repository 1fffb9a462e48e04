"""Scores as integers of the same order, and the checks of a score map and its target."""

import logging
from typing import Any

import numpy as np
import numpy.typing as npt

from meta_ood.data.labels import IN, NEUTRAL, OOD, LabelMap

logger = logging.getLogger(__name__)

Keys = npt.NDArray[np.uint32]

# shares of pixel pairs whose order float32 loses: 1e-6 is the accuracy that the metrics promise;
# 1e-3 of the pairs that AUROC counts would show in its printed digits
WARN, REFUSE = 1e-6, 1e-3


def order_keys(scores: npt.NDArray[np.float32]) -> Keys:
    """Return the ``uint32`` keys that sort like the ``float32`` scores (-0 and +0 are the same)."""
    bits = (scores + np.float32(0)).view(np.int32)  # -0 + 0 is +0
    # IEEE bits grow with the magnitude: set the sign bit of positives, invert negatives
    flip = bits >> 31
    flip |= np.int32(-(1 << 31))
    bits ^= flip
    return bits.view(np.uint32)


def key_scores(keys: Keys) -> npt.NDArray[np.float32]:
    """Return the ``float32`` scores of the keys: the inverse of :func:`order_keys`."""
    sign = np.uint32(1 << 31)
    bits = np.where(keys & sign, keys ^ sign, ~keys)
    return bits.astype(np.uint32).view(np.float32)


def checked_scores(score: npt.NDArray[Any], target: LabelMap, name: str = "the frame") -> npt.NDArray[np.float32]:
    """Return a score map as ``float32`` after checking that it fits the target.

    Raises:
        ValueError: On different shapes, a target that is not ``uint8``, scores that are not real, a finite score beyond
            the range of ``float32``, or scores whose order ``float32`` cannot hold. A loss of order that hardly matters
            is a warning in the log.
    """
    if score.shape != target.shape:
        raise ValueError(f"{name}: scores {score.shape} and target {target.shape} differ in shape")
    if target.dtype != np.uint8:
        raise ValueError(f"{name}: the target must be uint8, got {target.dtype}")
    if score.dtype.kind not in "fiub":
        raise ValueError(f"{name}: scores must be real numbers, got {score.dtype}")
    if np.can_cast(score.dtype, np.float32):  # float32 holds every value of the dtype
        return score.astype(np.float32, copy=False)
    with np.errstate(over="ignore", invalid="ignore"):
        narrow = score.astype(np.float32)
        is_exact = np.array_equal(narrow.astype(score.dtype), score, score.dtype.kind == "f")
    if bool((np.isinf(narrow) & np.isfinite(score)).any()):
        raise ValueError(f"{name}: a score is beyond the range of float32 (3.4e38): rescale them")
    if not is_exact:
        of_all, of_mixed = _lost_pairs(score, target)
        advice = (
            f"{name}: scores are counted as float32, where {100 * max(of_all, of_mixed):.3g} % of "
            f"the pairs of different {score.dtype} scores become equal; store a function of the "
            "same order that spreads them, such as the logit of a probability near 1"
        )
        if of_mixed > REFUSE:
            raise ValueError(advice)
        if max(of_all, of_mixed) > WARN:
            logger.warning("%s", advice)
    return narrow


def _lost_pairs(score: npt.NDArray[Any], target: LabelMap) -> tuple[float, float]:
    """Return the shares of pairs of pixels that have different scores, but equal ones in ``float32``.

    First of all pairs, then of those of an OoD and another pixel, which is twice the largest error of AUROC.
    """
    # pairs of equal scores, before and after rounding, are counted by multiplicities; OoD pixels come first
    positive = score[target == OOD]
    evaluated = np.concatenate([positive, score[(target < NEUTRAL) | (target == IN)]])
    equal = []
    for values in (evaluated, evaluated.astype(np.float32)):
        _, index, counts = np.unique(values, return_inverse=True, return_counts=True)
        ood = np.bincount(index[: positive.size], minlength=counts.size).astype(np.float64)
        equal.append(((counts.astype(np.float64) ** 2).sum(), (ood * (counts - ood)).sum()))
    pairs = [evaluated.size**2, positive.size * (evaluated.size - positive.size)]
    lost = np.subtract(equal[1], equal[0]) / np.maximum(pairs, 1)
    return float(lost[0]), float(lost[1])
