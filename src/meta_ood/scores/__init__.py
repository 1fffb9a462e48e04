"""Pixel scores of a prediction: higher means more likely out-of-distribution.

Scores of logits come from a few maps of a frame's softmax, :class:`meta_ood.scores.maps.PixelMaps`, which one pass over
the logits fills; the full-size ``(C, H, W)`` softmax is never built. What needs more than the logits is computed beside
them (``infer.scores``, :mod:`meta_ood.inference.stored_scores`) and stored: here such a score is its up-sampled map.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from meta_ood.data.predictions import FloatMap, Prediction
from meta_ood.data.registry import resolve
from meta_ood.scores.maps import MAPS, OF_LOGITS, PixelMaps, pixel_maps

__all__ = ["SCORES", "PixelMaps", "Score", "find_score", "pixel_maps", "score_maps"]


LOGITS = "logits"
CLASSES = "logits, statistics of the classes"
MASKS = "masks"
FEATURES = "features, statistics of them"
REPEATED = "repeated passes"
FITTED = (CLASSES, FEATURES)  # sources that need the stage `statistics`


@dataclass(frozen=True)
class Score:
    """A score map of a prediction, or of its pixel maps: ``(H, W) float32``."""

    needs: tuple[str, ...]  # names of the pixel maps that the formula uses, out of maps.MAPS
    formula: Callable[[PixelMaps], npt.NDArray[np.floating]]
    is_unit: bool = False  # whether its values lie in [0, 1]: then pictures span that range
    source: str = LOGITS  # what it is computed from; all but LOGITS are stored by `infer`
    about: str = ""  # formula and range, where the docstring of `formula` does not say them

    @property
    def text(self) -> str:
        """Formula, range and paper in one line."""
        return self.about or (self.formula.__doc__ or "").split("\n")[0]

    def __call__(self, of: PixelMaps | Prediction) -> FloatMap:
        """Return the score map of a prediction or of its pixel maps; ValueError if a map that it needs is absent."""
        return self.unrounded(of).astype(np.float32, copy=False)

    def unrounded(self, of: PixelMaps | Prediction) -> npt.NDArray[np.floating]:
        """Return the score map as the formula gives it: one that computes in float64 keeps it."""
        maps = pixel_maps(of, self.needs) if isinstance(of, Prediction) else of
        for name in self.needs:
            if not maps.of(name).size:
                cause = "needs logits, not a given softmax" if name in OF_LOGITS else "is absent"
                raise ValueError(f"the map {name} {cause}")
        about, hint = f"score of {', '.join(self.needs)}", "a map that `needs` does not name is empty"
        try:
            values = self.formula(maps)
        except ValueError as error:  # NumPy's, of shapes that do not fit
            raise ValueError(f"{about}: {error}; {hint}") from error
        shape = maps.of(self.needs[0]).shape
        if not isinstance(values, np.ndarray) or values.shape != shape or values.dtype.kind != "f":
            got = f"{values.shape} {values.dtype}" if isinstance(values, np.ndarray) else type(values).__name__
            raise ValueError(f"{about}: expected an array {shape} of floats, got {got}; {hint}")
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


def generalised_entropy(maps: PixelMaps) -> FloatMap:
    """Mean over the classes of (p (1 - p))^0.1, in [0, 0.871] (GEN, Liu et al. 2023)."""
    return maps.generalised


def _stored(name: str, maps: PixelMaps) -> FloatMap:
    return maps.stored[name]


# what -> name -> formula, range and paper; p softmax, l logits; f features, m_c their mean in class c; of a mask model
# m_c = e^l_c is the class mass; members are the passes of infer.repetition
_STORED: dict[str, dict[str, str]] = {
    CLASSES: {
        "kl_to_prior": "-sum_c p_c ln(p_c / prior_c), prior: share of class c in the training pixels; at most 0",
        "smoothed_standardised_max_logit": (
            "-(max l - mean_c) / deviation_c, those of training pixels predicted as class c; borders suppressed, "
            "smoothed; any sign (SML, Jung et al. 2021)"
        ),
    },
    FEATURES: {
        "mahalanobis": "min_c (f - m_c)' S^-1 (f - m_c), S within classes; at least 0 (Lee et al. 2018)",
        "relative_mahalanobis": "mahalanobis - the same to the mean of all pixels; any sign (Ren et al. 2021)",
        "knn": "distance of f / |f| to the nearest of a coreset, in [0, 2] (Sun et al. 2022, Roth et al. 2022)",
        "prototype_cosine": "-max_c cos(f, m_c), in [-1, 1]",
        "vim": "alpha |residual of f| - ln sum exp l, any sign (Wang et al. 2022)",
        "react": "energy after f is clipped at a quantile, any sign (Sun et al. 2021)",
        "ash": "energy after f is pruned and scaled (ASH-S), any sign (Djurisic et al. 2023)",
        "scale": "energy after f is scaled, any sign (Xu et al. 2024)",
    },
    MASKS: {
        "rba": "-sum_c tanh m_c, at most 0 (RbA, Nayal et al. 2023)",
        "no_object": "sum over the queries of P(no object | query) P(pixel in its mask), at least 0",
    },
    REPEATED: {
        "predictive_entropy": "entropy of the members' mean softmax over ln C, in [0, 1]",
        "expected_entropy": "mean of the members' entropies over ln C, in [0, 1]",
        "mutual_information": "predictive_entropy - expected_entropy, in [0, 1] (Houlsby et al. 2011, Gal et al. 2017)",
        "predictive_variance": "sum_c variance of p_c over the members, in [0, 1 - 1/C]",
    },
}

SCORES: dict[str, Score] = {
    "entropy": Score(("entropy",), entropy, is_unit=True),
    "max_softmax": Score(("first",), max_softmax, is_unit=True),
    "max_logit": Score(("max_logit",), max_logit),
    "energy": Score(("log_sum_exp",), energy),
    "margin": Score(("first", "second"), margin, is_unit=True),
    "generalised_entropy": Score(("generalised",), generalised_entropy, is_unit=True),
    **{
        name: Score((name,), partial(_stored, name), source=source, about=about)
        for source, names in _STORED.items()
        for name, about in names.items()
    },
}
"""Name -> score."""


def find_score(name: str) -> Score:
    """Return the score of this name: a key of :data:`SCORES`, or ``package.module:name`` of one of your own.

    Raises:
        ValueError: If it is unknown, or no :class:`Score` of known pixel maps.
    """
    score = resolve("score", SCORES, name)
    stored = [name for names in _STORED.values() for name in names]
    if not isinstance(score, Score) or not score.needs or not {*score.needs} <= {*MAPS, *stored}:
        known = ", ".join([*MAPS, *stored])
        got = f"one of {', '.join(score.needs) or 'none'}" if isinstance(score, Score) else type(score).__name__
        raise ValueError(f"score {name}: expected a meta_ood.scores.Score of maps out of {known}; got {got}")
    return score


def fitted_scores(names: Iterable[str]) -> list[str]:
    """Return which of these scores need the file that the stage `statistics` writes."""
    return [name for name in names if name in SCORES and SCORES[name].source in FITTED]


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
