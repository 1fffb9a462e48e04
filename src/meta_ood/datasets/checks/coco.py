"""Checks of COCO: the json, the folder, and whether they belong together."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from meta_ood.data.labels import OOD
from meta_ood.datasets.checks.findings import Finding, find
from meta_ood.datasets.checks.frames import check_frames
from meta_ood.datasets.coco import EXCLUDES, missing_categories, on_disk, places, segmentation_fault
from meta_ood.datasets.instances import read_instances
from meta_ood.datasets.reader import RawFrame

PUBLISHED = {"train2017": 118287, "val2017": 5000}


def check_coco(
    root: Path, split: str, options: Mapping[str, Any], sample: int, workers: int
) -> tuple[dict[str, Any], list[Finding]]:
    """Check one split; `sample` images are decoded, 0 = all. Return what was counted and what was found."""
    folder, json_path = places(root, split, **options)
    if not folder.is_dir():
        for place in (*sorted(path for path in root.iterdir() if path.is_dir()), root.parent):
            if (place / split).is_dir():
                return {}, find("wrong_level", [place], split=split, place=place)
        return {}, find("nothing_found", split=split, root=root, expected=f"a folder {split}")
    try:
        instances = read_instances(json_path)
    except (FileNotFoundError, ValueError) as error:
        code = "json_missing" if isinstance(error, FileNotFoundError) else "json_broken"
        return {}, find(code, [json_path], error=error)
    findings = instances.findings()

    # 1. every annotation, also those of images that are left out
    images = {image.id: image for image in instances.images}
    faults = {}
    for annotation in instances.read_annotations():
        image = images.get(annotation["image_id"])
        if image and (fault := segmentation_fault(annotation.get("segmentation"), image.height, image.width)):
            faults[f"{json_path}, annotation {annotation.get('id')}"] = fault
    findings += find("json_segmentation", faults, example=next(iter(faults.values()), ""))
    if missing := missing_categories(EXCLUDES["street"], instances.categories):
        findings += find("street_classes", [json_path], missing=", ".join(missing))

    # 2. the json against the folder
    present, differences = on_disk(folder, instances.images)
    findings += differences
    published = PUBLISHED.get(split, 0)
    if not present:
        wanted = f"some of the {len(images)} images of {json_path}"
        findings += find("nothing_found", [folder], split=split, root=folder, expected=wanted)
    elif published and len(images) != published:
        findings += find("count", frames=len(images), published=published)

    # 3. the images; only the size of the target matters here
    frames = [
        RawFrame(name, folder / name, name, partial(np.full, (height, width), OOD, np.uint8))
        for _, name, height, width in present
    ]
    checked, more = check_frames("COCO", frames, sample, workers)
    facts = {"frames": len(frames), "published": published, "decoded": len(checked)}
    facts |= {"annotations": len(instances.annotations), "categories": len(instances.categories)}
    return facts, findings + more
