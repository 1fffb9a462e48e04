"""Pixel scores of a prediction: how little the network knows, higher = more out-of-distribution.

All scores of a frame come from a few maps of its softmax, :class:`PixelMaps`, which one pass over
the logits fills; the full-size ``(C, H, W)`` softmax is never built.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from meta_ood.labels import lookup
from meta_ood.predictions import FloatMap, Prediction

if TYPE_CHECKING:
    from meta_ood.labels import LabelMap

_BLOCK = 16  # [rows] up-sampled at a time


@dataclass(frozen=True)
class PixelMaps:
    """What the scores need to know of a pixel's softmax p and logits l over C classes.

    Attributes
    ----------
    entropy
        ``(H, W) float32`` in [0, 1]: -sum p ln p / ln C, p normalised to sum one.
    first, second
        ``(H, W) float32``: the largest and the second largest probability, as given.
    max_logit, log_sum_exp
        ``(H, W) float32``: max l and ln sum exp l; None for a given softmax.
    arg_max
        ``(H, W) uint8``: class of the largest probability, the first one on ties.
    """

    entropy: FloatMap
    first: FloatMap
    second: FloatMap
    max_logit: FloatMap | None
    log_sum_exp: FloatMap | None
    arg_max: LabelMap


Score = Callable[[PixelMaps | Prediction], FloatMap]


def pixel_maps(prediction: Prediction) -> PixelMaps:
    """Reduce a prediction to :class:`PixelMaps`.

    Raises
    ------
    ValueError
        If a value is NaN or infinite; the frame is named.
    """
    classes = prediction.logits.shape[0]
    height, width = prediction.size
    check_finite(prediction)
    entropy, first, second, max_logit, log_sum_exp = (
        np.empty((height, width), np.float32) for _ in range(5)
    )
    arg_max = np.empty((height, width), np.uint8)
    for start in range(0, height, _BLOCK):
        rows = slice(start, min(start + _BLOCK, height))
        values = upsampled_rows(prediction, rows)  # (C, rows, W)
        arg_max[rows] = values.argmax(0)
        if classes > 1:
            two = np.partition(values, classes - 2, axis=0)[-2:]
        else:
            two = np.stack([np.zeros_like(values[0]), values[0]])
        if prediction.is_softmax:
            first[rows], second[rows] = two[1], two[0]
            normal = values / values.sum(0)
            logarithm = np.log(normal, out=np.zeros_like(normal), where=normal > 0)
            total = -(normal * logarithm).sum(0)
        else:
            shifted = values - two[1]
            exponential = np.exp(shifted)
            denominator = exponential.sum(0)
            total = np.log(denominator) - (exponential * shifted).sum(0) / denominator
            first[rows] = 1 / denominator
            second[rows] = np.exp(two[0] - two[1]) / denominator if classes > 1 else 0
            max_logit[rows] = two[1]
            log_sum_exp[rows] = two[1] + np.log(denominator)
        entropy[rows] = np.clip(total / max(np.log(classes), 1e-30), 0, 1)
    if prediction.is_softmax:
        return PixelMaps(entropy, first, second, None, None, arg_max)
    return PixelMaps(entropy, first, second, max_logit, log_sum_exp, arg_max)


def check_finite(prediction: Prediction) -> None:
    """Raise a ValueError that names the frame if a logit is NaN or infinite."""
    if not np.isfinite(prediction.logits).all():
        what = "softmax" if prediction.is_softmax else "logits"
        raise ValueError(f"{prediction.image_id}: the {what} hold NaN or infinity")


def _positions(
    small: int, large: int, align_corners: bool
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    index = np.arange(large, dtype=np.float64)
    if align_corners:
        position = index * ((small - 1) / (large - 1) if large > 1 else 0.0)
    else:
        position = np.maximum((index + 0.5) * (small / large) - 0.5, 0)
    low = np.minimum(position.astype(np.int64), small - 1)
    return low, np.minimum(low + 1, small - 1), (position - low).astype(np.float32)


def upsampled_rows(prediction: Prediction, rows: slice) -> npt.NDArray[np.float32]:
    """Return rows of the bilinearly up-sampled logits, ``(C, rows, W) float32``."""
    logits = np.asarray(prediction.logits, np.float32)
    height, width = prediction.size
    if logits.shape[1:] == (height, width):
        return logits[:, rows]
    low, high, weight = _positions(logits.shape[1], height, prediction.align_corners)
    left, right, share = _positions(logits.shape[2], width, prediction.align_corners)
    above, below = logits[:, low[rows]], logits[:, high[rows]]
    above = above[..., left] * (1 - share) + above[..., right] * share
    below = below[..., left] * (1 - share) + below[..., right] * share
    return above * (1 - weight[rows, None]) + below * weight[rows, None]


def _maps(of: PixelMaps | Prediction) -> PixelMaps:
    return of if isinstance(of, PixelMaps) else pixel_maps(of)


def entropy(of: PixelMaps | Prediction) -> FloatMap:
    """Softmax entropy over ln C, in [0, 1]; the score of the published method."""
    return _maps(of).entropy


def max_softmax(of: PixelMaps | Prediction) -> FloatMap:
    """1 - p1, in [0, 1 - 1/C] (variation ratio; Hendrycks & Gimpel 2017)."""
    return np.float32(1) - _maps(of).first


def margin(of: PixelMaps | Prediction) -> FloatMap:
    """1 - p1 + p2, in [0, 1]: 1 = a tie of the two largest probabilities."""
    maps = _maps(of)
    return np.float32(1) - maps.first + maps.second


def max_logit(of: PixelMaps | Prediction) -> FloatMap:
    """Negated largest logit, any sign (Hendrycks et al. 2022)."""
    return -_needs_logits(_maps(of).max_logit, "max_logit")


def energy(of: PixelMaps | Prediction) -> FloatMap:
    """Negated ln sum exp of the logits, any sign (Liu et al. 2020, temperature one)."""
    return -_needs_logits(_maps(of).log_sum_exp, "energy")


def _needs_logits(values: FloatMap | None, name: str) -> FloatMap:
    if values is None:
        raise ValueError(f"score {name} needs logits, but the prediction is a given softmax")
    return values


SCORES: dict[str, Score] = {
    "entropy": entropy,
    "max_softmax": max_softmax,
    "max_logit": max_logit,
    "energy": energy,
    "margin": margin,
}
"""Name -> score; each takes :class:`PixelMaps` or a prediction and gives ``(H, W) float32``."""


def score_maps(prediction: Prediction, names: Iterable[str]) -> dict[str, FloatMap]:
    """Compute several scores of one frame in one pass over its logits.

    Parameters
    ----------
    prediction
        One frame.
    names
        Keys of :data:`SCORES`.

    Returns
    -------
    Name -> ``(H, W) float32``, higher = more out-of-distribution.

    Raises
    ------
    ValueError
        Unknown name; NaN or infinity (the frame is named); a score that needs logits asked of a
        given softmax.

    Examples
    --------
    >>> uniform = Prediction("a", np.zeros((4, 1, 1), np.float32), (2, 2), True,
    ...                      np.zeros((2, 2), np.uint8))
    >>> score_maps(uniform, ["entropy", "max_softmax"])["max_softmax"].tolist()
    [[0.75, 0.75], [0.75, 0.75]]
    """
    scores = {name: lookup("score", SCORES, name) for name in names}
    maps = pixel_maps(prediction)
    return {name: score(maps) for name, score in scores.items()}
