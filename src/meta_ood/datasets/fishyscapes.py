"""Fishyscapes validation data in the layouts that are in use."""

from pathlib import Path
from typing import Any

import numpy as np

from meta_ood.data.arrays import read_npz_member
from meta_ood.data.images import RgbImage, read_image
from meta_ood.data.labels import BINARY
from meta_ood.datasets.reader import Layout, one_of

# what all have in common; ids may begin with a number, which is not part of the scene
_PAIRS: dict[str, Any] = {
    "labels": BINARY,
    "splits": {"Static": 30, "LostAndFound": 100},
    "lead": "targets",
    "scene": r"^(?:\d{4}_)?(?P<scene>.+)_\d{6}_\d{6}$",
}


def fishyscapes() -> Layout:
    """Describe pre-built pairs: ``Static/*.png`` labels beside ``.jpg`` images of the same name."""
    return Layout(name="Fishyscapes", images="{split}/{id}.jpg", targets="{split}/{id}.png", **_PAIRS)


def fishyscapes_processed(*, region: str = "all") -> Layout:
    """Describe SynBoost's ``{Static,LostAndFound}/{original,labels}``; region ``roi`` reads ``labels_with_ROI``."""
    folder = one_of("fishyscapes_processed", "region", region, {"all": "labels", "roi": "labels_with_ROI"})
    images, targets = "{split}/original/{id}.*", f"{{split}}/{folder}/{{id}}.png"
    return Layout(name="Fishyscapes (processed)", images=images, targets=targets, **_PAIRS)


def fishyscapes_lost_and_found() -> Layout:
    """Describe the official labels, unpacked beside LostAndFound's ``leftImg8bit``."""
    return Layout(
        name="Fishyscapes L&F",
        images="leftImg8bit/*/*/{id}_leftImg8bit.png",
        targets="fishyscapes_lostandfound/{number}_{id}_labels.png",
        **_PAIRS | {"splits": {"val": 100}},
    )


def fishyscapes_static(*, version: str = "v3") -> Layout:
    """Describe the official overlays in ``fs_val_{version}``, unpacked beside Cityscapes' ``leftImg8bit``.

    `version` is ``v1`` (2019-03, hard paste), ``v2`` (2019-06, blended) or ``v3`` (2020-01, Cityscapes objects as
    negatives too).
    """
    folder = one_of("fishyscapes_static", "version", version, {name: f"fs_val_{name}" for name in ("v1", "v2", "v3")})
    return Layout(
        name=f"Fishyscapes Static {version}",
        images="leftImg8bit/val/*/{id}_leftImg8bit.png",
        targets=f"{folder}/{{number}}_{{id}}_labels.png",
        compose=overlaid,
        **_PAIRS | {"splits": {"val": 30}},
    )


def overlaid(image: Path, labels: Path) -> RgbImage:
    """Return a Cityscapes image plus the overlay that lies beside a label file, clipped to 0..255, ``(H, W, 3) uint8``.

    Raises:
        FileNotFoundError, ValueError: If the overlay is missing, broken, or not of the image's size; the file is named.
    """
    path = labels.with_name(labels.name.replace("_labels.png", "_rgb.npz"))
    if not path.is_file():
        raise FileNotFoundError(f"Fishyscapes Static: {path} is missing, the overlay of {labels}")
    overlay, pixels = read_npz_member(path, "rgb"), read_image(image)
    if overlay.shape != pixels.shape or overlay.dtype.kind not in "iuf":
        raise ValueError(f"{path}: overlay {overlay.shape} {overlay.dtype}, but {image} is {pixels.shape}")
    if not np.isfinite(overlay).all():
        raise ValueError(f"{path}: NaN or infinity in the overlay")
    # a sum of bytes would wrap around
    wide = np.int32 if np.issubdtype(overlay.dtype, np.integer) else np.float64
    return np.asarray(np.clip(pixels.astype(wide) + overlay.astype(wide), 0, 255), np.uint8)
