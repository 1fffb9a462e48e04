"""What finding most OoD pixels costs elsewhere: known classes above the threshold, false segments of each frame.

AUPRC says nothing of it where a class is rare: a network may call most of each person unknown and still look good.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from meta_ood.data.files import csv_text
from meta_ood.report.results import Columns, Evaluation, Results

RECALL = 0.8  # share of the OoD pixels that the threshold finds, on the first evaluation set that has some


class KnownAlarms(NamedTuple):
    """One evaluation at the threshold that finds :data:`RECALL` of the OoD pixels of the set `source`."""

    evaluation: Evaluation
    source: str
    threshold: float  # of the score that makes segments
    shares: Mapping[str, float]  # known class -> share of its interior pixels that reach the threshold, in [0, 1]
    false_segments: float | None  # a frame, before meta classification; None if the curve is absent


def known_alarms(results: Results) -> list[KnownAlarms]:
    """Return each evaluation at its network's and variant's threshold; those without the curves are left out."""
    source = next((one.dataset for one in results.ordered if _thresholds(one).size), "")
    found = []
    for one in results.ordered:
        labelled = results.evaluations.get((one.network, one.variant, source))
        if labelled is None or not _thresholds(labelled).size or "interior" not in one.curves:
            continue
        # recall rises and the threshold falls along the curve
        place = int(np.searchsorted(labelled.curves["pr"]["recall"], RECALL))
        threshold = float(_thresholds(labelled)[place])
        shares, false = _shares(one.curves["interior"], threshold), _false_segments(one, threshold)
        found.append(KnownAlarms(one, source, threshold, shares, false))
    return found


def known_alarms_csv(found: Sequence[KnownAlarms]) -> str:
    """Return one row for each number: ``quantity`` is ``false segments a frame`` or a known class."""
    rows = []
    for evaluation, source, threshold, shares, false in found:
        key = [evaluation.network, evaluation.dataset, evaluation.variant, source, f"{threshold:.10g}"]
        values = {"false segments a frame": false, **shares}
        rows += [[*key, name, f"{value:.10g}"] for name, value in values.items() if value is not None]
    return csv_text(["network", "dataset", "variant", "threshold_from", "threshold", "quantity", "value"], rows)


def _thresholds(one: Evaluation) -> np.ndarray:
    return one.curves.get("pr", {}).get("threshold", np.empty(0))


def _shares(interior: Columns, threshold: float) -> dict[str, float]:
    """Return the share of each class, linear between the thresholds of the curve; its first row counts all pixels."""
    names = [name for name in interior if name != "threshold"]
    reached = {name: np.interp(threshold, interior["threshold"][1:], interior[name][1:]) for name in names}
    return {name: float(reached[name] / interior[name][0]) for name in names}


def _false_segments(one: Evaluation, threshold: float) -> float | None:
    curve, frames = one.curves.get("components"), one.value("frames")
    if curve is None or not frames:
        return None
    of_any_size = curve["least_size"] == 0
    thresholds, false = curve["threshold"][of_any_size], curve["false_segments"][of_any_size]
    return float(np.interp(threshold, thresholds, false) / frames)
