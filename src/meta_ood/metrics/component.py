"""Component metrics of SegmentMeIfYouCan: sIoU, PPV and F1 (decision 0043).

For a true component k let P(k) be the union of the segments that share a pixel with it. Then ``sIoU(k) = |k ∩ P(k)| /
(|k ∪ P(k)| - |pixels of P(k) on other components|)`` and, for a segment p, ``PPV(p) = |p ∩ any component| / |p|``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from meta_ood.data.labels import IGNORE, OOD, LabelMap
from meta_ood.metrics import Flags, Floats, Integers, pixel
from meta_ood.segments import SegmentTable, label_map, predicted_ood

TAUS: tuple[float, ...] = tuple(np.linspace(0.25, 0.75, 11).tolist())
"""The eleven overlap thresholds 0.25 … 0.75."""

TRACKS: dict[str, tuple[int, int]] = {"anomaly": (500, 100), "obstacle": (50, 10), "all": (0, 0)}
"""Track -> least size [px] of a predicted segment and of a true component.

``anomaly``: RoadAnomaly21, and Fishyscapes LostAndFound in the benchmark's own use; ``obstacle``: RoadObstacle21 and
LostAndFound testNoKnown; ``all``: nothing is too small.
"""


@dataclass(frozen=True)
class ComponentMetrics:
    """Component metrics of a set of images; fractions in [0, 1], NaN where nothing is there.

    Attributes:
        siou, ppv: Means over all components and over all segments of the set.
        f1: Mean of F1(τ) over :data:`TAUS`; counts are summed over the set.
        f1_at: F1(τ) for each τ.
        components, segments: How many.
    """

    siou: float
    ppv: float
    f1: float
    f1_at: tuple[float, ...]
    components: int
    segments: int


@dataclass(frozen=True)
class Cut:
    """A threshold that cuts segments out of score maps, and the rule that chose it.

    Attributes:
        rule: ``best_pixel_f1``: our default, the best pixel F1 of all scores of the evaluated set; ``smiyc``:
            SegmentMeIfYouCan's default, the best F1 of its merged quantile curve; ``given``: chosen elsewhere. The
            first two are oracles: they look at the evaluated targets.
        threshold: Of the score.
        strict: Predicted is ``score > threshold``, as in SegmentMeIfYouCan's code; else ``>=``.
    """

    rule: str
    threshold: float
    strict: bool = False

    @classmethod
    def choose(
        cls, histogram: pixel.ScoreHistogram, curve: pixel.Sweep, given: float | None = None, smiyc: bool = False
    ) -> Cut:
        """Return the given threshold, or choose one on the evaluated set by our or smiyc's rule."""
        if given is not None:
            return cls("given", given, smiyc)
        if smiyc:
            return cls("smiyc", pixel.smiyc_threshold(histogram), strict=True)
        return cls("best_pixel_f1", pixel.best_f1_threshold(curve))

    def mask(self, score: npt.NDArray[np.float32], target: LabelMap) -> Flags:
        """Return the predicted pixels outside void, ``(H, W) bool``."""
        if not self.strict:
            return predicted_ood(score, self.threshold, target)
        # in double precision: an edge between two float32 scores must not be rounded to one of them
        return np.asarray((score > np.float64(self.threshold)) & (target != IGNORE))

    def values(self, track: str, overlaps: Overlaps) -> dict[str, Any]:
        """Return the component metrics at this threshold as plain values for JSON."""
        return {
            "track": track,
            "rule": self.rule,
            "threshold": self.threshold,
            "threshold_is_oracle": self.rule != "given",
            **asdict(component_metrics(overlaps)),
        }


@dataclass(frozen=True)
class Overlaps:
    """sIoU of every component and PPV of every segment of some images; concatenates.

    Attributes:
        siou: ``(T,) float64`` in [0, 1].
        ppv: ``(S,) float64`` in [0, 1].
    """

    siou: Floats
    ppv: Floats

    @staticmethod
    def concatenate(parts: Sequence[Overlaps]) -> Overlaps:
        """Return those of all images."""
        return Overlaps(np.concatenate([one.siou for one in parts]), np.concatenate([one.ppv for one in parts]))


def overlaps_of(component_size: Integers, segment_size: Integers, pairs: Integers) -> Overlaps:
    """Return sIoU and PPV from sizes ``(T,)`` and ``(S,)`` [px] and from common pixels.

    ``pairs (K, 3) int64``: segment, component, common pixels; each pair once.

    Examples:
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
    """Return sIoU and PPV of a table's segments, or of those ``kept (S,) bool`` by meta classification."""
    if kept is None:
        return overlaps_of(table.component_size, table.segment_size, table.overlaps)
    # overlaps of kept segments, under the numbers that these have among the kept ones
    number = np.cumsum(kept) - 1
    pairs = table.overlaps[kept[table.overlaps[:, 0]]].copy()
    pairs[:, 0] = number[pairs[:, 0]]
    return overlaps_of(table.component_size, table.segment_size[kept], pairs)


def of_mask(predicted: Flags, target: LabelMap, min_segment: int = 0, min_component: int = 0) -> Overlaps:
    """Compute sIoU and PPV of one predicted mask, exactly as the benchmark's code does.

    Args:
        predicted: ``(H, W) bool``, False on void; see :meth:`Cut.mask`.
        target: ``(H, W) uint8``.
        min_segment, min_component: Least sizes [px], see :data:`TRACKS`.
    """
    # 1. segments and components are 8-connected
    segments, components = label_map(predicted), label_map(target == OOD)
    # 2. small segments are deleted; small components become void, which is cut out of the segments
    #    without labelling these anew
    segments[_small(segments, min_segment)] = 0
    small = _small(components, min_component)
    segments[small] = 0
    components[small] = 0
    # 3. sizes and common pixels of the labels that are left, numbered anew
    segment, segment_size = _renumbered(segments)
    component, component_size = _renumbered(components)
    both = (segment >= 0) & (component >= 0)
    joint = segment[both] * max(component_size.size, 1) + component[both]
    unique, pixels = np.unique(joint, return_counts=True)
    pairs = np.stack([*np.divmod(unique, max(component_size.size, 1)), pixels], axis=1)
    return overlaps_of(component_size, segment_size, pairs)


def _renumbered(labels: npt.NDArray[np.int32]) -> tuple[Integers, Integers]:
    """Return the labels that occur as ``0 .. n-1``, -1 outside, flat, and their sizes ``(n,)``."""
    size = np.bincount(labels.flat)
    size[0] = 0
    number = np.where(size > 0, np.cumsum(size > 0) - 1, -1)
    return number[labels.ravel()], size[size > 0]


def _small(labels: npt.NDArray[np.int32], least: int) -> Flags:
    """Return the pixels of the labels that have fewer than `least` pixels."""
    size = np.bincount(labels.flat)
    small = size < least
    small[0] = False
    return np.asarray(small[labels], bool)


def f1_at_taus(found: Integers, components: int | Integers, false: Integers) -> Floats:
    """Return ``F1(τ) = 2 TP / (2 TP + FN + FP)`` for each τ in the last axis; NaN if all are 0.

    TP are the components `found` with sIoU ≥ τ, FN the other `components`, FP the `false` segments with PPV < τ.
    """
    whole = found + components + false
    return np.where(whole > 0, 2 * found / np.maximum(whole, 1), np.nan)


def component_metrics(overlaps: Overlaps) -> ComponentMetrics:
    """Return the benchmark's metrics of sIoU and PPV over a whole set."""
    taus = np.array(TAUS)
    f1 = f1_at_taus((overlaps.siou[:, None] >= taus).sum(0), len(overlaps.siou), (overlaps.ppv[:, None] < taus).sum(0))
    return ComponentMetrics(
        siou=float(overlaps.siou.mean()) if overlaps.siou.size else math.nan,
        ppv=float(overlaps.ppv.mean()) if overlaps.ppv.size else math.nan,
        f1=float(f1.mean()),
        f1_at=tuple(f1.tolist()),
        components=len(overlaps.siou),
        segments=len(overlaps.ppv),
    )
