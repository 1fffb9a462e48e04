"""What a meta classifier reads from a table of segments: features, targets, scaling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

_ROUNDING = 1e-12
"""A column whose standard deviation is below this share of its largest value is constant."""


class Segments(Protocol):
    """The columns of a ``SegmentTable`` that meta classification reads.

    Attributes
    ----------
    image_ids, scenes
        Name and scene of each of the N images.
    image
        ``(S,)`` integers in ``[0, N)``: the image of each segment.
    features
        ``(S, F) float64``.
    feature_names
        F names.
    iou
        ``(S,) float64`` adjusted IoU in [0, 1]; 0 = false positive.
    """

    @property
    def image_ids(self) -> Sequence[str]: ...  # noqa: D102
    @property
    def scenes(self) -> Sequence[str]: ...  # noqa: D102
    @property
    def image(self) -> npt.NDArray[np.integer]: ...  # noqa: D102
    @property
    def features(self) -> Floats: ...  # noqa: D102
    @property
    def feature_names(self) -> Sequence[str]: ...  # noqa: D102
    @property
    def iou(self) -> npt.NDArray[np.floating]: ...  # noqa: D102


@dataclass(frozen=True)
class SomeFeatures:
    """A table with some of its columns: what ablations leave in."""

    image_ids: Sequence[str]
    scenes: Sequence[str]
    image: npt.NDArray[np.integer]
    features: Floats
    feature_names: Sequence[str]
    iou: npt.NDArray[np.floating]

    @classmethod
    def of(cls, table: Segments, columns: Sequence[int]) -> SomeFeatures:
        """Keep the `columns` of a table."""
        return cls(
            table.image_ids,
            table.scenes,
            table.image,
            np.asarray(table.features)[:, list(columns)],
            tuple(table.feature_names[k] for k in columns),
            table.iou,
        )


def false_positives(table: Segments) -> Flags:
    """Return ``(S,)``: which segments touch no true component (METHOD.md G5, ``y = iou0``)."""
    false: Flags = np.asarray(table.iou) == 0
    return false


@dataclass(frozen=True)
class Scaling:
    """Column-wise standardisation, fitted on training segments alone.

    Attributes
    ----------
    mean
        ``(F,)`` mean of the finite values of a column; 0 for a column without any.
    scale
        ``(F,)`` population standard deviation; 0 marks a constant column, which is scaled to 0
        whatever it holds, so that it can say nothing.
    """

    mean: Floats
    scale: Floats

    @classmethod
    def of(cls, features: Floats) -> Scaling:
        """Fit to the rows of `features` ``(S, F)``; values that are not finite are left out.

        Examples
        --------
        >>> Scaling.of(np.array([[1.0, 5.0], [3.0, 5.0]])).scale
        array([1., 0.])
        """
        finite = np.isfinite(features)
        count = np.maximum(finite.sum(axis=0), 1)
        values = np.where(finite, features, 0.0)
        mean = values.sum(axis=0) / count
        deviation = np.where(finite, features - mean, 0.0)
        scale = np.sqrt((deviation**2).sum(axis=0) / count)
        largest = np.abs(values).max(axis=0, initial=0.0)
        return cls(mean, np.where(scale > _ROUNDING * largest, scale, 0.0))

    @classmethod
    def published(cls, features: Floats) -> Scaling:
        """Fit as METHOD.md G5 does: ``(x - mean) / (std + 1e-10)``, a constant column included."""
        count = max(len(features), 1)
        mean = features.sum(axis=0) / count
        return cls(mean, np.sqrt(((features - mean) ** 2).sum(axis=0) / count) + 1e-10)

    def __call__(self, features: Floats) -> Floats:
        """Return ``(S, F)`` scaled features; a value that is not finite becomes 0, the mean."""
        safe = np.where(self.scale > 0, self.scale, np.inf)
        scaled: Floats = (np.where(np.isfinite(features), features, self.mean) - self.mean) / safe
        return scaled


def degenerate_columns(features: Floats, names: Sequence[str]) -> dict[str, str]:
    """Say which columns carry nothing, or nothing new.

    Parameters
    ----------
    features
        ``(S, F)``.
    names
        F names.

    Returns
    -------
    Name -> what is wrong: values that are not finite, a constant, or the same (up to scale and
    shift) as an earlier column. Nothing is dropped for it: a constant column is scaled to 0, L2
    shares the weight among equal columns.

    Examples
    --------
    >>> degenerate_columns(np.array([[1.0, 2.0, 0.0], [3.0, 6.0, 0.0]]), ("a", "b", "c"))
    {'b': 'same as a up to scale and shift', 'c': 'constant'}
    """
    found: dict[str, str] = {}
    names = [str(name) for name in names]
    if not len(features):
        return found
    scaling = Scaling.of(features)
    scaled = scaling(features)
    missing = (~np.isfinite(features)).sum(axis=0)
    correlation = np.abs(scaled.T @ scaled) / max(len(features), 1)
    for column, name in enumerate(names):
        if scaling.scale[column] == 0:
            found[name] = "constant"
        elif missing[column]:
            found[name] = f"{missing[column]} of {len(features)} values not finite, taken as mean"
        else:
            same = np.flatnonzero(correlation[column, :column] > 1 - 1e-9)
            if len(same):
                found[name] = f"same as {names[same[0]]} up to scale and shift"
    return found
