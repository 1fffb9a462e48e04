"""What the stage `evaluate` computes: counts over frames, figures, curves and pictures."""

from meta_ood.evaluation.counting import Counts, count_files, count_frame
from meta_ood.evaluation.pictures import choose_pictures, write_pictures
from meta_ood.evaluation.summary import (
    curve_tables,
    measure,
    plain,
    read_removed,
    write_columns,
    write_json,
)

__all__ = [
    "Counts",
    "choose_pictures",
    "count_files",
    "count_frame",
    "curve_tables",
    "measure",
    "plain",
    "read_removed",
    "write_columns",
    "write_json",
    "write_pictures",
]
