"""Features and targets of a table of segments: scaling, useless columns, names in words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from meta_ood.metrics import Flags, Floats
from meta_ood.segments import SegmentTable
from meta_ood.segments.features import OF_SCORE


def false_positives(table: SegmentTable) -> Flags:
    """Return ``(S,)``: which segments touch no true component."""
    false: Flags = np.asarray(table.iou) == 0
    return false


@dataclass(frozen=True)
class Scaling:
    """Column-wise standardisation, fitted on training segments alone."""

    mean: Floats  # (F,) mean of the finite values of a column, 0 without any
    scale: Floats  # (F,) standard deviation; 0 = a constant column, scaled to 0 whatever new data have there

    @classmethod
    def of(cls, features: Floats) -> Scaling:
        """Fit to the rows of `features` ``(S, F)``; values that are not finite are left out."""
        finite = np.isfinite(features)
        count = np.maximum(finite.sum(axis=0), 1)
        values = np.where(finite, features, 0.0)
        mean = values.sum(axis=0) / count
        scale = np.sqrt((np.where(finite, features - mean, 0.0) ** 2).sum(axis=0) / count)
        # a mean of equal float64 values is off by some 1e-16 of their size; a true feature varies more
        varies = scale > 1e-12 * np.abs(values).max(axis=0, initial=0.0)
        return cls(mean, np.where(varies, scale, 0.0))

    @classmethod
    def published(cls, features: Floats) -> Scaling:
        """Fit as the published code does: ``(x - mean) / (std + 1e-10)``, constants included."""
        fitted = cls.of(features)
        return cls(fitted.mean, fitted.scale + 1e-10)

    def __call__(self, features: Floats) -> Floats:
        """Return ``(S, F)`` scaled features; a value that is not finite becomes 0, the mean."""
        safe = np.where(self.scale > 0, self.scale, np.inf)
        scaled: Floats = np.where(np.isfinite(features), features - self.mean, 0.0) / safe
        return scaled


def degenerate_columns(features: Floats, names: Sequence[str]) -> dict[str, str]:
    """Return the columns of ``(S, F)`` that carry no information, or none beyond an earlier one: name -> reason.

    Such columns stay in use: a constant one is scaled to 0, and the L2 penalty shares the weight among equal ones.
    """
    found: dict[str, str] = {}
    scaling = Scaling.of(features)
    scaled = scaling(features)
    missing = (~np.isfinite(features)).sum(axis=0)
    correlation = np.abs(scaled.T @ scaled) / max(len(features), 1)
    for column, name in enumerate(names if len(features) else ()):
        same = np.flatnonzero(correlation[column, :column] > 1 - 1e-9)
        if scaling.scale[column] == 0:
            found[name] = "constant"
        elif missing[column]:
            found[name] = f"{missing[column]} of {len(features)} values not finite, taken as mean"
        elif len(same):
            found[name] = f"same as {names[same[0]]} up to scale and shift"
    return found


_WORDS = {
    "S": "size",
    "S_in": "number of inner pixels",
    "S_bd": "number of boundary pixels",
    "S_rel": "size relative to the boundary",
    "S_rel_in": "inner pixels relative to the boundary",
    "mean_x": "vertical position",
    "mean_y": "horizontal position",
}
_HEAT_MAPS = {"E": "entropy", "D": "probability margin", "V": "variation ratio"}
_PLACES = {"": "", "_in": " inside", "_bd": " on the boundary"}
_PLACES |= {"_rel": ", times relative size", "_rel_in": " inside, times relative size"}
_CLASSES = {"cprob": "mean probability of", "ndist": "share of neighbouring pixels that are"}


def describe_feature(name: str, class_names: Sequence[str] = ()) -> str:
    """Return the name of a feature (docs/method.md, section 4) in words, as "variance of the entropy inside".

    A class without a name is given by its number; an unknown feature name is returned as it is.
    """
    return _described(name, tuple(class_names))


@lru_cache(maxsize=10_000)  # a detector asks for each segment again
def _described(name: str, class_names: tuple[str, ...]) -> str:
    if found := re.fullmatch(r"(cprob|ndist)(\d+)", name):
        number = int(found[2])
        named = class_names[number] if number < len(class_names) else f"class {number}"
        return f"{_CLASSES[found[1]]} '{named}'"
    if found := re.fullmatch(r"([EDV])(_var)?((?:_in|_bd|_rel|_rel_in)?)", name):
        statistic = "variance of the" if found[2] else "mean"
        return f"{statistic} {_HEAT_MAPS[found[1]]}{_PLACES[found[3]]}"
    if found := OF_SCORE.fullmatch(name):
        return f"{'variance' if found[2] else 'mean'} of the score {found[1]}{_PLACES[found[3]]}"
    return _WORDS.get(name, name)
