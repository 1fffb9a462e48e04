"""Metrics, curves and pictures of predictions and of score maps, from counts over frames."""

from meta_ood.evaluation.counting import SetCounts, count_files
from meta_ood.evaluation.maps import chosen_threshold, evaluate_maps, maps_text, pair_files
from meta_ood.evaluation.pictures import choose_pictures, write_pictures
from meta_ood.evaluation.summary import (
    curve_tables,
    headlines,
    measure,
    plain,
    read_calibration,
    read_removed,
    write_curve,
)
from meta_ood.evaluation.uncertainty import intervals, replicates
from meta_ood.metrics.pixel import PROTOCOLS

__all__ = [
    "PROTOCOLS",
    "SetCounts",
    "choose_pictures",
    "chosen_threshold",
    "count_files",
    "curve_tables",
    "evaluate_maps",
    "headlines",
    "intervals",
    "maps_text",
    "measure",
    "pair_files",
    "plain",
    "read_calibration",
    "read_removed",
    "replicates",
    "write_curve",
    "write_pictures",
]
