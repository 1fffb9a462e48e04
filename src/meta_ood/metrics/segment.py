"""Segment metrics: false and missed segments, before and after meta classification.

A segment is *false* if it holds no OoD pixel, a component is *missed* if no pixel of it lies in a segment that is kept.
Everything is algebra on the overlaps of a :class:`SegmentTable`.

Segment F1 weighs both errors against what is right: ``2 TP / (2 TP + FP + FN)`` with TP the segments that hold an OoD
pixel, FP the false segments, FN the missed components, all summed over the images. It says whether objects are found
at all; how well they are covered is measured by the F1 of :mod:`meta_ood.metrics.component`.
"""

import itertools
from dataclasses import dataclass

import numpy as np

from meta_ood.metrics import Flags, Floats, Integers
from meta_ood.segments.table import SegmentTable


@dataclass(frozen=True)
class SegmentErrors:
    """Counts over a set of images.

    Attributes:
        segments, components: Predicted segments and true components.
        false_positives, false_negatives: False segments and missed components, before meta classification.
        false_positives_after_meta, false_negatives_after_meta: False segments that are kept, and components without a
            kept segment.
        removed, true_segments_removed: Segments removed, and those among them that hold OoD pixels: the price.
        published_false_positives_after_meta: What the published code prints as "false positives after": the number of
            *true* segments removed. Wrong; only for comparison with published numbers.
    """

    segments: int
    components: int
    false_positives: int
    false_negatives: int
    false_positives_after_meta: int
    false_negatives_after_meta: int
    removed: int
    true_segments_removed: int
    published_false_positives_after_meta: int

    def summary(self) -> dict[str, dict[str, int | float]]:
        """Return TP, FP, FN and F1 of all segments and of those kept, as for metrics.json."""
        true = self.segments - self.false_positives
        false_after, missed_after = self.false_positives_after_meta, self.false_negatives_after_meta
        return {
            "before": _f1_with_counts(true, self.false_positives, self.false_negatives),
            "after_meta": _f1_with_counts(true - self.true_segments_removed, false_after, missed_after),
        }


def _f1_with_counts(true: int, false: int, missed: int) -> dict[str, int | float]:
    f1 = float(segment_f1(true, false, missed))
    return {"true_positives": true, "false_positives": false, "false_negatives": missed, "f1": f1}


def segment_f1(true: int | Integers, false: int | Integers, missed: int | Integers) -> Floats:
    """Return F1, ``2 TP / (2 TP + FP + FN)``, ``float64`` in [0, 1]; 0 with errors only, NaN if all counts are 0.

    A component found in three segments adds 3 to TP, one segment over two components adds 1, a missed component adds 1
    to FN however large it is.

    Args:
        true, false: Segments that hold an OoD pixel (TP), and that hold none (FP): numbers or arrays of one shape.
        missed: Components without a segment (FN).
    """
    hits = 2 * np.asarray(true, np.float64)
    whole = hits + false + missed
    return np.where(whole > 0, hits / np.where(whole > 0, whole, 1), np.nan)


def missed(table: SegmentTable, kept: Flags) -> Flags:
    """Return ``(T,) bool``: the component has no pixel in a segment that is ``kept (S,) bool``."""
    lost = np.ones(len(table.component_image), bool)
    lost[table.overlaps[kept[table.overlaps[:, 0]], 1]] = False
    return lost


def has_alarm(table: SegmentTable, removed: Flags) -> Flags:
    """Return ``(N,) bool``: the image has a false segment that is not ``removed (S,) bool``."""
    alarm = np.zeros(len(table.image_ids), bool)
    alarm[table.image[table.is_false & ~removed]] = True
    return alarm


def segment_errors(table: SegmentTable, removed: Flags) -> SegmentErrors:
    """Count false and missed segments of a table from which meta classification removes ``removed (S,) bool``.

    Another length than the table's is a ``ValueError``.
    """
    false = table.is_false
    if removed.shape != false.shape:
        raise ValueError(f"removed has shape {removed.shape}, the table {len(false)} segments")
    wrongly = int((removed & ~false).sum())
    return SegmentErrors(
        segments=len(false),
        components=len(table.component_image),
        false_positives=int(false.sum()),
        false_negatives=int(missed(table, np.ones_like(false)).sum()),
        false_positives_after_meta=int((false & ~removed).sum()),
        false_negatives_after_meta=int(missed(table, ~removed).sum()),
        removed=int(removed.sum()),
        true_segments_removed=wrongly,
        published_false_positives_after_meta=wrongly,
    )


def trade_off(table: SegmentTable, probability: Floats) -> dict[str, Floats | Integers]:
    """Return false and missed segments at every operating point of the classifier.

    Args:
        table: Segments, components, overlaps.
        probability: ``(S,)`` probability of being false, in [0, 1]; another length is a ``ValueError``.

    Returns:
        ``operating_point`` (rising; a segment is removed if its probability is above), and at each ``false_positives``,
        ``false_negatives`` and ``true_segments_removed``: one point per distinct probability and one below all.
    """
    false = table.is_false
    if probability.shape != false.shape:
        raise ValueError(f"probability {probability.shape}: the table has {len(false)} segments")
    points = np.concatenate([[-1.0], np.unique(probability)])
    # a component is found as long as the least probable of its segments is kept
    least = np.full(len(table.component_image), np.inf)
    np.minimum.at(least, table.overlaps[:, 1], probability[table.overlaps[:, 0]])

    def at_most(values: Floats) -> Integers:
        return np.searchsorted(np.sort(values), points, side="right").astype(np.int64)

    return {
        "operating_point": points,
        "false_positives": at_most(probability[false]),
        "false_negatives": len(least) - at_most(least),
        "true_segments_removed": int((~false).sum()) - at_most(probability[~false]),
    }


def found_by(
    table: SegmentTable, removed: Flags, values: Integers | Floats, edges: Floats | None = None
) -> dict[str, dict[str, int]]:
    """Count found components by size, by image row (a proxy of distance) or by label id.

    Args:
        table, removed: As in :func:`segment_errors`.
        values: ``(T,)``: what to group by.
        edges: Rising edges of half-open groups ``[e_i, e_(i+1))``; None groups equal values.

    Returns:
        Group -> ``components``, those ``found`` by a segment, and ``found_after_meta`` by one that is kept.
    """
    # a component is found if it has a pixel in any segment, or in one that is kept
    found = ~missed(table, np.ones(len(table.image), bool))
    kept = ~missed(table, ~removed)
    if edges is None:
        groups, index = np.unique(values, return_inverse=True)
        names = [str(group) for group in groups.tolist()]
    else:
        index = np.searchsorted(edges, values, side="right") - 1
        names = [f"{low:g}-{high:g}" for low, high in itertools.pairwise(edges)]
    flags = {"components": np.ones(found.size, bool), "found": found, "found_after_meta": kept}
    return {
        name: {key: int(flag[index == group].sum()) for key, flag in flags.items()} for group, name in enumerate(names)
    }
