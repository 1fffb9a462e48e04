"""OoD segments: connected components of a thresholded score, their features and overlaps."""

from meta_ood.segments.measure import measure_segments
from meta_ood.segments.table import SegmentTable

__all__ = ["SegmentTable", "measure_segments"]
