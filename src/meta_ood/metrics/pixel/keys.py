"""Scores as integers of the same order, and the checks where maps enter."""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from meta_ood.data.labels import NEUTRAL, LabelMap

Keys = npt.NDArray[np.uint32]


def order_keys(scores: npt.NDArray[np.float32]) -> Keys:
    """Return the ``uint32`` keys that sort like the ``float32`` scores (-0 and +0 are the same).

    Examples
    --------
    >>> keys = order_keys(np.array([-np.inf, -1, -0.0, 0.0, 1e-45, 2], np.float32))
    >>> bool((keys[1:] >= keys[:-1]).all()), bool(keys[2] == keys[3])
    (True, True)
    """
    bits = (scores + np.float32(0)).view(np.int32)
    flip = bits >> 31
    flip |= np.int32(-(1 << 31))
    bits ^= flip
    return bits.view(np.uint32)


def key_scores(keys: Keys) -> npt.NDArray[np.float32]:
    """Return the ``float32`` scores of the keys: the inverse of :func:`order_keys`.

    Examples
    --------
    >>> key_scores(order_keys(np.array([-2.5, 0, 3], np.float32)))
    array([-2.5,  0. ,  3. ], dtype=float32)
    """
    sign = np.uint32(1 << 31)
    bits = np.where(keys & sign, keys ^ sign, ~keys)
    return bits.astype(np.uint32).view(np.float32)


def as_float32(score: npt.NDArray[Any], name: str = "the frame") -> npt.NDArray[np.float32]:
    """Return the scores as ``float32``; finite values that do not fit are an error, not infinite.

    Raises
    ------
    ValueError
        If the dtype is not real, or a finite score is beyond the range of ``float32``.
    """
    if score.dtype == np.float32:
        return score
    if score.dtype.kind not in "fiub":
        raise ValueError(f"{name}: scores must be real numbers, got {score.dtype}")
    with np.errstate(over="ignore"):
        narrow = score.astype(np.float32)
    if bool((np.isinf(narrow) & np.isfinite(score)).any()):
        raise ValueError(f"{name}: a score is beyond the range of float32 (3.4e38): rescale them")
    return narrow


def check_maps(score: npt.NDArray[Any], target: LabelMap, name: str = "the frame") -> None:
    """Check that a score map and a target fit together.

    Raises
    ------
    ValueError
        On different shapes or a target that is not ``uint8``.
    """
    if score.shape != target.shape:
        raise ValueError(f"{name}: scores {score.shape} and target {target.shape} differ in shape")
    if target.dtype != np.uint8:
        raise ValueError(f"{name}: the target must be uint8, got {target.dtype}")


def raise_wrong_labels(target: LabelMap, classes: int, name: str) -> NoReturn:
    """Name the target's values that are neither train ids nor special.

    Raises
    ------
    ValueError
        Always.
    """
    wrong = sorted(set(np.unique(target).tolist()) & set(range(classes, NEUTRAL)))
    known = f"0..{classes - 1}, NEUTRAL 252, IN 253, OOD 254, IGNORE 255"
    raise ValueError(f"{name}: the target has the values {wrong}; known: {known}")
