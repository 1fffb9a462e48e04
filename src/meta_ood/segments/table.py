"""Table of predicted OoD segments and true components of a set of images, and their overlaps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class SegmentTable:
    """Segments (predicted, S) and components (true, T) of N images; all segment metrics are computed from it.

    A *segment* is an 8-connected component of {score >= threshold} outside void; a *component* is an 8-connected
    component of the OoD target. Both stand image by image, within an image in raster order of their first pixel. Rows
    count from the top, columns from the left, from 0. ValueError if lengths or indices do not fit together.
    """

    image_ids: tuple[str, ...]  # N names; images without segments and components are there too
    scenes: tuple[str, ...]  # N names, the unit of grouped cross validation
    image: IntArray  # (S,) index into `image_ids`, ascending
    features: FloatArray  # (S, F) finite; F = 37 + 2 C (75 for C = 19) and 10 for each score that was asked for
    feature_names: tuple[str, ...]  # F names, sorted as strings: D D_bd D_in ..., see docs/formats.md
    iou: FloatArray  # (S,) in [0, 1], adjusted IoU (docs/method.md, section 4); 0 = no OoD pixel: a false positive
    component_image: IntArray  # (T,) index into `image_ids`, ascending
    component_size: IntArray  # (T,) [px], at least 1
    # (K, 3): segment, component, common pixels (at least 1); each pair once, sorted by segment, then component. A
    # component that is in no row is missed (FN); a segment that is in no row is false (FP).
    overlaps: IntArray
    # (S, 4) and component_box (T, 4): first row, first column, end row, end column (half open); -1 = unknown
    segment_box: IntArray = field(default_factory=lambda: np.zeros((0, 4), np.int64))
    segment_score: FloatArray = field(default_factory=lambda: np.zeros(0))  # (S,) mean of the score over the segment
    component_box: IntArray = field(default_factory=lambda: np.zeros((0, 4), np.int64))
    # (T,) raw label id at the first pixel; -1 = unknown
    component_label_id: IntArray = field(default_factory=lambda: np.zeros(0, np.int64))
    score: str = ""  # what made the segments; "" and nan in tables made by hand
    threshold: float = float("nan")

    def __post_init__(self) -> None:
        """Fill what a hand-made table leaves out, then check that everything fits together."""
        for name in ("image_ids", "scenes", "feature_names"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        segments, components = len(self.image), len(self.component_image)
        for name, count, missing in (
            ("segment_box", segments, -1),
            ("segment_score", segments, np.nan),
            ("component_box", components, -1),
            ("component_label_id", components, -1),
        ):
            array = getattr(self, name)
            if count and not len(array):
                filled = np.full((count, *array.shape[1:]), missing, array.dtype)
                object.__setattr__(self, name, filled)
        # 1. every column has one row per segment, component, image or pair
        for name, shape in (
            ("scenes", (len(self.image_ids),)),
            ("features", (segments, len(self.feature_names))),
            ("iou", (segments,)),
            ("segment_box", (segments, 4)),
            ("segment_score", (segments,)),
            ("component_size", (components,)),
            ("component_box", (components, 4)),
            ("component_label_id", (components,)),
            ("overlaps", (len(self.overlaps), 3)),
        ):
            got = np.shape(getattr(self, name))
            if got != shape:
                raise ValueError(f"SegmentTable.{name} has shape {got}, expected {shape}")
        # 2. every index names a row that exists
        for name, index, end in (
            ("image", self.image, len(self.image_ids)),
            ("component_image", self.component_image, len(self.image_ids)),
            ("overlaps[:, 0]", self.overlaps[:, 0], segments),
            ("overlaps[:, 1]", self.overlaps[:, 1], components),
        ):
            if index.size and (index.min() < 0 or index.max() >= end):
                raise ValueError(f"SegmentTable.{name} must lie in [0, {end})")

    @property
    def segment_size(self) -> IntArray:
        """``(S,) int64`` [px]: the feature ``S``."""
        return self.feature("S").astype(np.int64)

    @property
    def excess(self) -> FloatArray:
        """``(S,)`` mean score above the threshold that made the segments, times the root of the pixels; at least 0.

        As a test of the mean: how far it is above the threshold, in standard errors, if all pixels vary alike.
        """
        # rounding to float32 can put a mean just below the threshold
        excess: FloatArray = np.maximum(self.segment_score - self.threshold, 0) * np.sqrt(self.segment_size)
        return excess

    @property
    def is_false(self) -> npt.NDArray[np.bool_]:
        """``(S,) bool``: no pixel of the segment is OoD."""
        return np.asarray(self.iou == 0, bool)

    @property
    def is_missed(self) -> npt.NDArray[np.bool_]:
        """``(T,) bool``: no pixel of the component lies in a segment."""
        missed = np.ones(len(self.component_image), bool)
        missed[self.overlaps[:, 1]] = False
        return missed

    def counts(self) -> dict[str, int]:
        """Return how many images, segments, false ones, components and missed ones there are."""
        return {
            "images": len(self.image_ids),
            "segments": len(self.image),
            "false": int(self.is_false.sum()),
            "components": len(self.component_image),
            "missed": int(self.is_missed.sum()),
        }

    def feature(self, name: str) -> FloatArray:
        """Return one column of `features`, ``(S,)``; an unknown name lists the known ones."""
        if name not in self.feature_names:
            raise ValueError(f"unknown feature {name!r}; known: {', '.join(self.feature_names)}")
        return self.features[:, self.feature_names.index(name)]

    def with_features(self, names: Sequence[str]) -> SegmentTable:
        """Return the table with these columns of `features` alone; an unknown name lists the known ones."""
        if tuple(names) == self.feature_names:
            return self
        columns = [self.feature(name) for name in names]
        return replace(self, features=np.stack(columns, axis=1), feature_names=tuple(names))

    def without_segments(self) -> SegmentTable:
        """Return a table of the same kind without images, segments and components."""
        kept = ("feature_names", "score", "threshold")
        empty: dict[str, Any] = {f.name: getattr(self, f.name)[:0] for f in fields(self) if f.name not in kept}
        return replace(self, **empty)

    @staticmethod
    def concatenate(tables: Sequence[SegmentTable]) -> SegmentTable:
        """Put the tables of disjoint sets of images one after another.

        ValueError if there is no table, or feature names, score or threshold differ.
        """
        if not tables:
            raise ValueError("no table to concatenate")
        # 1. tables of one kind
        for name in ("feature_names", "score", "threshold"):
            if len({str(getattr(table, name)) for table in tables}) > 1:  # as text, because nan != nan
                raise ValueError(f"tables differ in {name}: cannot concatenate them")
        # 2. rows one after another; feature names, score and threshold are common to all
        values: dict[str, Any] = {}
        for f in fields(SegmentTable):
            parts = [getattr(table, f.name) for table in tables]
            if isinstance(parts[0], np.ndarray):
                values[f.name] = np.concatenate(parts)
            else:
                values[f.name] = sum(parts, ()) if f.name in ("image_ids", "scenes") else parts[0]
        # 3. indices count within each table: shift them by what comes before it
        images = [len(t.image_ids) for t in tables]
        segments = [len(t.image) for t in tables]
        components = [len(t.component_image) for t in tables]
        pairs = [len(t.overlaps) for t in tables]
        values["image"] = values["image"] + _shifts(images, segments)
        values["component_image"] = values["component_image"] + _shifts(images, components)
        values["overlaps"] = values["overlaps"].copy()
        values["overlaps"][:, 0] += _shifts(segments, pairs)
        values["overlaps"][:, 1] += _shifts(components, pairs)
        return SegmentTable(**values)


def _shifts(counts: list[int], repeats: list[int]) -> IntArray:
    """Return the sum of all counts before each table, as often as its repeat."""
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64)
    return np.repeat(starts, repeats)
