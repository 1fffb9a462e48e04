"""Alarms of a scan for people who label them, as a folder in COCO's format that CVAT and FiftyOne read."""

import itertools
import logging
import shutil
from collections import Counter
from contextlib import closing
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from meta_ood.data import files
from meta_ood.data.context import progress
from meta_ood.data.images import RgbImage, is_upright, read_numbers, write_image
from meta_ood.detector.scan.engine import MANIFEST
from meta_ood.detector.scan.manifest import ManifestFrame, frames_of, read_manifest
from meta_ood.detector.scan.parts import PICTURES
from meta_ood.detector.scan.sources import Reader, is_remote
from meta_ood.detector.scan.summary import ALARM, dataset
from meta_ood.segments import label_map

LAYOUTS = {"cvat": ("images", "annotations/instances_default.json"), "fiftyone": ("data", "labels.json")}
"""Who reads a folder -> its subfolder of images and its json, as the importers of both document them."""
CATEGORIES = ("alarm", "ood", "false alarm")  # not judged yet, an object, none; their ids count from 1
_COPIED = (".jpg", ".jpeg", ".png")  # images that every tool reads

logger = logging.getLogger(__name__)


def export_alarms(scan: Path, out: Path, layout: str) -> Counter[str]:
    """Write the frames of a scan with an alarm, and their alarms as annotations; return the counts of both.

    Boxes, and where the scan wrote pictures also masks as run lengths. The images lie in one folder; their names are
    the frame's row in the manifest and its id with ``__`` for each slash.

    Args:
        scan: Folder of `meta-ood scan`.
        out: Folder to write into.
        layout: A key of :data:`LAYOUTS`.

    Raises:
        FileExistsError: `out` has a json of labels.
        ValueError: There is no alarm, or a picture is not that of the scan.
    """
    images, labels = (out / name for name in LAYOUTS[layout])
    if labels.exists():
        raise FileExistsError(f"{labels} is there, with labels perhaps: choose another folder")
    # 1. the alarms, in the order of their frames
    found = dataset(scan, "segments").to_table(ALARM, filter=pc.field("kept"))
    if not len(found):
        raise ValueError(f"{scan}: no alarm")
    rows = found.sort_by([("index", "ascending"), ("segment", "ascending")]).to_pylist()
    manifest = read_manifest(str(scan / MANIFEST))
    # 2. images, and their entries
    listed: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    counts: Counter[str] = Counter()
    with closing(Reader()) as reader:
        by_frame = itertools.groupby(progress(rows, "export", unit="alarm"), itemgetter("index"))
        for index, alarms in by_frame:
            (frame,) = frames_of(manifest, index, 1)
            try:
                pixels, _ = reader(frame.source, frame.position)
            except (OSError, ValueError) as error:  # gone since
                counts["unreadable"] += 1
                logger.warning("%s", error)
                continue
            name = _write_frame(images, frame, index, pixels)
            height, width = pixels.shape[:2]
            size = {"height": height, "width": width}
            listed.append({"id": index + 1, "file_name": name, **size, "frame": frame.id})
            annotations += _annotations(scan / PICTURES / f"{frame.id}_mask.png", list(alarms), len(annotations))
    counts.update(images=len(listed), alarms=len(annotations))
    # 3. the json last: with it the folder is complete
    categories = [{"id": number, "name": name} for number, name in enumerate(CATEGORIES, start=1)]
    files.write_json(labels, {"images": listed, "annotations": annotations, "categories": categories})
    return counts


def _write_frame(folder: Path, frame: ManifestFrame, index: int, pixels: RgbImage) -> str:
    """Write a frame as an image and return its name: a copy of an upright image file, else a PNG."""
    own = Path(frame.source)
    is_file = frame.position is None and not is_remote(frame.source) and own.suffix.lower() in _COPIED
    is_file = is_file and is_upright(own)  # not all tools turn an image as its EXIF data say; annotations are upright
    # file systems take 255 bytes; folders are cut alike, as they are scenes
    parent, slash, name = frame.id.rpartition("/")
    name = f"{_end(parent.replace('/', '__'), 110)}{slash and '__'}{_end(name.removesuffix(own.suffix), 90)}"
    target = folder / f"{index:08d}_{name}{own.suffix if is_file else '.png'}"
    if is_file:
        with files.replacing(target) as temporary:
            shutil.copyfile(own, temporary)
    else:
        write_image(target, pixels)
    return target.name


def _end(name: str, size: int) -> str:
    """Return as much of the end of a name as fits into bytes of UTF-8."""
    return name.encode()[-size:].decode(errors="ignore")


def _annotations(picture: Path, alarms: list[dict[str, Any]], before: int) -> list[dict[str, Any]]:
    """Return the entries of the alarms of a frame; `before` stand before them."""
    masks: list[Any] = [[]] * len(alarms)
    if picture.exists():
        from pycocotools import mask

        labels = label_map(read_numbers(picture) > 0)
        # both are in raster order of the first pixel
        if np.bincount(labels.ravel())[1:].tolist() != [alarm["size"] for alarm in alarms]:
            raise ValueError(f"{picture}: is not that of the scan's alarms")
        runs = [mask.encode(np.asfortranarray(labels == k, np.uint8)) for k in range(1, len(alarms) + 1)]
        masks = [{"size": run["size"], "counts": run["counts"].decode()} for run in runs]
    return [
        {
            "id": before + place,
            "image_id": alarm["index"] + 1,
            "category_id": 1,
            "bbox": [alarm["left"], alarm["top"], alarm["right"] - alarm["left"], alarm["bottom"] - alarm["top"]],
            "area": alarm["size"],
            "segmentation": run,
            "iscrowd": 0,
            "segment": alarm["segment"],
            "severity": alarm["severity"],
        }
        for place, (alarm, run) in enumerate(zip(alarms, masks, strict=True), start=1)
    ]
