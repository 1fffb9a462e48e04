"""Pictures of a few frames: target, score, classes and segments beside the image."""

from pathlib import Path

from meta_ood.config import SegmentsParams
from meta_ood.data import overlays
from meta_ood.data.images import read_image, write_image
from meta_ood.data.labels import IGNORE
from meta_ood.data.predictions import Prediction
from meta_ood.metrics import Flags
from meta_ood.scores import PixelMaps, find_score, pixel_maps
from meta_ood.segments import SegmentTable, label_map, predicted_ood


def choose_pictures(table: SegmentTable, count: int) -> list[int]:
    """Return rising indices of frames for pictures: with OoD first, evenly spread.

    They depend on the true components alone, so that they are the same for every network and variant.
    """
    with_ood = set(table.component_image.tolist())
    chosen: list[int] = []
    for wanted in (True, False):
        pool = [i for i in range(len(table.image_ids)) if (i in with_ood) is wanted]
        n = min(count - len(chosen), len(pool))
        # the middles of n equal parts of the pool
        chosen += [pool[(2 * k + 1) * len(pool) // (2 * n)] for k in range(n)]
    return sorted(chosen)


def write_pictures(
    folder: Path,
    prediction: Prediction,
    image: Path,
    removed: Flags,
    segments: SegmentsParams,
    maps: PixelMaps | None = None,
) -> None:
    """Write ``<image_id>_{image,target,score,classes,segments}.png`` of one frame into a folder.

    Args:
        folder: Where to write.
        prediction: One frame.
        image: Its image; a missing file leaves the picture "image" out.
        removed: ``(S,) bool`` of the frame's segments, in raster order of their first pixel.
        segments: Score and threshold.
        maps: Pixel maps of the prediction that are there already.

    Raises:
        ValueError: If the frame has another number of segments.
    """
    # 1. score, classes and segments, as the stage `segments` finds them
    score = find_score(segments.score)
    maps = maps or pixel_maps(prediction, {*score.needs, "arg_max"})
    score_map, target = score(maps), prediction.target
    labels = label_map(predicted_ood(score_map, segments.threshold, target))
    if labels.max(initial=0) != len(removed):
        raise ValueError(f"{prediction.image_id}: {labels.max(initial=0)} segments, but the table has {len(removed)}")
    # 2. thinning to at most so many columns [px] as a report page shows, and the colour range of the score
    step = -(-target.shape[1] // 1024)
    small = (slice(None, None, step),) * 2
    valid = score_map[target != IGNORE] if (target != IGNORE).any() else score_map
    low, high = (0.0, 1.0) if score.is_unit else (float(valid.min()), float(valid.max()))
    # 3. colours; segments are drawn over the image
    photo = read_image(image)[small] if image.is_file() else None
    panels = {
        "image": photo,
        "target": overlays.label_map(target[small]),
        "score": overlays.score_map(score_map[small], low, high if high > low else low + 1),
        "classes": overlays.label_map(maps.arg_max[small]),
        "segments": overlays.segments_map(photo, labels[small], removed, target[small]),
    }
    for kind, panel in panels.items():
        if panel is not None:
            write_image(folder / f"{prediction.image_id}_{kind}.png", panel)
