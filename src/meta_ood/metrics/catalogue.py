"""The metrics of an evaluated cell: key, name, unit, better direction and text form of each.

A cell is one network, variant and evaluation set. Tables, comparisons, charts and the summary that DVC shows take
names, order and formats from :data:`METRICS`.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """One metric of a cell.

    Attributes:
        key: Key in metrics.json and summary.json.
        name: Name in a sentence or a chart.
        heading: Title of its column in the results table, in two lines.
        unit: ``percent`` for fractions in [0, 1] that are printed in percent, ``count`` for numbers of segments or
            components.
        better: Direction of improvement.
    """

    key: str
    name: str
    heading: tuple[str, str]
    unit: Literal["percent", "count"]
    better: Literal["higher", "lower"]

    def text(self, value: float | None) -> str:
        """Return a value as it is printed; a dash where it is undefined.

        Examples:
            >>> METRICS["auroc"].text(0.98765), METRICS["auroc"].text(None)
            ('98.8', '–')
            >>> METRICS["segment_false_positives"].text(12.0)
            '12'
        """
        if value is None:
            return "–"
        return f"{100 * value:.1f}" if self.unit == "percent" else f"{value:.0f}"

    def gain(self, before: float | None, after: float | None) -> float | None:
        """Return how much better `after` is than `before`: negative if worse, None if unknown."""
        if before is None or after is None:
            return None
        return after - before if self.better == "higher" else before - after


_META = "after meta classification"
METRICS: dict[str, Metric] = {
    metric.key: metric
    for metric in (
        Metric("auroc", "AUROC", ("AUROC", "%"), "percent", "higher"),
        Metric("auprc", "AUPRC", ("AUPRC", "%"), "percent", "higher"),
        Metric("fpr95", "FPR95", ("FPR95", "%"), "percent", "lower"),
        Metric("segment_false_positives", "false segments", ("FP", "before"), "count", "lower"),
        Metric("segment_false_positives_after_meta", f"false segments {_META}", ("FP", "after"), "count", "lower"),
        Metric("segment_false_negatives", "missed objects", ("FN", "before"), "count", "lower"),
        Metric("segment_false_negatives_after_meta", f"missed objects {_META}", ("FN", "after"), "count", "lower"),
        Metric("segment_f1", "segment F1", ("segment F1", "before"), "percent", "higher"),
        Metric("segment_f1_after_meta", f"segment F1 {_META}", ("segment F1", "after"), "percent", "higher"),
        Metric("component_f1", "component F1", ("component F1", "before"), "percent", "higher"),
        Metric("component_f1_after_meta", f"component F1 {_META}", ("component F1", "after"), "percent", "higher"),
        Metric("alarm_rate", f"frames with a false alarm {_META}", ("alarms", "% frames"), "percent", "lower"),
        Metric("object_recall", f"objects found {_META}", ("found", "% objects"), "percent", "higher"),
        Metric("miou", "mIoU", ("mIoU", "%"), "percent", "higher"),
        Metric("calibration_error", "calibration error", ("ECE", "%"), "percent", "lower"),
    )
}
"""Key -> metric, in the order of tables."""
