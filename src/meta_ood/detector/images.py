"""Find images in folders, apply a detector to them, and write the results."""

import logging
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from meta_ood.data import files
from meta_ood.data.context import progress
from meta_ood.data.images import read_image
from meta_ood.data.overlays import encode_png
from meta_ood.detector.detector import Detector
from meta_ood.meta_classification.promise import frame_statistics, monitor
from meta_ood.metrics import Floats

COUNTED = ("images", "alarm", "unreadable", "segments", "removed", "unlike")  # by detect_images
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".tif", ".tiff", ".webp")  # of the images in a folder


def find_images(paths: Sequence[Path]) -> list[tuple[str, Path]]:
    """Return name and file of every image; folders are searched with their subfolders, sorted.

    A name is the path below the given folder (or the file's name) without its ending; where ``a.jpg`` lies beside
    ``a.png``, both keep it.

    FileNotFoundError if a path does not exist or there is no image at all, ValueError if two would have the same name.
    """
    named: list[tuple[Path, Path]] = []
    for path in paths:
        if path.is_dir():
            below = sorted(path.rglob("*"))
            named += [(image.relative_to(path), image) for image in below if image.suffix.lower() in SUFFIXES]
        elif path.is_file():
            named.append((Path(path.name), path))
        else:
            raise FileNotFoundError(f"{path}: no such file or folder")
    # names are paths without ending, except where several images have the same
    stems = Counter(name.with_suffix("") for name, _ in named)
    found: dict[str, Path] = {}
    for name, image in named:
        stem = name.with_suffix("")
        key = (stem if stems[stem] == 1 else name).as_posix()
        if found.setdefault(key, image) != image:
            raise ValueError(f"{image} and {found[key]} would both be written as {key!r}: give a folder with both")
    if not found:
        raise FileNotFoundError(f"no image ({', '.join(SUFFIXES)}) in the paths given")
    return list(found.items())


def detect_images(paths: Sequence[Path], detector: Detector, out: Path) -> tuple[Counter[str], list[str]]:
    """Write the results of a detector for images and folders of images, as far as they are not there yet.

    Writes into `out` ``NAME_before.png`` and ``NAME_after.png`` (OoD masks before and after meta classification, 255 =
    OoD), ``NAME_overlay.png``, ``NAME_classes.png`` and, last, ``NAME.json``. An image that cannot be read is logged.

    Returns numbers of "images", of those with an "alarm" and of "unreadable" ones; of "segments", "removed" ones and
    those "unlike" training; and reasons to distrust the detector's promise on these images, see :func:`monitor`.
    """
    counts: Counter[str] = Counter()
    statistics: list[Floats] = []
    promise = detector.settings.promise
    for name, path in progress(find_images(paths), "detect"):
        target = out / f"{name}.json"
        values: Any = None
        with suppress(OSError, ValueError):  # missing or damaged: made again
            values = files.read_json(target)
        try:
            if not path.is_file():  # to open a named pipe would last for ever
                raise FileNotFoundError(f"{path}: not a file, or a link to a file that is gone")
            # a result counts as done if image and detector are the same, whatever the times of the files
            origin = {"image": path.name, "image_sha256": files.file_hash(path)}
            expected = {**origin, "detector": detector.identity}
            is_done = isinstance(values, dict) and all(values.get(k) == v for k, v in expected.items())
            picture = None if is_done else read_image(path)
        except (OSError, ValueError) as error:
            logging.getLogger(__name__).error("%s", error)
            counts["unreadable"] += 1
            continue
        if picture is not None:
            found = detector(picture)
            for kind, content in (
                ("before", encode_png(found.mask.astype(np.uint8) * 255)),
                ("after", encode_png(found.kept_mask.astype(np.uint8) * 255)),
                ("overlay", encode_png(found.overlay())),
                ("classes", encode_png(found.classes, palette=True)),
            ):
                files.write_bytes(out / f"{name}_{kind}.png", content)
            values = {**origin, **found.to_dict()}
            files.write_json(target, values)
        segments = values["segments"]
        counts.update(images=1, alarm=any(segment["kept"] for segment in segments))
        for segment in segments:
            counts.update(segments=1, removed=not segment["kept"], unlike=segment["unlike_training"])
        if promise:
            columns = ([s[key] for s in segments] for key in ("severity", "score", "size"))
            row = [(s["box"][0] + s["box"][2]) / 2 for s in segments]
            statistics.append(frame_statistics(*(np.array(own, np.float64) for own in (*columns, row))))
    return counts, monitor(promise, np.array(statistics), counts["alarm"]) if promise else []
