"""Counts at thresholds of a score: segments and objects of frames, interior pixels of the known classes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
from scipy.ndimage import maximum_filter, minimum_filter

from meta_ood.data.labels import NEUTRAL, LabelMap
from meta_ood.data.predictions import FloatMap
from meta_ood.metrics import Flags, Floats, Integers
from meta_ood.segments import count_segments

FINE = 200  # thresholds of pixels: steps of 0.005 where the score lies in [0, 1]
STEP = 5  # every fifth of them is a threshold of segments: each costs a labelling of the frame
REACH = 2  # [px] no pixel of another label is as near as this to an interior pixel


def spread(low: float = 0.0, high: float = 1.0) -> Floats:
    """Return the thresholds, ``(FINE - 1,)``, evenly spaced inside ``[low, high]``, rising."""
    # divided last: 0.7 is the float nearest to 0.7, as segments.threshold is
    return np.asarray(low + (high - low) * np.arange(1, FINE) / FINE)


def coarse(thresholds: Floats) -> Floats:
    """Return those of :func:`spread` at which segments are counted."""
    return thresholds[STEP - 1 :: STEP]


def interior(target: LabelMap) -> Flags:
    """Return which pixels of a label map are 3 px or more from every pixel of another label, ``(H, W) bool``.

    That is: all pixels of the 5 x 5 window have the same label. For this distance, chessboard and Euclidean metrics
    agree. Void and OoD are labels too; the border of the image is none.
    """
    size = 2 * REACH + 1
    return np.asarray(maximum_filter(target, size) == minimum_filter(target, size))


def interior_counts(score: FloatMap, target: LabelMap, classes: int, thresholds: Floats) -> Integers:
    """Count interior pixels of each known class by score.

    Args:
        score: ``(H, W) float32``.
        target: ``(H, W) uint8``; train ids are counted, other values belong to no known class.
        classes: C.
        thresholds: ``(T,)`` rising.

    Returns:
        ``(C, T + 1) int64``: pixels whose score reaches exactly k thresholds, rounded to float32 as scores are.
    """
    counted = interior(target) & (target < min(classes, NEUTRAL))
    reached = np.searchsorted(thresholds.astype(np.float32), score[counted], side="right")
    cells = target[counted] * np.int64(thresholds.size + 1) + reached
    return np.bincount(cells, minlength=classes * (thresholds.size + 1)).reshape(classes, -1)


@dataclass(frozen=True)
class AtThresholds:
    """Counts at rising thresholds; those of several frames add up.

    Attributes:
        thresholds: ``(T,)`` of pixels; :func:`coarse` of them are those of segments, S.
        segments: ``(S, L, 3) int64``, see :func:`meta_ood.segments.count_segments`, for each of L least sizes.
        interior: ``(C, T + 1) int64``, see :func:`interior_counts`.
    """

    thresholds: Floats
    segments: Integers
    interior: Integers

    @classmethod
    def of(cls, score: FloatMap, target: LabelMap, classes: int, thresholds: Floats, least: Sequence[int]) -> Self:
        """Count one frame; `least` are least sizes of a segment [px]."""
        segments = count_segments(score, target, coarse(thresholds), least)
        return cls(thresholds, segments, interior_counts(score, target, classes, thresholds))

    def __add__(self, other: Self) -> Self:
        """Return the counts of both."""
        return type(self)(self.thresholds, self.segments + other.segments, self.interior + other.interior)

    def segment_columns(self, least: Sequence[int]) -> dict[str, npt.NDArray[np.float64]]:
        """Return one row for each threshold and least size: false segments, true segments, objects found."""
        thresholds = coarse(self.thresholds)
        rows = self.segments.reshape(-1, 3).astype(np.float64)
        keys = {"threshold": np.repeat(thresholds, len(least)), "least_size": np.tile(least, len(thresholds))}
        return keys | dict(zip(("false_segments", "true_segments", "objects_found"), rows.T, strict=True))

    def interior_columns(self, names: Sequence[str]) -> dict[str, npt.NDArray[np.float64]]:
        """Return for each class that has interior pixels how many reach each threshold; all reach the first, -inf."""
        above = self.interior[:, ::-1].cumsum(1)[:, ::-1].astype(np.float64)
        columns = {name: row for name, row in zip(names, above, strict=True) if row[0]}
        return {"threshold": np.append(-np.inf, self.thresholds), **columns}
