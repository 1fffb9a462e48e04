"""The checks of a dataset, by its entry in params or by a folder alone."""

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from meta_ood.data.labels import CITYSCAPES, OOD
from meta_ood.datasets import READERS, check_options, find_reader, read
from meta_ood.datasets.checks.archives import check_archives
from meta_ood.datasets.checks.findings import Finding, Report, find
from meta_ood.datasets.checks.frames import check_frames, most_common_sizes
from meta_ood.datasets.coco import EXCLUDES, missing_categories, on_disk, places, segmentation_fault, segmentation_of
from meta_ood.datasets.instances import read_instances
from meta_ood.datasets.reader import (
    Layout,
    LayoutReader,
    RawFrame,
    expected,
    in_words,
    list_frames,
    listed,
    sides,
    unmatched,
)

Result = tuple[dict[str, Any], list[Finding]]  # what was counted, and what was found

SAMPLE = 64  # frames that the fast mode decodes: some seconds, and most faults are systematic
# names of files that downloads and other operating systems leave behind
_STRAY = re.compile(r"(^\._|^Thumbs\.db$|^\.DS_Store$|\.(tmp|part|crdownload)$)")
# reader -> options that change where its files lie
_VARIANTS: dict[str, Sequence[Mapping[str, Any]]] = {
    "folder": (),  # its files lie where its options say
    "cityscapes": ({}, {"labels": "train_ids"}),
    "fishyscapes_static": ({"version": "v1"}, {"version": "v2"}, {"version": "v3"}),
}


def examine(
    name: str, reader: str, root: Path, split: str, options: Mapping[str, Any], full: bool = False, workers: int = 1
) -> Report:
    """Check one split of a raw dataset, given as an entry under ``datasets`` in params; nothing is written.

    `full` decodes every file and reads the archives, instead of a sample. What is unknown is a ``ValueError``.
    """
    check_options(reader, options)
    if not root.is_dir():
        return Report(name, str(root), split, {}, tuple(find("root_missing", root=root)))
    sample = 0 if full else SAMPLE
    function = find_reader(reader)
    if isinstance(function, LayoutReader):
        facts, findings = check_layout(function.layout(**options), root, split, sample, workers)
    elif reader == "coco":
        facts, findings = check_coco(root, split, options, sample, workers)
    else:  # a reader of the user's own: what it lists, it finds
        frames = read(reader, root, split, options)
        checked, findings = check_frames(reader, frames, sample, workers)
        facts = {"frames": len(frames), "decoded": len(checked), "sizes": most_common_sizes(checked)}
    findings += check_archives(root, full)
    findings.sort(key=lambda finding: ("error", "warning", "note").index(finding.level))
    return Report(name, str(root), split, facts, tuple(findings))


def recognise(root: Path) -> list[tuple[str, str, dict[str, Any]]]:
    """Return ``(reader, split, options)`` of every split that has files in a folder, best guesses first."""
    if not root.is_dir():
        return []
    found: list[tuple[str, str, dict[str, Any]]] = [
        ("coco", path.name, {})
        for path in sorted(root.iterdir())
        if path.is_dir() and (root / "annotations" / f"instances_{path.name}.json").is_file()
    ]
    for reader, function in READERS.items():
        if not isinstance(function, LayoutReader):
            continue
        for options in _VARIANTS.get(reader, ({},)):
            layout = function.layout(**options)
            for split in layout.splits:
                # splits that share another one's folder are parts of it
                first = [] if split in layout.folders else list_frames(layout, root, split)[:1]
                if first and first[0].is_complete:
                    found.append((reader, split, dict(options)))
    return found


def check_layout(layout: Layout, root: Path, split: str, sample: int, workers: int) -> Result:
    """Check one split; `sample` images are decoded, 0 = all."""
    # 1. which files are there, without opening them
    found = list_frames(layout, root, split)
    left_out = list_frames(layout, root, split, left_out=True)
    findings = _misfits(layout, root, split, found, left_out)
    if not found:
        return {"frames": 0}, [*findings, *_nothing(layout, root, split)]
    published = layout.splits.get(split, 0)
    if published and len(found) != published:
        findings += find("count", frames=len(found), published=published)
    findings += find("left_out", (frame.image for frame in left_out), split=split)

    # 2. what the files hold
    checked, more = check_frames(layout.name, [frame for frame in found if frame.is_complete], sample, workers)
    findings += more
    if layout.size is not None:
        width, height = layout.size
        odd = [frame for frame in checked if frame.size not in (layout.size, (0, 0))]
        others = ", ".join(most_common_sizes(odd))
        findings += find("size", (frame.image for frame in odd), expected=f"{width}x{height}", others=others)
    values = {value for frame in checked for value in frame.values}
    sampled = "" if len(checked) == len(found) else f" in the {len(checked)} frames that were decoded"
    findings += _values(layout, values, sampled) if values else []
    facts = {"frames": len(found), "published": published, "decoded": len(checked)}
    scenes = len({frame.scene for frame in found})
    return facts | {"scenes": scenes, "sizes": most_common_sizes(checked), "values": sorted(values)}, findings


def _values(layout: Layout, values: Collection[int], sampled: str) -> list[Finding]:
    """Find classes that never occur, or that an evaluation set has no OoD."""
    if OOD in layout.labels.values():
        return [] if OOD in values else find("no_ood", where=sampled)
    total, missing = len(CITYSCAPES.names), [n for k, n in enumerate(CITYSCAPES.names) if k not in values]
    if not missing:
        return []
    found = find("classes", number=total - len(missing), total=total, missing=", ".join(missing), where=sampled)
    # a sample may well lack a rare class
    return [replace(one, level="note") for one in found] if sampled else found


def _nothing(layout: Layout, root: Path, split: str) -> list[Finding]:
    """Return why a split has no file at all."""
    leading, _ = sides(layout, split)
    first = leading.split("/")[0]
    for place in (*sorted(path for path in root.iterdir() if path.is_dir()), root.parent):
        if (place / first).is_dir() and "{" not in first and next(listed(leading, place), None):
            return find("wrong_level", [place], split=split, place=place)
    other = [name for name in layout.splits if name != split and list_frames(layout, root, name)]
    if other:
        return find("split_missing", split=split, other=", ".join(other), first=other[0])
    others = in_words(unmatched(layout, root, split, ()), root)
    return find("nothing_found", split=split, root=root, expected=expected(layout, split) + others)


def _misfits(layout: Layout, root: Path, split: str, found: list[RawFrame], left_out: list[RawFrame]) -> list[Finding]:
    """Find files without partner, files of another kind, and frames that occur twice."""
    # 1. images without labels and labels without image
    lonely = [frame.image for frame in found if frame.labels is not None and not frame.labels.exists()]
    blind = [frame.labels for frame in found if not frame.image.exists()]
    _, following = sides(layout, split)
    if following and layout.lead == "images" and not layout.only:
        known = {frame.labels for frame in (*found, *left_out)}
        blind += [path for _, path in listed(following, root) if path not in known]
    if layout.targets.endswith("_labelTrainIds.png") and found and len(lonely) == len(found):
        findings = find("train_ids_missing", lonely, root=root)
    else:
        findings = find("no_labels", lonely, expected=following or layout.targets)
        findings += find("no_image", blind, expected=layout.images)

    # 2. files among the data that do not belong there
    folders = {side.rsplit("/", 1)[0] for side in sides(layout, split) if "/" in side}
    globs = [re.sub(r"\{\w+\}", "*", folder) + "/*" for folder in folders]
    findings += find("stray_files", (f for pattern in globs for f in root.glob(pattern) if _STRAY.search(f.name)))
    if found and not layout.splits:  # published datasets have known files beside the images
        fitting = {path for side in sides(layout, split) if side for _, path in listed(side, root)}
        findings += find("unmatched", set(unmatched(layout, root, split, found)) - fitting, images=layout.images)

    # 3. frames that another folder or another split has too
    counts = Counter(frame.image_id for frame in found)
    findings += find("same_id", (frame.image for frame in found if counts[frame.image_id] > 1))
    own = layout.folders.get(split, split)
    others = [name for name in layout.splits if layout.folders.get(name, name) != own and "{split}" in layout.images]
    leak = (f.image for name in others for f in list_frames(layout, root, name) if f.image_id in counts)
    return findings + find("wrong_split", leak, split=split)


def check_coco(root: Path, split: str, options: Mapping[str, Any], sample: int, workers: int) -> Result:
    """Check one split of COCO; `sample` images are decoded, 0 = all."""
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
        if image and (fault := segmentation_fault(segmentation_of(annotation), image.height, image.width)):
            faults[f"{json_path}, annotation {annotation.get('id')}"] = fault
    findings += find("json_segmentation", faults, example=next(iter(faults.values()), ""))
    street = EXCLUDES["street"] if isinstance(options.get("exclude", "street"), str) else ()
    if missing := missing_categories(street, instances.categories):
        findings += find("street_classes", [json_path], missing=", ".join(missing))

    # 2. the json against the folder
    present, differences = on_disk(folder, instances.images)
    findings += differences
    published = {"train2017": 118287, "val2017": 5000}.get(split, 0)
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
