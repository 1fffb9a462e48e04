"""Decoding raw frames completely and listing what is wrong with them.

``prepare`` and ``data check`` both call :func:`inspect`: the first stops at an error, the second reports all of them.
"""

import hashlib
import multiprocessing
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from PIL import Image

from meta_ood.data.context import progress
from meta_ood.data.images import RgbImage, decode_image, image_header
from meta_ood.data.labels import IGNORE, LabelMap
from meta_ood.datasets.checks.findings import KINDS, Finding, find
from meta_ood.datasets.lost_and_found import train_ids_that_differ
from meta_ood.datasets.reader import RawFrame

T = TypeVar("T")
Item = TypeVar("Item")

POOL_FROM = 256  # items; for fewer, starting processes costs more than it saves

# part of the message of data.images or of the target's reader -> kind of finding; the first that fits counts
_IMAGE_FAULTS = {"8 bits per channel": "image_mode", "not an image": "image_unreadable", "": "image_truncated"}
_LABEL_FAULTS = {"expected label ids": "labels_colour", "are not in the table": "label_values", "": "labels_unreadable"}


@dataclass(frozen=True)
class Inspected:
    """One decoded frame."""

    image: Path
    size: tuple[int, int]  # width and height [px], (0, 0) if the image cannot be read
    image_md5: str  # of the image file's bytes, empty if it cannot be read
    values: tuple[int, ...]  # the target values that occur
    target: LabelMap | None  # the results of the raw frame's functions; None if they failed
    label_ids: LabelMap | None
    pixels: RgbImage | None
    problems: dict[str, str]  # key of KINDS -> what is wrong; the file is named


def inspect(raw: RawFrame) -> Inspected:
    """Decode image, target, label ids and made image of a frame; damaged files do not raise."""
    problems: dict[str, str] = {}

    def attempt(read: Callable[[], T], faults: Mapping[str, str]) -> T | None:
        try:
            return read()
        except (OSError, ValueError) as error:
            problems[next(kind for part, kind in faults.items() if part in str(error))] = str(error)
            return None

    # 1. the image: every byte, since a file that is damaged in the middle has a sound header
    name, md5, size = str(raw.image), "", (0, 0)
    content = attempt(raw.image.read_bytes, {"": "image_unreadable"})
    if content == b"":
        problems["image_empty"] = f"{name}: the file is empty"
    elif content is not None:
        md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
        image = attempt(lambda: decode_image(content, name), _IMAGE_FAULTS)
        if image is not None:
            size = image.shape[1], image.shape[0]
            mode, metadata = image_header(content, name)
            if mode in ("1", "L", "LA", "P"):
                problems["image_grey"] = f"{name}: mode {mode}"
            if "gamma" in metadata:
                problems["gamma"] = f"{name}: gamma {metadata['gamma']}"

    # 2. the target, which must have the image's size
    target = attempt(raw.target, _LABEL_FAULTS)
    label_ids = attempt(raw.label_ids, _LABEL_FAULTS) if raw.label_ids else None
    values: tuple[int, ...] = ()
    if target is not None:
        height, width = target.shape
        if size not in ((width, height), (0, 0)):
            problems["size_mismatch"] = f"{name}: the image is {size[0]}x{size[1]} px, its target {width}x{height} px"
        counts = Image.fromarray(target).histogram()  # some times faster than NumPy's unique
        values = tuple(value for value, count in enumerate(counts) if count)
        if values == (IGNORE,):
            problems["labels_empty"] = f"{name}: its target holds nothing but void"

    # 3. the image that is made of the two files
    pixels = attempt(raw.pixels, {"": "overlay"}) if raw.pixels and size != (0, 0) else None
    return Inspected(raw.image, size, md5, values, target, label_ids, pixels, problems)


def ordered_map(work: Callable[[Item], T], items: Sequence[Item], workers: int) -> Iterator[T]:
    """Yield ``work(item)`` for each item, in order; with several workers `work` must be one that can be pickled."""
    if workers <= 1 or len(items) < POOL_FROM:
        yield from map(work, items)
        return
    # a forked child would inherit the locks of threads that it does not have
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            yield from pool.map(work, items, chunksize=16)
        finally:
            pool.shutdown(cancel_futures=True)


def check_frame(raw: RawFrame) -> Inspected:
    """Inspect a frame for :func:`check_frames`; the arrays are not kept."""
    found, labels = inspect(raw), raw.labels
    if labels is None:
        found.problems.pop("labels_empty", None)  # the target is made up
    elif labels.name.endswith(("_gtCoarse_labelIds.png", "_gtCoarse_labelTrainIds.png")):
        try:
            if ids := train_ids_that_differ(labels):
                found.problems["labels_disagree"] = f"label ids {ids} have other train ids than in the table"
        except ValueError as error:
            found.problems["labels_disagree"] = str(error)
    return replace(found, values=found.values if labels else (), target=None, label_ids=None, pixels=None)


def check_frames(
    name: str, frames: Sequence[RawFrame], sample: int, workers: int
) -> tuple[list[Inspected], list[Finding]]:
    """Check frames evenly spread over all, `sample` at most, 0 = all. Return them, and a finding per kind of fault."""
    chosen = frames if sample <= 0 else frames[:: max(1, -(-len(frames) // sample))]
    checked = list(progress(ordered_map(check_frame, chosen, workers), f"check {name}", len(chosen)))
    files: dict[str, list[Path]] = defaultdict(list)
    examples: dict[str, str] = {}
    by_md5: dict[str, list[Path]] = defaultdict(list)
    for raw, frame in zip(chosen, checked, strict=True):
        for code, text in frame.problems.items():
            is_of_labels = code.startswith(("label", "overlay"))
            files[code].append(raw.labels if is_of_labels and raw.labels else raw.image)
            examples.setdefault(code, text.removeprefix(f"{files[code][-1]}: "))
        if frame.size != (0, 0):
            by_md5[frame.image_md5].append(raw.image)
    findings = [f for code in KINDS if code in files for f in find(code, files[code], example=examples[code])]
    if len(files["labels_empty"]) == sum(raw.labels is not None for raw in chosen):
        # not one frame with labels: this cannot be ground truth
        findings = [replace(f, level="error") if f.code == "labels_empty" else f for f in findings]
    copies = [path for paths in by_md5.values() if len(paths) > 1 for path in paths]
    return checked, findings + find("duplicate", copies)


def most_common_sizes(checked: Iterable[Inspected]) -> dict[str, int]:
    """Return the four most frequent image sizes and how often each occurs."""
    sizes = Counter(frame.size for frame in checked if frame.size != (0, 0))
    return {f"{width}x{height}": count for (width, height), count in sizes.most_common(4)}
