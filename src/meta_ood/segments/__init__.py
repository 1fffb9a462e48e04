"""OoD segments: connected components of a thresholded score, their features and overlaps."""

from meta_ood.segments.measure import count_segments, label_map, measure_segments, predicted_ood, segment_means
from meta_ood.segments.table import SegmentTable

__all__ = ["SegmentTable", "count_segments", "label_map", "measure_segments", "predicted_ood", "segment_means"]
