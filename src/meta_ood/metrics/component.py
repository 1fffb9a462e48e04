"""Component metrics of SegmentMeIfYouCan: sIoU, PPV and F1 (decision 0043).

For a true component k let P(k) be the union of the segments that share a pixel with it. Then ``sIoU(k) = |k ∩ P(k)| /
(|k ∪ P(k)| - |pixels of P(k) on other components|)`` and, for a segment p, ``PPV(p) = |p ∩ any component| / |p|``.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from meta_ood.data.labels import IGNORE, OOD, LabelMap
from meta_ood.metrics import Flags, Floats, Integers, pixel
from meta_ood.metrics.segment import segment_f1
from meta_ood.segments import SegmentTable, label_map, predicted_ood

TAUS: tuple[float, ...] = tuple(np.linspace(0.25, 0.75, 11).tolist())
"""The eleven overlap thresholds 0.25 … 0.75."""

TRACKS: dict[str, tuple[int, int]] = {"anomaly": (500, 100), "obstacle": (50, 10), "all": (0, 0)}
"""Track -> least size [px] of a predicted segment and of a true component.

``anomaly``: RoadAnomaly21, and Fishyscapes LostAndFound in the benchmark's own use; ``obstacle``: RoadObstacle21 and
LostAndFound testNoKnown; ``all``: no minimum size.
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
class Overlaps:
    """sIoU of every component, ``(T,) float64``, and PPV of every segment, ``(S,) float64``, in [0, 1]."""

    siou: Floats
    ppv: Floats

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """Return those of all images."""
        return cls(np.concatenate([one.siou for one in parts]), np.concatenate([one.ppv for one in parts]))


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
    ) -> Self:
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


def overlaps_of(component_size: Integers, segment_size: Integers, pairs: Integers) -> Overlaps:
    """Return sIoU and PPV from sizes ``(T,)`` and ``(S,)`` [px] and from common pixels.

    ``pairs (K, 3) int64``: segment, component, common pixels; each pair once.
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
    kept = np.ones(len(table.segment_size), bool) if kept is None else kept
    pairs = table.overlaps[kept[table.overlaps[:, 0]]]
    overlaps = overlaps_of(table.component_size, table.segment_size, pairs)
    return Overlaps(overlaps.siou, overlaps.ppv[kept])


def of_mask(predicted: Flags, target: LabelMap, min_segment: int = 0, min_component: int = 0) -> Overlaps:
    """Compute sIoU and PPV of one predicted mask, exactly as the benchmark's code does.

    Args:
        predicted: ``(H, W) bool``, False on void; see :meth:`Cut.mask`.
        target: ``(H, W) uint8``.
        min_segment, min_component: Least sizes [px], see :data:`TRACKS`.
    """
    # 1. segments and components are 8-connected; label 0 is everywhere else
    segments, components = label_map(predicted), label_map(target == OOD)
    # 2. small segments are deleted; small components become void, which is cut out of the segments
    #    without labelling these anew
    segments[(np.bincount(segments.flat) < min_segment)[segments]] = 0
    small = (components > 0) & (np.bincount(components.flat) < min_component)[components]
    segments[small] = components[small] = 0
    # 3. sizes and common pixels, by label; labels that are gone have size 0 and are left out at the end
    segment_size, component_size = np.bincount(segments.flat), np.bincount(components.flat)
    segment_size[0] = component_size[0] = 0
    both = (segments > 0) & (components > 0)
    joint = segments[both].astype(np.int64) * component_size.size + components[both]
    unique, pixels = np.unique(joint, return_counts=True)
    pairs = np.stack([*np.divmod(unique, component_size.size), pixels], axis=1)
    overlaps = overlaps_of(component_size, segment_size, pairs)
    return Overlaps(overlaps.siou[component_size > 0], overlaps.ppv[segment_size > 0])


def component_metrics(overlaps: Overlaps) -> ComponentMetrics:
    """Return the benchmark's metrics of sIoU and PPV over a whole set.

    For F1(τ), TP are the components with sIoU ≥ τ, FN the others, FP the segments with PPV < τ.
    """
    taus = np.array(TAUS)
    found, false = (overlaps.siou[:, None] >= taus).sum(0), (overlaps.ppv[:, None] < taus).sum(0)
    f1 = segment_f1(found, false, len(overlaps.siou) - found)
    return ComponentMetrics(
        siou=float(overlaps.siou.mean()) if overlaps.siou.size else math.nan,
        ppv=float(overlaps.ppv.mean()) if overlaps.ppv.size else math.nan,
        f1=float(f1.mean()),
        f1_at=tuple(f1.tolist()),
        components=len(overlaps.siou),
        segments=len(overlaps.ppv),
    )
