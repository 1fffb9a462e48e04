"""Examination of the datasets that are a :class:`~meta_ood.datasets.reader.Layout`."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from meta_ood.data.context import progress
from meta_ood.datasets.checks.findings import Finding, Level, gather
from meta_ood.datasets.checks.inspection import Inspected, inspect_pair
from meta_ood.datasets.pool import ordered_map
from meta_ood.datasets.reader import (
    Layout,
    Pair,
    expected,
    image_id,
    listed,
    pairs,
    scene_of,
    sides,
)

PROBLEMS: dict[str, tuple[Level, str, str]] = {
    "image_empty": ("error", "{count} image(s) have no content", "copy them again"),
    "image_truncated": ("error", "{count} image(s) are cut off", "unpack or copy them again"),
    "image_unreadable": (
        "error",
        "{count} image(s) cannot be read",
        "unpack them again; check who may read them",
    ),
    "image_mode": ("error", "{count} image(s) are not RGB with 8 bits", "convert them"),
    "image_grey": ("warning", "{count} image(s) are grey", "fine for COCO, else convert them"),
    "labels_unreadable": ("error", "{count} label file(s) cannot be read", "unpack them again"),
    "labels_colour": (
        "error",
        "{count} label file(s) are colour pictures, not label ids",
        "use the files that end in _labelIds.png, not _color.png",
    ),
    "size_mismatch": (
        "error",
        "{count} image(s) differ in size from their labels",
        "resize both alike, or take both from the same archive",
    ),
    "label_values": (
        "error",
        "{count} label file(s) hold values outside the table",
        "check the reader and its option labels: train ids are not label ids",
    ),
    "labels_empty": (
        "warning",
        "{count} label file(s) hold nothing but void",
        "labels of a hidden test set look like this; use the validation split",
    ),
    "labels_disagree": (
        "warning",
        "{count} label file(s) and their train ids disagree",
        "choose which to trust by the reader's option labels",
    ),
    "overlay": (
        "error",
        "{count} overlay(s) are missing or do not fit",
        "unpack the archive of the labels again: each *_labels.png has its *_rgb.npz",
    ),
    "gamma": (
        "note",
        "{count} image(s) carry a gamma tag",
        "it is ignored here; some other readers honour it and give other pixels",
    ),
}
"""Code of a problem -> level, text and advice."""

_STRAY = re.compile(r"(^\._|^Thumbs\.db$|^\.DS_Store$|\.(tmp|part|crdownload)$)")


def examine_layout(
    layout: Layout, root: Path, split: str, sample: int, workers: int
) -> tuple[dict[str, Any], list[Finding]]:
    """Examine one split.

    Parameters
    ----------
    layout, root, split
        What to examine.
    sample
        Number of pairs to decode, 0 = all.
    workers
        Processes that decode.

    Returns
    -------
    What was counted, and what was found.
    """
    if not root.is_dir():
        text = f"{root} is no folder"
        return {}, [Finding("error", "root_missing", text, "check the path, or link the dataset")]
    found = pairs(layout, root, split)
    complete = [p for p in found if p.image.exists() and (p.target is None or p.target.exists())]
    findings = [*_partners(layout, root, split, found), *_strays(layout, root, split)]
    if not found:
        return {"frames": 0}, [*findings, _nothing(layout, root, split)]
    findings += _counts(layout, split, len(found))
    findings += _elsewhere(layout, root, split, found)
    chosen = complete if sample <= 0 else complete[:: max(1, -(-len(complete) // sample))]
    suffix = re.search(r"_label(?:Train)?Ids\.png$", layout.targets)
    twins = {"_labelIds.png": "_labelTrainIds.png", "_labelTrainIds.png": "_labelIds.png"}
    is_lost = layout.targets.startswith("gtCoarse") and 0 in layout.labels and suffix is not None
    work = partial(
        inspect_pair,
        labels=layout.labels,
        label_twin=(suffix[0], twins[suffix[0]]) if suffix and is_lost else None,
        compose=layout.compose,
    )
    done = ordered_map(work, [(p.image, p.target) for p in chosen], workers)
    inspected = list(progress(done, f"check {layout.name}", len(chosen)))
    findings += problems(inspected)
    findings += _sizes(layout, inspected)
    findings += _duplicates(inspected)
    facts = {
        "frames": len(found),
        "published": layout.splits[split],
        "decoded": len(inspected),
        "scenes": len({scene_of(layout, p.fields) for p in found}),
        "sizes": _common(f"{w}x{h}" for w, h in (i.size for i in inspected) if w),
        "values": sorted({value for item in inspected for value in item.values}),
    }
    return facts, findings


def _nothing(layout: Layout, root: Path, split: str) -> Finding:
    wanted = expected(layout, split)
    leading, _ = sides(layout, split)
    first = leading.split("/")[0]
    for place in (*sorted(p for p in root.iterdir() if p.is_dir()), root.parent):
        if (place / first).is_dir() and "{" not in first and next(listed(leading, place), None):
            return Finding(
                "error",
                "wrong_level",
                f"no file of split {split!r} here, but there are some below {place}",
                f"use {place} as the root",
                (str(place),),
                1,
            )
    other = [name for name in layout.splits if name != split and pairs(layout, root, name)]
    if other:
        return Finding(
            "error",
            "split_missing",
            f"split {split!r} is empty; {', '.join(other)} is there",
            f"unpack the rest, or use split {other[0]}",
        )
    return Finding(
        "error",
        "nothing_found",
        f"no file of split {split!r} below {root}; expected {wanted}",
        "unpack the archive here; see docs/datasets.md for what lies where",
    )


def _partners(layout: Layout, root: Path, split: str, found: Sequence[Pair]) -> list[Finding]:
    lonely = [p.image for p in found if p.target is not None and not p.target.exists()]
    blind = [p.target for p in found if p.target is not None and not p.image.exists()]
    _, following = sides(layout, split)
    if following and layout.lead == "images":
        known = {p.target for p in found}
        blind += [
            path for _, path in listed(following, root) if path not in known and not layout.only
        ]
    train_ids = layout.targets.endswith("_labelTrainIds.png")
    if train_ids and found and len(lonely) == len(found):
        return [
            Finding(
                "error",
                "train_ids_missing",
                "the train ids have never been generated",
                "use the reader's option labels: label_ids, or write the files with "
                f"`meta-ood data train-ids {root}`",
                (str(found[0].image),),
                len(lonely),
            )
        ]
    return [
        *gather(
            "error",
            "no_labels",
            "{count} image(s) have no labels",
            lonely,
            f"expected at {following or layout.targets}",
        ),
        *gather(
            "error",
            "no_image",
            "{count} label file(s) have no image",
            [path for path in blind if path is not None],
            f"expected at {layout.images}",
        ),
    ]


def _strays(layout: Layout, root: Path, split: str) -> list[Finding]:
    folders = {side.rsplit("/", 1)[0] for side in sides(layout, split) if "/" in side}
    strays = [
        path
        for folder in folders
        for path in root.glob(re.sub(r"\{\w+\}", "*", folder) + "/*")
        if _STRAY.search(path.name)
    ]
    return gather(
        "warning",
        "stray_files",
        "{count} file(s) of another kind lie among the data",
        strays,
        "left-overs of a copy or of another system: delete them",
    )


def _counts(layout: Layout, split: str, count: int) -> list[Finding]:
    published = layout.splits[split]
    if not published or count == published:
        return []
    return [
        Finding(
            "warning",
            "count",
            f"{count} frames; published are {published}",
            "figures will not compare with published ones"
            if count < published
            else "more than there should be: look for copies",
        )
    ]


def _elsewhere(layout: Layout, root: Path, split: str, found: Sequence[Pair]) -> list[Finding]:
    """Frames of this split that another split or folder has too."""
    own = Counter(image_id(p.fields) for p in found)
    twice = [p.image for p in found if own[image_id(p.fields)] > 1]
    leak = []
    for name in layout.splits:
        shares = layout.folders.get(name, name) == layout.folders.get(split, split)
        if name == split or shares or "{split}" not in layout.images:
            continue
        leak += [p.image for p in pairs(layout, root, name) if image_id(p.fields) in own]
    return [
        *gather(
            "error",
            "same_id",
            "{count} image(s) share their id with another one",
            twice,
            "delete the copies",
        ),
        *gather(
            "error",
            "wrong_split",
            f"{{count}} frame(s) of {split} lie in another split too",
            leak,
            "testing on what was trained on: unpack the splits again",
        ),
    ]


def problems(inspected: Sequence[Inspected]) -> list[Finding]:
    """Turn what single files suffer from into findings."""
    by_code: dict[str, list[str]] = defaultdict(list)
    detail: dict[str, str] = {}
    for item in inspected:
        for code, text in item.problems.items():
            path = item.target if code.startswith(("label", "overlay")) else item.image
            by_code[code].append(str(path))
            detail.setdefault(code, text.replace("{", "{{").replace("}", "}}"))
    findings = []
    decoded = [item for item in inspected if item.values]
    for code, (level, text, advice) in PROBLEMS.items():
        if code not in by_code:
            continue
        if code == "labels_empty" and len(by_code[code]) == len(decoded):
            level = "error"
        some = ", for example:" if len(by_code[code]) > 1 else ":"
        findings += gather(level, code, f"{text}{some} {detail[code]}", by_code[code], advice)
    return findings


def _sizes(layout: Layout, inspected: Sequence[Inspected]) -> list[Finding]:
    wanted = layout.size
    if wanted is None:
        return []
    odd = [item.image for item in inspected if item.size not in (wanted, (0, 0))]
    some = _common(f"{i.size[0]}x{i.size[1]}" for i in inspected if i.size not in (wanted, (0, 0)))
    return gather(
        "warning",
        "size",
        f"{{count}} image(s) are not {wanted[0]}x{wanted[1]} px but {', '.join(some)}",
        odd,
        "choose crops that fit; figures will not compare with published ones",
    )


def _duplicates(inspected: Sequence[Inspected]) -> list[Finding]:
    by_md5: dict[str, list[Path]] = defaultdict(list)
    for item in inspected:
        if item.md5 and item.size != (0, 0):
            by_md5[item.md5].append(item.image)
    copies = [path for paths in by_md5.values() if len(paths) > 1 for path in paths]
    return gather(
        "warning",
        "duplicate",
        "{count} image(s) have the same content as another one",
        copies,
        "they count twice in every metric",
    )


def _common(values: Iterable[str]) -> Mapping[str, int]:
    return dict(Counter(values).most_common(4))
