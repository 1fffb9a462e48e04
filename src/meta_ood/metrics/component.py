"""Component metrics of SegmentMeIfYouCan: sIoU, PPV and F1 (DATA.md 4.3).

For a true component k let P(k) be the union of the segments that share a pixel with it. Then
``sIoU(k) = |k ∩ P(k)| / (|k ∪ P(k)| - |pixels of P(k) on other components|)`` and, for a segment p,
``PPV(p) = |p ∩ any component| / |p|``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from meta_ood.segments.table import SegmentTable

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

TAUS: tuple[float, ...] = tuple(round(0.25 + 0.05 * i, 2) for i in range(11))
"""The eleven overlap thresholds 0.25 … 0.75."""


@dataclass(frozen=True)
class ComponentMetrics:
    """Component metrics of a set of images; fractions in [0, 1], NaN where nothing is there.

    Attributes
    ----------
    siou, ppv
        Means over all components and over all segments of the set.
    f1
        Mean of F1(τ) over :data:`TAUS`; counts are summed over the set.
    f1_at
        F1(τ) for each τ.
    components, segments
        How many.
    """

    siou: float
    ppv: float
    f1: float
    f1_at: tuple[float, ...]
    components: int
    segments: int


@dataclass(frozen=True)
class Overlaps:
    """sIoU of every component and PPV of every segment of some images; concatenates.

    Attributes
    ----------
    siou
        ``(T,) float64`` in [0, 1].
    ppv
        ``(S,) float64`` in [0, 1].
    """

    siou: Floats
    ppv: Floats

    def __add__(self, other: Overlaps) -> Overlaps:
        """Return those of both sets of images."""
        return Overlaps(
            np.concatenate([self.siou, other.siou]), np.concatenate([self.ppv, other.ppv])
        )


def overlaps_of(component_size: Integers, segment_size: Integers, pairs: Integers) -> Overlaps:
    """Compute sIoU and PPV from sizes and common pixels.

    Parameters
    ----------
    component_size
        ``(T,)`` [px].
    segment_size
        ``(S,)`` [px].
    pairs
        ``(K, 3) int64``: segment, component, common pixels; each pair once.

    Examples
    --------
    >>> one = overlaps_of(np.array([4]), np.array([3, 5]), np.array([[0, 0, 2]]))
    >>> one.siou, one.ppv
    (array([0.4]), array([0.66666667, 0.        ]))
    """
    components, segments = len(component_size), len(segment_size)
    segment, component, pixels = pairs[:, 0], pairs[:, 1], pairs[:, 2]
    on_truth = np.bincount(segment, pixels, segments)
    common = np.bincount(component, pixels, components)
    adjacent = np.bincount(component, segment_size[segment].astype(np.float64), components)
    on_any = np.bincount(component, on_truth[segment], components)
    # |k ∪ P| - |P on others| = |k| + |P| - |k ∩ P| - (|P on any| - |k ∩ P|)
    union = component_size + adjacent - on_any
    return Overlaps(common / np.maximum(union, 1), on_truth / np.maximum(segment_size, 1))


def of_table(table: SegmentTable, kept: Flags | None = None) -> Overlaps:
    """Compute sIoU and PPV for the segments of a table.

    Parameters
    ----------
    table
        Segments, components, overlaps.
    kept
        ``(S,) bool``: the segments that count, all if None; say those that survive meta
        classification.
    """
    if kept is None:
        return overlaps_of(table.component_size, table.segment_size, table.overlaps)
    number = np.cumsum(kept) - 1
    pairs = table.overlaps[kept[table.overlaps[:, 0]]].copy()
    pairs[:, 0] = number[pairs[:, 0]]
    return overlaps_of(table.component_size, table.segment_size[kept], pairs)


def component_metrics(overlaps: Overlaps) -> ComponentMetrics:
    """Reduce sIoU and PPV of a whole set to the benchmark's figures.

    ``F1(τ) = 2 TP / (2 TP + FN + FP)`` with TP = #(sIoU ≥ τ), FN = #(sIoU < τ), FP = #(PPV < τ).

    Examples
    --------
    >>> m = component_metrics(Overlaps(np.array([0.4, 0.9]), np.array([1.0])))
    >>> round(m.siou, 3), m.ppv, [round(f, 2) for f in m.f1_at[2:5]]
    (0.65, 1.0, [1.0, 1.0, 0.67])
    """
    taus = np.array(TAUS)
    hit = (overlaps.siou[:, None] >= taus).sum(0)
    lost = len(overlaps.siou) - hit
    false = (overlaps.ppv[:, None] < taus).sum(0)
    whole = 2 * hit + lost + false
    f1 = np.where(whole > 0, 2 * hit / np.maximum(whole, 1), np.nan)
    return ComponentMetrics(
        siou=float(overlaps.siou.mean()) if overlaps.siou.size else math.nan,
        ppv=float(overlaps.ppv.mean()) if overlaps.ppv.size else math.nan,
        f1=float(f1.mean()),
        f1_at=tuple(f1.tolist()),
        components=len(overlaps.siou),
        segments=len(overlaps.ppv),
    )
