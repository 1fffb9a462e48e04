"""One pair of files at a time: whether image and labels can be read and fit together."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from meta_ood.data.labels import IGNORE

ID_MODES = ("L", "P", "1", "I", "I;16")
"""Pillow modes of images that can hold label ids."""


@dataclass(frozen=True)
class Inspected:
    """What a pair of files is like.

    Attributes
    ----------
    image, target
        The files.
    size
        Width and height [px] of the image.
    md5
        Of the image file's bytes, empty if it cannot be read.
    values
        The label values that occur.
    problems
        Code -> what is wrong, in words.
    """

    image: Path
    target: Path | None
    size: tuple[int, int] = (0, 0)
    md5: str = ""
    values: tuple[int, ...] = ()
    problems: Mapping[str, str] = field(default_factory=dict)


def inspect_pair(
    pair: tuple[Path, Path | None],
    labels: Mapping[int, int],
    label_twin: tuple[str, str] | None = None,
    compose: Callable[[Path, Path], object] | None = None,
) -> Inspected:
    """Decode an image and its labels and look for damage.

    Parameters
    ----------
    pair
        Image file and label file; None where labels are not public.
    labels
        Label id -> target value.
    label_twin
        Two endings of label file names that must tell the same story, if there are two.
    compose
        Makes the picture from image and labels, where it is no file; raises where it cannot.
    """
    image, target = pair
    problems: dict[str, str] = {}
    size, md5 = _inspect_image(image, problems)
    values: tuple[int, ...] = ()
    if target is not None:
        ids = _inspect_labels(target, problems)
        if ids is not None:
            values = tuple(int(value) for value in np.unique(ids))
            _judge_labels(ids, values, labels, size, problems)
            if label_twin is not None:
                _compare_twin(target, ids, label_twin, problems)
        if compose is not None and size != (0, 0):
            try:
                compose(image, target)
            except (OSError, ValueError) as error:
                problems["overlay"] = str(error)
    return Inspected(image, target, size, md5, values, problems)


def _inspect_image(path: Path, problems: dict[str, str]) -> tuple[tuple[int, int], str]:
    try:
        content = path.read_bytes()
    except OSError as error:
        problems["image_unreadable"] = str(error)
        return (0, 0), ""
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if not content:
        problems["image_empty"] = "0 bytes"
        return (0, 0), md5
    try:
        with Image.open(path) as image:
            size, mode = image.size, image.mode
            if "gamma" in image.info:
                problems["gamma"] = f"gamma {image.info['gamma']:.4f}"
            image.load()
    except OSError as error:
        cut = "truncated" in str(error) or "broken" in str(error)
        problems["image_truncated" if cut else "image_unreadable"] = str(error)
        return (0, 0), md5
    except (SyntaxError, ValueError) as error:  # Pillow on a broken chunk
        problems["image_truncated"] = str(error)
        return (0, 0), md5
    if mode in ("L", "P", "1"):
        problems["image_grey"] = f"mode {mode}"
    elif mode not in ("RGB", "RGBA"):
        problems["image_mode"] = f"mode {mode}, expected RGB with 8 bits"
    return size, md5


def _inspect_labels(path: Path, problems: dict[str, str]) -> npt.NDArray[np.integer] | None:
    try:
        with Image.open(path) as image:
            mode = image.mode
            ids = np.asarray(image)
    except (OSError, SyntaxError, ValueError) as error:
        problems["labels_unreadable"] = str(error)
        return None
    if mode not in ID_MODES:
        problems["labels_colour"] = f"mode {mode}, expected one channel of label ids"
        return None
    return ids.astype(np.uint8) if mode == "1" else ids


def _judge_labels(
    ids: npt.NDArray[np.integer],
    values: tuple[int, ...],
    labels: Mapping[int, int],
    size: tuple[int, int],
    problems: dict[str, str],
) -> None:
    height, width = ids.shape
    if size != (0, 0) and (width, height) != size:
        problems["size_mismatch"] = f"image {size[0]}x{size[1]} px, labels {width}x{height} px"
    strange = sorted(set(values) - set(labels))
    if strange:
        problems["label_values"] = f"values {strange[:8]} are not in the label table"
    elif {labels[value] for value in values} == {IGNORE}:
        problems["labels_empty"] = f"nothing but void (values {list(values)})"


def _compare_twin(
    path: Path, ids: npt.NDArray[np.integer], endings: tuple[str, str], problems: dict[str, str]
) -> None:
    own, other = endings
    twin = path.with_name(path.name.replace(own, other))
    if twin == path or not twin.is_file():
        return
    codes = _inspect_labels(twin, {})
    if codes is None or codes.shape != ids.shape:
        problems["labels_disagree"] = f"{twin.name} cannot be compared"
        return
    if own.endswith("TrainIds.png"):
        ids, codes = codes, ids
    hazard = (ids >= 2) & ~np.isin(ids, (31, 33, 34, 36, 37, 38, 39))
    odd = ((codes == 2) != hazard) | ((codes == 1) != (ids == 1))
    if odd.any():
        values = sorted({int(value) for value in np.unique(ids[odd])})
        problems["labels_disagree"] = f"label ids {values} have other train ids than in the table"
