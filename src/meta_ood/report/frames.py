"""What the page's gallery of frames and its slider show: a table of all segments, and some frames in detail.

For each evaluation set at most MOST_FRAMES frames are shown, so that the page keeps within its budget of bytes however
many frames a set has; the table that the slider counts in has the segments of all of them.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from meta_ood.data.files import read_json
from meta_ood.data.frames import read_frames
from meta_ood.data.images import image_size
from meta_ood.evaluation.masks import Runs, read_masks, thinned_size
from meta_ood.evaluation.summary import read_removed
from meta_ood.meta_classification import MetaClassifier
from meta_ood.meta_classification.explanation import contributions_of
from meta_ood.meta_classification.features import describe_feature
from meta_ood.metrics import Flags, Floats, segment
from meta_ood.report.pictures import thumbnail
from meta_ood.report.results import Evaluation, Results
from meta_ood.segments import SegmentTable
from meta_ood.segments.table_file import read_table

MOST_FRAMES = 48
"""Frames of an evaluation set in the gallery."""
SIZES = ((1, 100, "1 to 99"), (100, 1000, "100 to 999"), (1000, 10_000, "1,000 to 9,999"), (10_000, 1e9, "from 10,000"))
"""Groups of objects by size [px] in the gallery's filter: from, below, in words."""
_RANDOM = 12  # of them, drawn at random
_MOST_EXPLAINED = 30  # segments of a frame with features: true ones, and the likeliest to be objects
_FEATURES = 6  # of a segment, those that decide most; the first three are its reasons


class Gallery(NamedTuple):
    """What the page's script reads."""

    values: dict[str, Any]  # plain; what the keys hold is said where they are made
    thumbnails: list[list[str]]  # of each set, of its frames: base64 of a WebP file


class Cell(NamedTuple):
    """The segments of an evaluation, as judged by it."""

    evaluation: Evaluation
    table: SegmentTable
    probability: Floats  # (S,) of being false
    removed: Flags  # (S,)
    point: float  # of the meta classifier: a segment is removed if its probability is above
    classifier: MetaClassifier  # for new images: its reasons are shown
    runs: dict[str, Runs]

    @property
    def own_point(self) -> float | None:
        """An operating point that makes exactly these decisions; None if none does, as with one for each fold."""
        kept = float(self.probability[~self.removed].max(initial=-1.0))
        if kept >= self.probability[self.removed].min(initial=2.0):
            return None
        # probabilities are rounded to 9 digits, the point is not: it may lie on the wrong side of one
        return self.point if ((self.probability > self.point) == self.removed).all() else kept


def read_cells(results: Results, segments: Path, meta: Path) -> list[Cell]:
    """Read the segments of the evaluations that have masks, which those of earlier versions have not.

    `segments` and `meta` are the folders of these stages; FileNotFoundError or ValueError names a file that is missing
    or does not fit.
    """
    cells = []
    for one in results.ordered:
        if one.masks is None:
            continue
        folder = meta / one.network / one.variant
        table = read_table(segments / one.network / one.variant / f"{one.dataset}.h5")
        probability, removed = read_removed(folder / one.dataset, table)
        point = float(read_json(folder / one.dataset / "metrics.json")["operating_point"])
        # one classifier of all sets lies above those of the sets
        place = folder if "train_on" in one.metrics else folder / one.dataset
        classifier, runs = MetaClassifier.read(place / "classifier.json"), read_masks(one.masks)
        table = table.with_features(classifier.feature_names)
        if set(runs) != set(table.image_ids):
            raise ValueError(f"{one.masks} is of other frames than the segments of {'/'.join(one.key)}: evaluate again")
        cells.append(Cell(one, table, probability, removed, point, classifier, runs))
    return cells


def operating_points(own: Iterable[float]) -> Floats:
    """Return the rising positions of the slider: dense at both ends, where most probabilities are, and `own` ones.

    At the first, -1, no segment is kept, at the last, 1, all are. Those between are the logistic function of evenly
    spaced numbers, with as many digits as probabilities have.
    """
    even = np.round(1 / (1 + np.exp(-np.linspace(-14, 14, 400))), 9)
    return np.unique([-1.0, 0.0, 1.0, *even, *own])


def choose_frames(cells: Sequence[Cell], seed: int) -> tuple[list[int], list[int]]:
    """Return rising indices of the frames to show of a set, and which of them were drawn at random, in their order.

    The others are, of each cell in turn, the frame with the next largest missed object, the next most false segments
    kept, and the next smallest object found.
    """
    count = len(cells[0].table.image_ids)
    drawn = np.random.default_rng(seed).permutation(count)[:_RANDOM].tolist()
    rankings = [ranking for cell in cells for ranking in _rankings(cell)]
    # None: a ranking that is at its end; all frames come last, for sets that fit as a whole
    wanted = chain(drawn, chain.from_iterable(zip_longest(*rankings)), range(count if count <= MOST_FRAMES else 0))
    chosen = list(dict.fromkeys(index for index in wanted if index is not None))[:MOST_FRAMES]
    return sorted(chosen), drawn


def _rankings(cell: Cell) -> list[list[int]]:
    table, count = cell.table, len(cell.table.image_ids)
    missed = segment.missed(table, ~cell.removed)
    alarm = table.is_false & ~cell.removed
    values = np.full((3, count), -np.inf)
    np.maximum.at(values[0], table.component_image[missed], table.component_size[missed])
    alarms = np.bincount(table.image[alarm], minlength=count)
    values[1] = np.where(alarms > 0, alarms, -np.inf)
    np.maximum.at(values[2], table.component_image[~missed], -table.component_size[~missed].astype(np.float64))
    return [[int(i) for i in np.argsort(-row, kind="stable") if row[i] > -np.inf] for row in values]


def gallery(cells: Sequence[Cell], prepared: Path, seed: int) -> Gallery | None:
    """Return slider and frames of cells; None without any.

    `prepared` is the folder of the prepared datasets; `seed` draws the frames that no error chooses.
    """
    if not cells:
        return None
    points = operating_points(p for cell in cells if (p := cell.own_point) is not None)
    names = cells[0].table.feature_names
    sets: list[dict[str, Any]] = []
    thumbnails: list[list[str]] = []
    values = []
    for dataset in dict.fromkeys(cell.evaluation.dataset for cell in cells):
        of_set = [cell for cell in cells if cell.evaluation.dataset == dataset]
        image_ids = of_set[0].table.image_ids
        if any(cell.table.image_ids != image_ids for cell in of_set):
            raise ValueError(f"evaluations of {dataset} are of different frames: evaluate again")
        shown, drawn = choose_frames(of_set, seed)
        images = {frame.image_id: frame.image for frame in read_frames(prepared / dataset, Path.cwd())}
        paths = [images[image_ids[index]] for index in shown]
        full = [image_size(path) for path in paths]
        sizes = [thinned_size(size) for size in full]
        thumbnails.append([thumbnail(path, size) for path, size in zip(paths, sizes, strict=True)])
        # frames: [index in the set, image id, rows, columns of the thumbnail]
        frames = [[index, image_ids[index], *size] for index, size in zip(shown, sizes, strict=True)]
        sets.append({"name": dataset, "frames": frames, "random": drawn})
        steps = [-(-columns // small) for (_, columns), (_, small) in zip(full, sizes, strict=True)]
        values += [_cell_values(cell, len(sets) - 1, shown, steps, points) for cell in of_set]
    words = [describe_feature(name, cells[0].classifier.class_names) for name in names]
    data = {"points": points.tolist(), "features": list(zip(names, words, strict=True)), "sets": sets, "cells": values}
    return Gallery(data, thumbnails)


def _cell_values(cell: Cell, of_set: int, shown: Sequence[int], steps: Sequence[int], points: Floats) -> dict[str, Any]:
    table, count = cell.table, len(cell.table.image_ids)
    # a segment is kept at all positions from this one on: those that are not below its probability
    first = np.searchsorted(points, cell.probability)
    # an object is found from the first of its segments on; without any it is found nowhere
    found = np.full(len(table.component_image), len(points))
    np.minimum.at(found, table.overlaps[:, 1], first[table.overlaps[:, 0]])
    own, explained = cell.own_point, _explanations(cell, shown)
    return {
        **{"set": of_set, "network": cell.evaluation.network, "variant": cell.evaluation.variant},
        "own": int(np.searchsorted(points, cell.point if own is None else own)),
        "isExact": own is not None,
        # of each frame the number of segments, then of each segment twice its first position, plus 1 if it is false
        "counts": np.bincount(table.image, minlength=count).tolist(),
        "segments": (2 * first + table.is_false).tolist(),
        # the same of objects: numbers, first positions, sizes [px]
        "objects": np.bincount(table.component_image, minlength=count).tolist(),
        "found": found.tolist(),
        "sizes": table.component_size.tolist(),
        "details": [_details(cell, index, step, explained) for index, step in zip(shown, steps, strict=True)],
    }


def _details(cell: Cell, index: int, step: int, explained: Mapping[int, list[list[float]]]) -> dict[str, Any]:
    """Return what is known of the segments of one frame, in the table's order."""
    table, rows = cell.table, np.flatnonzero(cell.table.image == index)
    return {
        "runs": _packed(cell.runs[table.image_ids[index]]),
        "size": table.segment_size[rows].tolist(),
        "probability": [float(f"{p:.4g}") for p in cell.probability[rows]],
        "score": table.segment_score[rows].round(3).tolist(),
        "iou": table.iou[rows].round(3).tolist(),
        # object boxes in pixels of the thumbnail: first row, first column, end row, end column
        "boxes": (table.component_box[table.component_image == index] / step).round(1).tolist(),
        # of each segment [feature, log odds, value] of those that decide most; 0 where none are told
        "features": [explained.get(row, 0) for row in rows.tolist()],
    }


def _explanations(cell: Cell, shown: Sequence[int]) -> dict[int, list[list[float]]]:
    """Return segment -> what decided about it, for the most telling segments of these frames."""
    table, chosen = cell.table, []
    for index in shown:
        rows = np.flatnonzero(table.image == index)
        # true segments first, then those that are likeliest to be objects
        chosen.append(rows[np.lexsort((cell.probability[rows], table.is_false[rows]))[:_MOST_EXPLAINED]])
    rows = np.concatenate(chosen)
    found = {}
    for row, odds in zip(rows.tolist(), contributions_of(cell.classifier, table.features[rows]), strict=True):
        order = np.argsort(-np.abs(odds), kind="stable")[:_FEATURES]
        values = table.features[row]
        found[row] = [[int(k), round(float(odds[k]), 2), float(f"{values[k]:.3g}")] for k in order if odds[k]]
    return found


def _packed(runs: Runs) -> list[int]:
    """Return the runs as one list: distance from the end of the run before, length, label, and so on."""
    ends = np.concatenate([[0], runs[:-1, 0] + runs[:-1, 1]]) if len(runs) else np.zeros(0, np.int64)
    return np.stack([runs[:, 0] - ends, runs[:, 1], runs[:, 2]], axis=1).ravel().tolist()
