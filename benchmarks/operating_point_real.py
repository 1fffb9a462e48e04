"""Budgets chosen on one half of the ordinary frames, alarms on the other half, and the objects that are still found.

    python benchmarks/operating_point_real.py data/segments/erfnet/ood_trained

The folder holds the segment tables of one network (`dvc repro segments`). The first half of an ordinary set are the
first half of its scenes, cities or stretches of a drive, in the order of their names; of a single scene, of its frames.
Each half chooses in turn. There are few scenes, so that frames count as independent by default; `--unit scene` counts
scenes, and says how many are needed. The severity `meta` is 1 - P(false) of a classifier fitted on the other sets with
objects, never on a set that it judges here.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import numpy as np

from meta_ood.meta_classification import fit
from meta_ood.metrics import Flags, Floats, risk
from meta_ood.segments import SegmentTable, table_file

BUDGETS = (0.05, 0.1, 0.3)  # frames with a false alarm


def first_half(table: SegmentTable) -> Flags:
    """Return ``(N,)`` which images belong to the first half."""
    scenes, place = np.unique(table.scenes, return_inverse=True)
    if len(scenes) == 1:
        place = np.argsort(np.argsort(table.image_ids))
    return place < (place.max() + 1) / 2


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("segments", type=Path)
    parser.add_argument("--ordinary", nargs="+", default=["cityscapes_val", "drive"])
    parser.add_argument("--objects", nargs="+", default=["fishyscapes_static", "road_obstacle21"])
    parser.add_argument("--unit", choices=("frame", "scene"), default="frame")
    parser.add_argument("--confidence", type=float, default=0.9)
    options = parser.parse_args()
    names = options.ordinary + options.objects
    tables = {name: table_file.read_table(options.segments / f"{name}.h5") for name in names}
    # 1. of all ordinary frames: the half, and the name of the unit
    halves = np.concatenate([first_half(tables[name]) for name in options.ordinary])
    units = [
        f"{name} {unit}"
        for name in options.ordinary
        for unit in (tables[name].image_ids if options.unit == "frame" else tables[name].scenes)
    ]
    print("| severity | objects | budget | chosen on | threshold | alarms there | bound | held out | recall | of all |")
    print("|" + "---|" * 10)
    refused: dict[str, None] = {}
    for kind, objects in itertools.product(("score", "score · √size", "meta"), options.objects):
        # 2. severities of everything that this classifier, or the score, judges
        values = {name: table.segment_score for name, table in tables.items()}
        if kind == "score · √size":
            values = {name: table.segment_score * np.sqrt(table.segment_size) for name, table in tables.items()}
        if kind == "meta":
            rest = [tables[name] for name in options.objects if name != objects]
            if not rest:
                continue
            classifier = fit(SegmentTable.concatenate(rest))
            values = {name: 1 - classifier.probability(tables[name]) for name in (*options.ordinary, objects)}
        false: list[Floats] = []
        for name in options.ordinary:
            false += risk.false_severities(tables[name], values[name])
        # 3. the point of each half, and what it does elsewhere
        for budget, half in itertools.product(BUDGETS, (True, False)):
            chosen, held_out = np.flatnonzero(halves == half), np.flatnonzero(halves != half)
            row = f"| {kind} | {objects} | {budget} | {'first' if half else 'second'} half |"
            try:
                point = risk.choose_threshold(
                    [false[i] for i in chosen], [units[i] for i in chosen], budget, options.confidence
                )
            except ValueError as error:
                refused[str(error)] = None
                continue
            alarms = int((risk.highest([false[i] for i in held_out]) >= point.threshold).sum())
            recall, low, high = risk.recall(tables[objects], values[objects], point.threshold)
            found = 1 - float(tables[objects].is_missed.mean())
            print(
                f"{row} {point.threshold:.3f} | {point.alarms} of {point.frames} | {point.bound:.3f} |"
                f" {alarms} of {len(held_out)} = {alarms / len(held_out):.3f} |"
                f" {recall:.3f} ({low:.3f}-{high:.3f}) | {found:.3f} |"
            )
    print("\n".join(f"refused: {reason}" for reason in refused))


if __name__ == "__main__":
    main()
