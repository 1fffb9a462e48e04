"""Decoding one raw frame completely and listing what is wrong with it.

``prepare`` and ``data check`` both call :func:`inspect`: the first stops at an error, the second
reports all of them.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from PIL import Image

from meta_ood.data.images import RgbImage, decode_image, image_header
from meta_ood.data.labels import IGNORE, LabelMap
from meta_ood.datasets.checks.findings import KINDS
from meta_ood.datasets.reader import RawFrame

T = TypeVar("T")

PROBLEMS = (
    "image_empty", "image_truncated", "image_unreadable", "image_mode", "image_grey",
    "labels_unreadable", "labels_colour", "label_values", "size_mismatch", "labels_empty",
    "labels_disagree", "overlay", "gamma",
)  # fmt: skip
"""The kinds of findings that concern single frames."""


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
    problems: dict[str, str]  # member of PROBLEMS -> what is wrong; the file is named

    def raise_error(self) -> None:
        """Raise a ``ValueError`` for the first problem that is an error."""
        for code in PROBLEMS:
            if code in self.problems and KINDS[code][0] == "error":
                raise ValueError(self.problems[code])


def inspect(raw: RawFrame) -> Inspected:
    """Decode image, target, label ids and made image of a frame; damaged files do not raise."""
    problems: dict[str, str] = {}

    def attempt(read: Callable[[], T], code: Callable[[str], str]) -> T | None:
        try:
            return read()
        except (OSError, ValueError) as error:
            problems[code(str(error))] = str(error)
            return None

    # 1. the image: every byte, since a file that is damaged in the middle has a sound header
    name, md5, size = str(raw.image), "", (0, 0)
    content = attempt(raw.image.read_bytes, lambda _: "image_unreadable")
    if content == b"":
        problems["image_empty"] = f"{name}: the file is empty"
    elif content is not None:
        md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
        image = attempt(lambda: decode_image(content, name), _code_of_image)
        if image is not None:
            size = image.shape[1], image.shape[0]
            mode, metadata = image_header(content, name)
            if mode in ("1", "L", "LA", "P"):
                problems["image_grey"] = f"{name}: mode {mode}"
            if "gamma" in metadata:
                problems["gamma"] = f"{name}: gamma {metadata['gamma']}"

    # 2. the target, which must have the image's size
    target = attempt(raw.target, _code_of_labels)
    values: tuple[int, ...] = ()
    label_ids = attempt(raw.label_ids, _code_of_labels) if raw.label_ids else None
    if target is not None:
        height, width = target.shape
        if size not in ((width, height), (0, 0)):
            problems["size_mismatch"] = f"{name}: the image is {size[0]}x{size[1]} px, its target {width}x{height} px"
        counts = Image.fromarray(target).histogram()  # some times faster than NumPy's unique
        values = tuple(value for value, count in enumerate(counts) if count)
        if values == (IGNORE,):
            problems["labels_empty"] = f"{name}: its target holds nothing but void"

    # 3. the image that is made of the two files
    pixels = attempt(raw.pixels, lambda _: "overlay") if raw.pixels and size != (0, 0) else None
    return Inspected(raw.image, size, md5, values, target, label_ids, pixels, problems)


def _code_of_image(text: str) -> str:
    """Return the kind of a problem with an image from the message of ``data.images``."""
    if "8 bits per channel" in text:
        return "image_mode"
    return "image_unreadable" if "not an image" in text else "image_truncated"


def _code_of_labels(text: str) -> str:
    """Return the kind of a problem with a target from the message of its reader."""
    if "expected label ids" in text:
        return "labels_colour"
    return "label_values" if "are not in the table" in text else "labels_unreadable"
