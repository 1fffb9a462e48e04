"""Examination of COCO: the json, the folder, and whether they belong together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from meta_ood.data.context import progress
from meta_ood.datasets.checks.findings import Finding, gather
from meta_ood.datasets.checks.inspection import Inspected, inspect_pair
from meta_ood.datasets.checks.layouts import problems
from meta_ood.datasets.coco import EXCLUDES, places
from meta_ood.datasets.instances import Instances, ListedImage, read_instances
from meta_ood.datasets.pool import ordered_map

PUBLISHED = {"train2017": 118287, "val2017": 5000}


def examine_coco(
    root: Path, split: str, options: Mapping[str, Any], sample: int, workers: int
) -> tuple[dict[str, Any], list[Finding]]:
    """Examine one split of COCO.

    Parameters
    ----------
    root, split, options
        What to examine, as the reader takes them.
    sample
        Number of images to decode, 0 = all.
    workers
        Processes that decode.

    Returns
    -------
    What was counted, and what was found.
    """
    if not root.is_dir():
        text = f"{root} is no folder"
        return {}, [Finding("error", "root_missing", text, "check the path, or link the dataset")]
    where = {key: options[key] for key in ("images", "annotations") if key in options}
    folder, json_path = places(root, split, **where)
    if not folder.is_dir():
        return {}, [_nothing(root, split)]
    try:
        instances = read_instances(json_path)
    except FileNotFoundError as error:
        advice, files = "unpack annotations_trainval2017.zip here", (str(json_path),)
        return {}, [Finding("error", "json_missing", str(error), advice, files, 1)]
    except ValueError as error:
        advice, files = "download or unpack it again", (str(json_path),)
        return {}, [Finding("error", "json_broken", str(error), advice, files, 1)]
    images = instances.images
    on_disk = {path.name for path in folder.iterdir() if path.is_file()}
    present = [image for image in images if image.file_name in on_disk]
    findings = _json(instances)
    findings += _disk(folder, images, on_disk, split)
    chosen = present if sample <= 0 else present[:: max(1, -(-len(present) // sample))]
    work = partial(inspect_pair, labels={})
    pairs = [(folder / image.file_name, None) for image in chosen]
    inspected = list(progress(ordered_map(work, pairs, workers), "check COCO", len(pairs)))
    findings += problems(inspected)
    findings += _sizes(chosen, inspected)
    facts = {
        "frames": len(present),
        "published": PUBLISHED.get(split, 0),
        "decoded": len(inspected),
        "annotations": len(instances.starts),
        "categories": len(instances.categories),
    }
    return facts, findings


def _nothing(root: Path, split: str) -> Finding:
    for place in (*sorted(p for p in root.iterdir() if p.is_dir()), root.parent):
        if (place / split).is_dir():
            text = f"no folder {split} here, but there is one below {place}"
            return Finding(
                "error", "wrong_level", text, f"use {place} as the root", (str(place),), 1
            )
    text = f"no folder {split} below {root}"
    return Finding("error", "nothing_found", text, f"unpack {split}.zip here")


def _json(instances: Instances) -> list[Finding]:
    """Look for contradictions inside the json."""
    images = {image.id: image for image in instances.images}
    categories = instances.categories
    ids = Counter(image.id for image in instances.images)
    twice = [f"{instances.path}, image {number}" for number, n in ids.items() if n > 1]
    orphans, nameless, broken = [], [], []
    for annotation in instances.annotations():
        image = images.get(annotation["image_id"])
        name = f"{instances.path}, annotation {annotation.get('id')}"
        if image is None:
            orphans.append(name)
        elif not _fits(annotation.get("segmentation"), image):
            broken.append(name)
        if annotation["category_id"] not in categories:
            nameless.append(name)
    findings = [
        *gather(
            "error",
            "json_same_id",
            "{count} image id(s) occur twice in the json",
            twice,
            "the json was edited or put together from several: take the original",
        ),
        *gather(
            "warning",
            "json_orphans",
            "{count} annotation(s) belong to no image of the json",
            orphans,
            "the json was cut to a subset: they are passed over",
        ),
        *gather(
            "error",
            "json_category",
            "{count} annotation(s) have an unknown category",
            nameless,
            "categories and annotations are from different files",
        ),
        *gather(
            "error",
            "json_segmentation",
            "{count} annotation(s) have a segmentation that does not fit its image",
            broken,
            "the json does not belong to these images, or was edited",
        ),
    ]
    missing = [name for name in EXCLUDES["street"] if name not in categories.values()]
    if missing:
        text = f"the json has no category {', '.join(missing)}: nothing is left out because of it"
        files = (str(instances.path),)
        findings.append(Finding("note", "street_classes", text, "", files, 1))
    return findings


def _fits(segmentation: object, image: ListedImage) -> bool:
    """Whether a segmentation has the form and the size that its image asks for."""
    if isinstance(segmentation, list):
        return bool(segmentation) and all(
            isinstance(part, list) and len(part) >= 6 and len(part) % 2 == 0
            for part in segmentation
        )
    if not isinstance(segmentation, Mapping) or "counts" not in segmentation:
        return False
    size = [image.height, image.width]
    if list(segmentation.get("size", [])) != size:
        return False
    counts = segmentation["counts"]
    lengths = decompress(counts) if isinstance(counts, str) else counts
    return isinstance(lengths, list) and sum(lengths) == size[0] * size[1]


def decompress(text: str) -> list[int]:
    """Read COCO's text form of run lengths; see :mod:`meta_ood.demo.annotations`.

    Examples
    --------
    >>> decompress("22")
    [2, 2]
    """
    lengths: list[int] = []
    number = shift = 0
    for character in text:
        part = ord(character) - 48
        number |= (part & 0x1F) << shift
        shift += 5
        if part & 0x20:
            continue
        if part & 0x10:
            number -= 1 << shift
        lengths.append(number + (lengths[-2] if len(lengths) > 2 else 0))
        number = shift = 0
    return lengths


def _disk(
    folder: Path, images: Sequence[ListedImage], on_disk: set[str], split: str
) -> list[Finding]:
    names = {image.file_name for image in images}
    findings = [
        *gather(
            "warning",
            "json_only",
            "{count} image(s) of the json are not on disk",
            [folder / name for name in names - on_disk],
            "they are passed over; unpack the rest",
        ),
        *gather(
            "warning",
            "disk_only",
            "{count} file(s) on disk are not in the json",
            [folder / name for name in on_disk - names],
            "they are passed over; COCO's unlabelled images belong elsewhere",
        ),
    ]
    published = PUBLISHED.get(split, 0)
    if not names & on_disk:
        text = f"none of the json's {len(names)} images lies in {folder}"
        findings.append(
            Finding(
                "error",
                "nothing_found",
                text,
                "json and images are of different sets",
                (str(folder),),
                1,
            )
        )
    elif published and len(images) != published:
        text = f"{len(images)} images in the json; published are {published}"
        findings.append(Finding("warning", "count", text, "a subset gives other proxies"))
    return findings


def _sizes(images: Sequence[ListedImage], inspected: Sequence[Inspected]) -> list[Finding]:
    odd = [
        item.image
        for image, item in zip(images, inspected, strict=True)
        if item.size not in ((0, 0), (image.width, image.height))
    ]
    return gather(
        "error",
        "size_mismatch",
        "{count} image(s) have another size than in the json",
        odd,
        "the images were resized: annotations do not fit; unpack the originals",
    )
