"""Budgets chosen on ordinary photos, alarms on others, and the objects that are still found.

    python benchmarks/operating_point_real.py data/segments/NETWORK/VARIANT

The folder holds the segment tables of one network (`dvc repro segments` with configs/real.yaml). Half of each ordinary
set fits the meta classifier, together with the sets with objects, whose segments are judged out of fold by scene. Of
the other half, one part chooses the threshold and the rest is held out. Parts follow each other in the order of scenes
and frames: neighbouring frames of a drive, which show the same things, are on one side. Each part takes each role in
turn. Without a classifier (score) nothing is fitted, and one half chooses for the other. There are few scenes, so that
frames count as independent by default; `--unit scene` counts scenes, and says how many are needed.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from meta_ood.meta_classification import fit
from meta_ood.meta_classification.folds import predict_folds
from meta_ood.metrics import Flags, Floats, Integers, risk
from meta_ood.segments import SegmentTable, table_file

BUDGETS = (0.1, 0.2, 0.3, 0.5)  # frames with a false alarm


def quarters(table: SegmentTable) -> Integers:
    """Return ``(N,)`` from 0 to 3: which quarter of the frames, in the order of scenes and names, an image is in."""
    order = np.lexsort((table.image_ids, table.scenes))
    place = np.empty(len(order), np.int64)
    place[order] = 4 * np.arange(len(order)) // len(order)
    return place


def segments_on(table: SegmentTable, images: Flags) -> SegmentTable:
    """Return an ordinary table with the segments of these images ``(N,)`` only."""
    of = images[table.image]
    names = ("image", "features", "iou", "segment_box", "segment_score")
    return replace(table, **{name: getattr(table, name)[of] for name in names})


def severities(tables: dict[str, SegmentTable], objects: list[str], fitting: dict[str, Flags]) -> dict[str, Floats]:
    """Return the severities ``(S,)`` by a classifier that `objects` and the `fitting` images of ordinary sets fit.

    Segments of `objects` are judged out of fold, by fits without a fifth of all scenes.
    """
    parts = [*(tables[name] for name in objects), *(segments_on(tables[name], on) for name, on in fitting.items())]
    pooled = SegmentTable.concatenate(parts)
    fold = np.unique(pooled.scenes, return_inverse=True)[1][pooled.image] % 5
    found = np.logaddexp(0, -predict_folds(pooled.features, pooled.is_false, fold, "logistic_regression").log_odds)
    ends = np.cumsum([len(part.image) for part in parts])
    values = dict(zip(objects, np.split(found, ends), strict=False))
    classifier = fit(pooled)
    return values | {name: classifier.severity(tables[name]) for name in fitting}


def splits(
    tables: dict[str, SegmentTable], objects: list[str], ordinary: list[str]
) -> Iterator[tuple[str, dict[str, Floats], set[int], set[int]]]:
    """Yield the severity's name, severities by set, and the quarters that choose and that are held out."""
    halves = {0, 1}, {2, 3}
    values = {name: table.excess for name, table in tables.items()}
    for half, other in itertools.permutations(halves):
        yield "score", values, half, other
    for half, other in itertools.permutations(halves):
        fitting = {name: np.isin(quarters(tables[name]), list(half)) for name in ordinary}
        judged = severities(tables, objects, fitting)
        for choosing, held_out in itertools.permutations(other):
            yield "meta", judged, {choosing}, {held_out}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("segments", type=Path)
    parser.add_argument("--ordinary", nargs="+", default=["cityscapes_val", "drive"])
    parser.add_argument("--objects", nargs="+", default=["fishyscapes_static", "road_obstacle21"])
    parser.add_argument("--unit", choices=("frame", "scene"), default="frame")
    parser.add_argument("--confidence", type=float, default=0.9)
    options = parser.parse_args()
    tables = {
        name: table_file.read_table(options.segments / f"{name}.h5") for name in options.ordinary + options.objects
    }
    # 1. of all ordinary frames: the quarter, and the name of the unit
    part = np.concatenate([quarters(tables[name]) for name in options.ordinary])
    units = [
        f"{name} {unit}"
        for name in options.ordinary
        for unit in (tables[name].image_ids if options.unit == "frame" else tables[name].scenes)
    ]
    print(
        f"| severity | budget | chosen on quarter | threshold | promised | held out | {' | '.join(options.objects)} |"
    )
    print("|" + "---|" * (6 + len(options.objects)))
    refused: dict[str, None] = {}
    for kind, values, choosing, held_out in splits(tables, options.objects, options.ordinary):
        false = [one for name in options.ordinary for one in risk.false_severities(tables[name], values[name])]
        chosen, test = (np.flatnonzero(np.isin(part, list(of))) for of in (choosing, held_out))
        for budget in BUDGETS:
            # 2. the point, the alarms elsewhere, and the objects that are found
            try:
                point = risk.choose_threshold(
                    [false[i] for i in chosen], [units[i] for i in chosen], budget, options.confidence
                )
            except ValueError as error:
                refused[str(error)] = None
                continue
            alarms = int((risk.highest([false[i] for i in test]) >= point.threshold).sum())
            found = [risk.recall(tables[name], values[name], point.threshold) for name in options.objects]
            print(
                f"| {kind} | {budget} | {', '.join(str(q + 1) for q in sorted(choosing))} | {point.threshold:.3g} |"
                f" {point.alarms} of {point.frames}, at most {point.bound:.2f} |"
                f" {alarms} of {len(test)} = {alarms / len(test):.2f} |"
                + "".join(f" {value:.2f} ({low:.2f} to {high:.2f}) |" for value, low, high in found)
            )
    of_all = ", ".join(f"{name} {1 - float(tables[name].is_missed.mean()):.2f}" for name in options.objects)
    print(f"\nAll segments, whatever their severity, find: {of_all}")
    print("\n".join(f"refused: {reason}" for reason in refused))


if __name__ == "__main__":
    main()
