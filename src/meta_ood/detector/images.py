"""Images of your own: find them in folders, read them, and write what a detector finds in them."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from meta_ood.data import files
from meta_ood.data.context import progress
from meta_ood.data.images import read_image, to_rgb
from meta_ood.evaluation.overlays import Picture, encode_png

if TYPE_CHECKING:
    from meta_ood.detector.detector import Detection, Detector

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".tif", ".tiff", ".webp")
"""Files with these endings are the images of a folder."""

_log = logging.getLogger(__name__)


def as_rgb(image: Picture | Image.Image | Path | str) -> Picture:
    """Return an array, a PIL image or an image file as ``(H, W, 3) uint8`` RGB, upright.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no such image; says what is expected.
    """
    if isinstance(image, Path | str):
        return read_image(Path(image))
    if isinstance(image, Image.Image):
        return to_rgb(image)
    array = np.asarray(image)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or not array.size:
        raise ValueError(
            "expected an image as (H, W, 3) uint8 RGB, a PIL image or a path, got an array of "
            f"shape {array.shape} and dtype {array.dtype}"
        )
    return array


def find_images(paths: Sequence[Path]) -> list[tuple[str, Path]]:
    """Return name and file of every image; folders are searched with their subfolders, sorted.

    A name is the path below the given folder (or the file's name) without its ending; where ``a.jpg`` lies beside
    ``a.png``, both keep it.

    Raises:
        FileNotFoundError: If a path does not exist, or there is no image at all.
        ValueError: If two images would have the same name.
    """
    named: list[tuple[Path, Path]] = []
    for path in paths:
        if path.is_dir():
            images = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES)
            named += [(image.relative_to(path), image) for image in images]
        elif path.is_file():
            named.append((Path(path.name), path))
        else:
            raise FileNotFoundError(f"{path}: no such file or folder")
    # names are paths without ending, except where several images have the same
    stems = [name.with_suffix("") for name, _ in named]
    found: dict[str, Path] = {}
    for (name, image), stem in zip(named, stems, strict=True):
        key = (stem if stems.count(stem) == 1 else name).as_posix()
        if found.setdefault(key, image) != image:
            raise ValueError(
                f"{image} and {found[key]} would both be written as {key!r}: give a folder that contains both"
            )
    if not found:
        raise FileNotFoundError(f"no image ({', '.join(SUFFIXES)}) in the paths given")
    return list(found.items())


def detect_images(paths: Sequence[Path], detector: Detector, out: Path) -> Counter[str]:
    """Write what a detector finds in images; a result that is already there is not made again.

    Writes ``NAME_before.png`` and ``NAME_after.png`` (OoD masks before and after meta classification, 255 = OoD),
    ``NAME_overlay.png``, ``NAME_classes.png`` and, last, ``NAME.json``. An image that cannot be read is logged.

    Args:
        paths: Images and folders of images, see :func:`find_images`.
        detector: Applied to each image.
        out: Folder to write into.

    Returns:
        Numbers of "images" and of "unreadable" ones; of "segments", "removed" ones and those "unlike" training.
    """
    counts: Counter[str] = Counter()
    for name, path in progress(find_images(paths), "detect"):
        target = out / f"{name}.json"
        # a result counts as done if image and detector are the same, whatever the times of the files
        origin = {"image": path.name, "image_sha256": files.file_hash(path)}
        values = _values_of(target)
        if any(values.get(k) != v for k, v in {**origin, "detector": detector.identity}.items()):
            try:
                picture = read_image(path)
            except (OSError, ValueError) as error:
                _log.error("%s", error)
                counts["unreadable"] += 1
                continue
            values = write_detection(target, detector(picture), origin)
        counts["images"] += 1
        for segment in values["segments"]:
            counts.update(segments=1, removed=not segment["kept"], unlike=segment["unlike_training"])
    return counts


def write_detection(target: Path, found: Detection, origin: dict[str, Any]) -> dict[str, Any]:
    """Write the pictures of a detection, then its JSON file, which starts with `origin`; return its values."""
    for kind, content in (
        ("before", encode_png(found.mask.astype(np.uint8) * 255)),
        ("after", encode_png(found.kept_mask.astype(np.uint8) * 255)),
        ("overlay", encode_png(found.overlay())),
        ("classes", encode_png(found.classes, palette=True)),
    ):
        files.write_bytes(target.with_name(f"{target.stem}_{kind}.png"), content)
    values = {**origin, **found.to_dict()}
    files.write_json(target, values)
    return values


def _values_of(target: Path) -> dict[str, Any]:
    """Return the values of a JSON file of :func:`write_detection`; empty where it is missing or damaged."""
    try:
        values = files.read_json(target)
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}
