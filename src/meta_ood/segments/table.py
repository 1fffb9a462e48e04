"""SegmentTable: predicted OoD segments of a set of images, the true components, their overlaps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


def _floats(*shape: int) -> FloatArray:
    return np.zeros(shape, np.float64)


def _integers(*shape: int) -> IntArray:
    return np.zeros(shape, np.int64)


@dataclass(frozen=True)
class SegmentTable:
    """Segments (predicted, S) and components (true, T) of N images; all metrics are algebra on it.

    A *segment* is an 8-connected component of {score >= threshold} outside void; a *component* is
    an 8-connected component of the OoD target. Both stand image by image, within an image in raster
    order of their first pixel. Rows count from the top, columns from the left, from 0.

    Attributes
    ----------
    image_ids
        N names, in the order of `image`; images without segments and components are there too.
    scenes
        N names, the unit of grouped cross validation.
    image
        ``(S,) int64`` index into `image_ids`, ascending.
    features
        ``(S, F) float64``, finite. F = 37 + 2 C (75 for C = 19).
    feature_names
        F published names, sorted as strings (METHOD.md G5): ``D D_bd D_in D_rel ... V_var_rel_in``,
        ``cprob0 ...``, ``mean_x mean_y`` (row and column), ``ndist0 ...``; see docs/formats.md.
    iou
        ``(S,) float64`` in [0, 1], adjusted IoU (METHOD.md G1); 0 = the segment holds no OoD
        pixel: a false positive ("iou0").
    component_image
        ``(T,) int64`` index into `image_ids`, ascending.
    component_size
        ``(T,) int64`` [px], at least 1.
    overlaps
        ``(K, 3) int64``: index of a segment (into the S), index of a component (into the T), common
        pixels (at least 1). Each pair once, sorted by segment, then component. A component that is
        in no row is missed (FN); a segment that is in no row is false (FP).
    segment_box, component_box
        ``(S, 4)``, ``(T, 4) int64``: first row, first column, end row, end column (half open);
        -1 = unknown.
    segment_score
        ``(S,) float64``: mean of the score that made the segments, over the segment.
    component_iou
        ``(T,) float64`` in [0, 1]: adjusted IoU with the roles exchanged.
    component_recall
        ``(T,) float64`` in [0, 1]: share of its pixels that lie in segments.
    component_label_id
        ``(T,) int64``: raw label id at its first pixel; -1 = unknown.
    component_features
        ``(T, G) float64``, G = 4 + 2 C; G = 0 in tables made by hand.
    component_feature_names
        G published names: ``mean_x mean_y S_in S_bd``, then ``S_c`` [px] (pixels whose largest
        softmax is c) and ``cprobc`` (mean probability of c) for each class.
    score, threshold
        What made the segments; "" and nan in tables made by hand.

    Raises
    ------
    ValueError
        If lengths or indices do not fit together.
    """

    image_ids: tuple[str, ...]
    scenes: tuple[str, ...]
    image: IntArray
    features: FloatArray
    feature_names: tuple[str, ...]
    iou: FloatArray
    component_image: IntArray
    component_size: IntArray
    overlaps: IntArray
    segment_box: IntArray = field(default_factory=lambda: _integers(0, 4))
    segment_score: FloatArray = field(default_factory=lambda: _floats(0))
    component_box: IntArray = field(default_factory=lambda: _integers(0, 4))
    component_iou: FloatArray = field(default_factory=lambda: _floats(0))
    component_recall: FloatArray = field(default_factory=lambda: _floats(0))
    component_label_id: IntArray = field(default_factory=lambda: _integers(0))
    component_features: FloatArray = field(default_factory=lambda: _floats(0, 0))
    component_feature_names: tuple[str, ...] = ()
    score: str = ""
    threshold: float = float("nan")

    def __post_init__(self) -> None:
        """Fill what a hand-made table leaves out, then check that everything fits together."""
        for name in ("image_ids", "scenes", "feature_names", "component_feature_names"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        segments, components = len(self.image), len(self.component_image)
        for name, count, missing in (
            ("segment_box", segments, -1),
            ("segment_score", segments, np.nan),
            ("component_box", components, -1),
            ("component_iou", components, np.nan),
            ("component_recall", components, np.nan),
            ("component_label_id", components, -1),
            ("component_features", components, np.nan),
        ):
            array = getattr(self, name)
            if count and not len(array):
                filled = np.full((count, *array.shape[1:]), missing, array.dtype)
                object.__setattr__(self, name, filled)
        self._check(segments, components)

    def _check(self, segments: int, components: int) -> None:
        for name, shape in (
            ("scenes", (len(self.image_ids),)),
            ("features", (segments, len(self.feature_names))),
            ("iou", (segments,)),
            ("segment_box", (segments, 4)),
            ("segment_score", (segments,)),
            ("component_size", (components,)),
            ("component_box", (components, 4)),
            ("component_iou", (components,)),
            ("component_recall", (components,)),
            ("component_label_id", (components,)),
            ("component_features", (components, len(self.component_feature_names))),
            ("overlaps", (len(self.overlaps), 3)),
        ):
            got = np.shape(getattr(self, name))
            if got != shape:
                raise ValueError(f"SegmentTable.{name} has shape {got}, expected {shape}")
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
    def is_false(self) -> npt.NDArray[np.bool_]:
        """``(S,) bool``: no pixel of the segment is OoD ("iou0" = 1)."""
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
        return _column(self.features, self.feature_names, name)

    def component_feature(self, name: str) -> FloatArray:
        """Return one column of `component_features`, ``(T,)``."""
        return _column(self.component_features, self.component_feature_names, name)

    @staticmethod
    def concatenate(tables: Sequence[SegmentTable]) -> SegmentTable:
        """Put the tables of disjoint sets of images one after another.

        Raises
        ------
        ValueError
            No table; feature names, score or threshold differ.
        """
        if not tables:
            raise ValueError("no table to concatenate")
        first = tables[0]
        for table in tables[1:]:
            for name in ("feature_names", "component_feature_names", "score"):
                if getattr(table, name) != getattr(first, name):
                    raise ValueError(f"tables differ in {name}: cannot concatenate them")
            if not np.array_equal(table.threshold, first.threshold, equal_nan=True):
                raise ValueError("tables differ in threshold: cannot concatenate them")
        values: dict[str, Any] = {}
        for f in fields(SegmentTable):
            parts = [getattr(table, f.name) for table in tables]
            if isinstance(parts[0], np.ndarray):
                values[f.name] = np.concatenate(parts)
            elif f.name in ("image_ids", "scenes"):
                values[f.name] = tuple(name for part in parts for name in part)
            else:
                values[f.name] = parts[0]
        for name, counts in (
            ("image", [len(t.image_ids) for t in tables]),
            ("component_image", [len(t.image_ids) for t in tables]),
        ):
            values[name] = values[name] + _shifts(counts, [len(getattr(t, name)) for t in tables])
        rows = [len(t.overlaps) for t in tables]
        shift = np.stack(
            [
                _shifts([len(t.image) for t in tables], rows),
                _shifts([len(t.component_image) for t in tables], rows),
                np.zeros(sum(rows), np.int64),
            ],
            axis=1,
        )
        values["overlaps"] = values["overlaps"] + shift
        return SegmentTable(**values)

    def to_pandas(self) -> Any:
        """Return the segments as a ``pandas.DataFrame`` for people: one row a segment.

        Columns: image_id, scene, iou, score_mean, first_row, first_column, end_row, end_column,
        then the features. Needs pandas, which the package itself does not.
        """
        import pandas

        frame = pandas.DataFrame(self.features, columns=list(self.feature_names))
        leading = {
            "image_id": np.asarray(self.image_ids, object)[self.image],
            "scene": np.asarray(self.scenes, object)[self.image],
            "iou": self.iou,
            "score_mean": self.segment_score,
        }
        corners = ("first_row", "first_column", "end_row", "end_column")
        leading |= {name: self.segment_box[:, i] for i, name in enumerate(corners)}
        for position, (name, values) in enumerate(leading.items()):
            frame.insert(position, name, values)
        return frame


def _shifts(counts: list[int], repeats: list[int]) -> IntArray:
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64)
    return np.repeat(starts, repeats)


def _column(values: FloatArray, names: tuple[str, ...], name: str) -> FloatArray:
    if name not in names:
        raise ValueError(f"unknown feature {name!r}; known: {', '.join(names)}")
    return values[:, names.index(name)]
