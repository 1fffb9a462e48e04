"""The detector and the photos that the package carries, and what `meta-ood detect --demo` shows of them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from meta_ood.data import files
from meta_ood.data.images import read_image
from meta_ood.data.overlays import Picture
from meta_ood.detector.images import find_images

DETECTOR = Path(__file__).with_name("demo_files")  # a detector's folder; README.md there says how it was made
PHOTOS = DETECTOR / "photos"
PICTURE = "demo.png"
_SCALE = 2  # the photos are small: each pixel becomes 2 x 2


def picture(out: Path) -> Picture:
    """Return what `detect_images` wrote into `out` for the photos: a row for each, the photo beside its overlay."""
    pairs = [(path, out / f"{name}_overlay.png") for name, path in find_images([PHOTOS])]
    rows = [np.concatenate([read_image(path) for path in pair], axis=1) for pair in pairs]
    whole: Picture = np.concatenate(rows).repeat(_SCALE, axis=0).repeat(_SCALE, axis=1)
    return whole


def report(out: Path) -> Iterator[str]:
    """Yield lines on the kept segments in `out`, and for each photo on the largest one that was removed."""
    for name, path in find_images([PHOTOS]):
        segments = files.read_json(out / f"{name}.json")["segments"]
        kept = [segment for segment in segments if segment["kept"]]
        removed = [segment for segment in segments if not segment["kept"]]
        yield f"{path.name}: {len(segments)} segments, {len(kept)} kept, {len(removed)} removed as false alarms"
        largest = sorted(removed, key=lambda segment: -int(segment["size"]))[:1]
        for segment in sorted(kept, key=lambda segment: float(segment["false_alarm"])) + largest:
            yield from _lines(segment)


def _lines(segment: dict[str, Any]) -> Iterator[str]:
    """Yield a decision, and its reasons with what they add to the log odds of a false alarm."""
    top, left, bottom, right = segment["box"]
    decision, place = "kept" if segment["kept"] else "removed", f"rows {top}-{bottom}, columns {left}-{right}"
    yield f"  {decision}: {segment['size']} px in {place}, P(false alarm) {segment['false_alarm']:.1%}"
    for reason in segment["reasons"]:
        yield f"    {reason['log_odds']:+5.1f}  {reason['description']} {reason['value']:.3g}"
