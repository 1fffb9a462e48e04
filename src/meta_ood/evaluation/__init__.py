"""What the stage `evaluate` computes: counts over frames, figures, curves and pictures."""

from meta_ood.evaluation.counting import Counts, count_files
from meta_ood.evaluation.pictures import choose_pictures, write_pictures
from meta_ood.evaluation.summary import (
    curve_tables,
    measure,
    plain,
    read_removed,
    write_columns,
    write_json,
)
from meta_ood.evaluation.uncertainty import intervals, replicates

__all__ = [
    "Counts",
    "choose_pictures",
    "count_files",
    "curve_tables",
    "intervals",
    "measure",
    "plain",
    "read_removed",
    "replicates",
    "write_columns",
    "write_json",
    "write_pictures",
]
