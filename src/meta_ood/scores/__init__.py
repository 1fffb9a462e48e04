"""Pixel scores of a prediction: higher means more likely out-of-distribution.

All scores of a frame come from a few maps of its softmax, :class:`meta_ood.scores.maps.PixelMaps`, which one pass over
the logits fills; the full-size ``(C, H, W)`` softmax is never built.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from meta_ood.data.predictions import FloatMap, Prediction
from meta_ood.data.registry import resolve
from meta_ood.scores.maps import MAPS, OF_LOGITS, PixelMaps, pixel_maps

__all__ = ["SCORES", "PixelMaps", "Score", "find_score", "pixel_maps", "score_maps"]


@dataclass(frozen=True)
class Score:
    """A score map of a prediction, or of its pixel maps: ``(H, W) float32``."""

    needs: tuple[str, ...]  # names of the pixel maps that the formula uses, out of maps.MAPS
    formula: Callable[[PixelMaps], npt.NDArray[np.floating]]
    is_unit: bool = False  # whether its values lie in [0, 1]: then pictures span that range

    def __call__(self, of: PixelMaps | Prediction) -> FloatMap:
        """Return the score map of a prediction or of its pixel maps; ValueError if a map that it needs is absent."""
        return self.unrounded(of).astype(np.float32, copy=False)

    def unrounded(self, of: PixelMaps | Prediction) -> npt.NDArray[np.floating]:
        """Return the score map as the formula gives it: one that computes in float64 keeps it."""
        maps = pixel_maps(of, self.needs) if isinstance(of, Prediction) else of
        for name in self.needs:
            if not getattr(maps, name).size:
                cause = "needs logits, not a given softmax" if name in OF_LOGITS else "is absent"
                raise ValueError(f"the map {name} {cause}")
        values = self.formula(maps)
        shape = getattr(maps, self.needs[0]).shape
        if not isinstance(values, np.ndarray) or values.shape != shape or values.dtype.kind != "f":
            got = f"{values.shape} {values.dtype}" if isinstance(values, np.ndarray) else type(values).__name__
            raise ValueError(f"score {self.formula}: expected an array {shape} of floats, got {got}")
        return values


def entropy(maps: PixelMaps) -> FloatMap:
    """Softmax entropy over ln C, in [0, 1]; the score of the published method."""
    return maps.entropy


def max_softmax(maps: PixelMaps) -> FloatMap:
    """1 - p1, in [0, 1 - 1/C] (variation ratio; Hendrycks & Gimpel 2017)."""
    return np.float32(1) - maps.first


def margin(maps: PixelMaps) -> FloatMap:
    """1 - p1 + p2, in [0, 1]: 1 = a tie of the two largest probabilities."""
    return np.float32(1) - maps.first + maps.second


def max_logit(maps: PixelMaps) -> FloatMap:
    """Negated largest logit, any sign (Hendrycks et al. 2022)."""
    return np.negative(maps.max_logit)


def energy(maps: PixelMaps) -> FloatMap:
    """Negated ln sum exp of the logits, any sign (Liu et al. 2020, temperature one)."""
    return np.negative(maps.log_sum_exp)


SCORES: dict[str, Score] = {
    "entropy": Score(("entropy",), entropy, is_unit=True),
    "max_softmax": Score(("first",), max_softmax, is_unit=True),
    "max_logit": Score(("max_logit",), max_logit),
    "energy": Score(("log_sum_exp",), energy),
    "margin": Score(("first", "second"), margin, is_unit=True),
}
"""Name -> score."""


def find_score(name: str) -> Score:
    """Return the score of this name: a key of :data:`SCORES`, or ``package.module:name`` of one of your own.

    Raises:
        ValueError: If it is unknown, or no :class:`Score` of known pixel maps.
    """
    score = resolve("score", SCORES, name)
    if not isinstance(score, Score) or not score.needs or not {*score.needs} <= {*MAPS}:
        raise ValueError(f"score {name}: expected a meta_ood.scores.Score of maps out of {', '.join(MAPS)}")
    return score


def score_maps(prediction: Prediction, names: Iterable[str], threads: int = 1) -> dict[str, FloatMap]:
    """Compute several scores of one frame in one pass over its logits.

    Args:
        prediction: One frame.
        names: As in :func:`find_score`.
        threads: How many threads share the frame's rows, where the compiler had OpenMP.

    Returns:
        Name -> ``(H, W) float32``.

    Raises:
        ValueError: Unknown name; NaN or infinity (the frame is named); a score that needs logits, for a given softmax.
    """
    scores = {name: find_score(name) for name in names}
    # scores share maps: each is computed once
    needed = {need for score in scores.values() for need in score.needs}
    maps = pixel_maps(prediction, needed, threads=threads)
    return {name: score(maps) for name, score in scores.items()}
