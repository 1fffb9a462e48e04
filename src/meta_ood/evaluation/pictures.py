"""Pictures of a few frames: target, score, classes and segments beside the image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from meta_ood.config import SegmentsParams
from meta_ood.data.labels import IGNORE
from meta_ood.data.prediction_files import PredictionFolder
from meta_ood.data.predictions import Prediction
from meta_ood.evaluation import overlays
from meta_ood.scores import SCORES, pixel_maps
from meta_ood.segments import SegmentTable, label_map, predicted_ood

Flags = npt.NDArray[np.bool_]

MAX_WIDTH = 1024
"""Pictures are thinned to at most so many columns [px]."""
UNIT = ("entropy", "max_softmax", "margin")
"""Scores whose pictures span [0, 1]; the others span their own range."""


def choose_pictures(table: SegmentTable, count: int) -> list[int]:
    """Choose frames for pictures: with OoD first, evenly spread, by the true components alone.

    The same frames are chosen for every network and variant.

    Returns
    -------
    Rising indices into ``table.image_ids``.
    """
    with_ood = set(table.component_image.tolist())
    chosen: list[int] = []
    for wanted in (True, False):
        pool = [i for i in range(len(table.image_ids)) if (i in with_ood) is wanted]
        n = min(count - len(chosen), len(pool))
        chosen += [pool[(2 * k + 1) * len(pool) // (2 * n)] for k in range(n)]
    return sorted(chosen)


def write_pictures(
    folder: Path,
    predictions: PredictionFolder,
    images: Mapping[str, Path],
    table: SegmentTable,
    removed: Flags,
    chosen: Sequence[int],
    segments: SegmentsParams,
) -> None:
    """Write the pictures of the `chosen` frames.

    Parameters
    ----------
    folder
        Where to; it is made.
    predictions, table
        All frames, in one order.
    images
        Image id -> image file.
    removed
        ``(S,) bool`` of all segments of the table.
    chosen
        Indices into ``table.image_ids``.
    segments
        Score and threshold that make the segments.

    Raises
    ------
    ValueError
        If a frame has another number of segments than the table.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for index in chosen:
        of_frame = removed[table.image == index]
        image = images[table.image_ids[index]]
        write_frame(folder, predictions[index], image, of_frame, segments.score, segments.threshold)


def write_frame(
    folder: Path,
    prediction: Prediction,
    image: Path,
    removed: Flags,
    score: str,
    threshold: float,
) -> None:
    """Write ``<image_id>_{image,target,score,classes,segments}.png``, at most 1024 columns wide.

    Parameters
    ----------
    folder
        Where to.
    prediction, image
        One frame and its image file; a missing image file leaves its picture out.
    removed
        ``(S,) bool`` of the frame's segments, in raster order of their first pixel.
    score, threshold
        What makes the segments.

    Raises
    ------
    ValueError
        If the frame has another number of segments.
    """
    maps = pixel_maps(prediction, (*SCORES[score].needs, "arg_max"))
    assert maps.arg_max is not None
    score_map = SCORES[score](maps)
    target = prediction.target
    labels = label_map(predicted_ood(score_map, threshold, target))
    count = int(labels.max(initial=0))
    if count != len(removed):
        raise ValueError(
            f"{prediction.image_id}: {count} segments, but the table has {len(removed)}"
        )
    step = -(-target.shape[1] // MAX_WIDTH)
    small = (slice(None, None, step),) * 2
    picture = None
    if image.is_file():
        with Image.open(image) as file:
            picture = np.asarray(file.convert("RGB"))[small]
    valid = score_map[target != IGNORE]
    low, high = (0.0, 1.0) if score in UNIT else (float(valid.min()), float(valid.max()))
    panels = {
        "target": overlays.label_map(target[small]),
        "score": overlays.score_map(score_map[small], low, high if high > low else low + 1),
        "classes": overlays.label_map(maps.arg_max[small]),
        "segments": overlays.segments_map(picture, labels[small], removed, target[small]),
    }
    if picture is not None:
        panels["image"] = picture
    for kind, panel in panels.items():
        overlays.write_png(folder / f"{prediction.image_id}_{kind}.png", panel)
