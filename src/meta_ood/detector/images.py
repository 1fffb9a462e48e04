"""Images of your own: find them in folders, read them, and write what a detector finds in them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
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


def detect_images(paths: Sequence[Path], detector: Detector, out: Path) -> Iterator[Path | None]:
    """Write what a detector finds in images; a result that is already there is not made again.

    Writes ``NAME_before.png`` and ``NAME_after.png`` (OoD masks before and after meta classification, 255 = OoD),
    ``NAME_overlay.png``, ``NAME_classes.png`` and, last, ``NAME.json``.

    Args:
        paths: Images and folders of images.
        detector: Applied to each image.
        out: Folder to write into.

    Yields:
        The JSON file of each image; None for an image that cannot be read, after a message.

    Raises:
        ValueError, FileNotFoundError: As :func:`find_images`.
    """
    for name, path in progress(find_images(paths), "detect"):
        target = out / f"{name}.json"
        # a result counts as done if image and detector are the same, whatever their files' times
        origin = {"image": path.name, "image_sha256": files.file_hash(path)}
        if _is_done(target, {**origin, "detector": detector.identity}):
            yield target
            continue
        try:
            picture = read_image(path)
        except (OSError, ValueError) as error:
            _log.error("%s", error)
            yield None
            continue
        write_detection(target, detector(picture), origin)
        yield target


def write_detection(target: Path, found: Detection, origin: dict[str, Any]) -> None:
    """Write the pictures of a detection, then its JSON file, which starts with `origin`."""
    for kind, content in (
        ("before", encode_png(found.mask.astype(np.uint8) * 255)),
        ("after", encode_png(found.kept_mask.astype(np.uint8) * 255)),
        ("overlay", encode_png(found.overlay())),
        ("classes", encode_png(found.classes, palette=True)),
    ):
        files.write_bytes(target.with_name(f"{target.stem}_{kind}.png"), content)
    files.write_json(target, {**origin, **found.to_dict()})


def summary(targets: Iterable[Path | None]) -> dict[str, int]:
    """Count images, segments, removed and unlike ones in JSON files of :func:`detect_images`."""
    counts = dict.fromkeys(("images", "unreadable", "segments", "removed", "unlike"), 0)
    for target in targets:
        if target is None:
            counts["unreadable"] += 1
            continue
        segments = files.read_json(target)["segments"]
        counts["images"] += 1
        counts["segments"] += len(segments)
        counts["removed"] += sum(not segment["kept"] for segment in segments)
        counts["unlike"] += sum(segment["unlike_training"] for segment in segments)
    return counts


def _is_done(path: Path, expected: dict[str, Any]) -> bool:
    try:
        values = files.read_json(path)
    except (OSError, ValueError):
        return False
    return isinstance(values, dict) and all(values.get(k) == v for k, v in expected.items())
