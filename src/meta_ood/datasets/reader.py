"""What a reader gives; the reader of datasets that are a path template and a label table."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from meta_ood.data.labels import IGNORE, LabelMap, LabelSpace
from meta_ood.data.registry import lookup

RgbImage = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class RawFrame:
    """One image of a raw dataset; nothing of it has been decoded yet.

    Attributes
    ----------
    image_id
        Unique within dataset and split.
    image
        The image file; with `pixels`, the file that the image is made from.
    scene
        The unit of grouped cross validation and of the bootstrap.
    target
        Reads the ``(H, W) uint8`` target; can be pickled.
    pixels
        Where the image itself is no file of the dataset: makes the ``(H, W, 3) uint8`` image.
    label_ids
        Where the dataset's label ids say more than the target: reads them, ``(H, W)`` integers
        from 0 to 255.
    """

    image_id: str
    image: Path
    scene: str
    target: Callable[[], LabelMap]
    pixels: Callable[[], RgbImage] | None = None
    label_ids: Callable[[], npt.NDArray[np.integer]] | None = None


class Reader(Protocol):
    """Lists the frames of one split below a raw root, in a fixed order."""

    def __call__(self, root: Path, split: str, **options: object) -> Iterator[RawFrame]:
        """Yield the frames; `options` are the reader's own keyword arguments."""
        ...


@dataclass(frozen=True)
class Layout:
    """A dataset as data: where its files lie, what its labels mean, how many frames it has.

    Attributes
    ----------
    name
        What messages call it.
    images, targets
        Paths below the root. ``{split}`` is the split's folder, ``{number}`` stands for digits,
        ``{id}``, ``{folder}`` and the like for any text without a slash; the side that is not
        listed may hold ``*``. `targets` is empty for a dataset without labels.
    labels
        Label id in the files -> target value.
    splits
        Split -> number of frames as published, 0 where unknown.
    size
        Published width and height [px] of all images, if they are all alike.
    lead
        ``images`` or ``targets``: the side that is listed; the other one follows by its template.
    folders
        Split -> its folder, where that is not the split's name.
    only
        Split -> regular expression that the ids of its frames match from the beginning.
    skip
        Split -> positions of frames that are left out, in the order of all frames of its folder.
    unlabelled
        Splits whose labels are not public: their targets are void.
    drop
        Ids of frames that are left out.
    scene
        Regular expression with the group ``scene``, searched in the id; where it does not match,
        ``{folder}`` is the scene, or else each image its own.
    compose
        Makes the image from the two files of a pair and the split, where it is no file itself.
    names
        Label id -> name, where the ids say more than the targets: which object it is that lies on
        the road. Such ids, at most 255, are kept beside the targets.
    """

    name: str
    images: str
    targets: str
    labels: Mapping[int, int]
    splits: Mapping[str, int]
    size: tuple[int, int] | None = None
    lead: str = "images"
    folders: Mapping[str, str] = field(default_factory=dict)
    only: Mapping[str, str] = field(default_factory=dict)
    skip: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    unlabelled: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    scene: str = r"^(?P<scene>.+)_\d{6}_\d{6}$"
    compose: Callable[[Path, Path], RgbImage] | None = None
    names: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class LayoutReader:
    """The reader of every dataset that is a :class:`Layout`.

    Attributes
    ----------
    layout
        Makes the layout; its keyword arguments are the reader's options.
    """

    layout: Callable[..., Layout]

    def __call__(self, root: Path, split: str, **options: object) -> Iterator[RawFrame]:
        """Yield the frames; see :func:`read_layout`."""
        yield from read_layout(self.layout(**options), root, split)


@dataclass(frozen=True)
class Pair:
    """An image file and its target file; either may be missing on disk."""

    fields: Mapping[str, str]
    image: Path
    target: Path | None


def pairs(layout: Layout, root: Path, split: str) -> list[Pair]:
    """List the leading side of a layout in path order and name its partners, unchecked.

    Raises
    ------
    FileNotFoundError
        If the root is not there.
    ValueError
        If the split is unknown.
    """
    lookup(f"{layout.name} split", layout.splits, split)
    if not root.is_dir():
        raise FileNotFoundError(
            f"{layout.name}: {root} is no folder; expected {expected(layout, split)} in it"
        )
    leading, following = sides(layout, split)
    only, skip = re.compile(layout.only.get(split, "")), layout.skip.get(split, ())
    found = []
    for position, (fields, path) in enumerate(listed(leading, root)):
        name = fields["id"]
        if position in skip or name in layout.drop or not only.match(name):
            continue
        partner = locate(following, root, fields) if following else None
        if layout.lead == "targets" and partner is not None:
            path, partner = partner, path
        found.append(Pair(fields, path, partner))
    return found


def sides(layout: Layout, split: str) -> tuple[str, str]:
    """Return the templates of the listed side and of the other one for a split."""
    folder = layout.folders.get(split, split)
    images = layout.images.replace("{split}", folder)
    targets = "" if split in layout.unlabelled else layout.targets.replace("{split}", folder)
    return (targets, images) if layout.lead == "targets" else (images, targets)


def expected(layout: Layout, split: str) -> str:
    """Say where the files of a split are looked for."""
    return " and ".join(side for side in sides(layout, split) if side)


def listed(template: str, root: Path) -> Iterator[tuple[dict[str, str], Path]]:
    """Yield the fields and the path of each file below `root` that fits a template, sorted."""
    pattern = re.escape(template).replace(re.escape("*"), "[^/]*")
    for name in re.findall(r"\{(\w+)\}", template):
        what = r"\d+" if name == "number" else "[^/]+"
        pattern = pattern.replace(re.escape("{" + name + "}"), f"(?P<{name}>{what})", 1)
        pattern = pattern.replace(re.escape("{" + name + "}"), f"(?P={name})")
    fits = re.compile(pattern + r"\Z")
    for path in sorted(root.glob(re.sub(r"\{\w+\}", "*", template))):
        match = fits.match(path.relative_to(root).as_posix())
        if match and not path.name.startswith("."):  # as macOS leaves them in archives
            yield match.groupdict(), path


def locate(template: str, root: Path, fields: Mapping[str, str]) -> Path:
    """Fill a template; where it holds ``*`` or a field that is not given, ask the disk.

    Returns
    -------
    The path, which need not exist.
    """
    filled = template
    for name, value in fields.items():
        filled = filled.replace("{" + name + "}", value)
    if not re.search(r"[*{[]", filled):
        return root / filled
    matches = sorted(root.glob(re.sub(r"\{\w+\}", "*", filled)))
    return matches[0] if matches else root / filled


def read_layout(layout: Layout, root: Path, split: str) -> Iterator[RawFrame]:
    """Yield the frames of a layout.

    Raises
    ------
    FileNotFoundError
        If the root, a partner file or the whole split is missing; the file is named.
    ValueError
        If the split is unknown.
    """
    found = pairs(layout, root, split)
    if not found:
        raise FileNotFoundError(
            f"{layout.name}: no file of split {split!r} below {root}; "
            f"expected {expected(layout, split)}"
        )
    for pair in found:
        for path in (pair.image, pair.target):
            if path is not None and not path.exists():
                partner = pair.target if path == pair.image else pair.image
                raise FileNotFoundError(
                    f"{layout.name}: {path} is missing, the partner of {partner}"
                )
        yield raw_frame(layout, pair)


def raw_frame(layout: Layout, pair: Pair) -> RawFrame:
    """Make the frame of a complete pair."""
    if pair.target is None:
        target = partial(no_target, pair.image)
    else:
        target = partial(read_target, pair.target, layout.labels)
    pixels = None
    if layout.compose is not None and pair.target is not None:
        pixels = partial(layout.compose, pair.image, pair.target)
    label_ids = None
    if layout.names and pair.target is not None:
        label_ids = partial(read_ids, pair.target)
    scene = scene_of(layout, pair.fields)
    return RawFrame(image_id(pair.fields), pair.image, scene, target, pixels, label_ids)


def image_id(fields: Mapping[str, str]) -> str:
    """Return the frame's name: its number, where files are numbered, and its id."""
    return "_".join(fields[name] for name in ("number", "id") if name in fields)


def scene_of(layout: Layout, fields: Mapping[str, str]) -> str:
    """Return the frame's scene."""
    match = re.search(layout.scene, fields["id"])
    return match["scene"] if match else fields.get("folder", fields["id"])


def read_target(path: Path, labels: Mapping[int, int]) -> LabelMap:
    """Read a label image and translate it.

    Parameters
    ----------
    path
        A grey or palette image of label ids.
    labels
        Label id -> target value.

    Returns
    -------
    ``(H, W) uint8`` target.

    Raises
    ------
    ValueError
        If the file is no image of ids or holds an id that is not in the table; the file is named.
    """
    ids = read_ids(path)
    if ids.dtype == np.uint8:  # nearly always; Pillow counts and looks up bytes much faster
        image = Image.fromarray(ids)
        if all(value in labels for value, count in enumerate(image.histogram()) if count):
            table = [labels.get(value, IGNORE) for value in range(256)]
            return np.asarray(image.point(table), np.uint8)
    try:
        return LabelSpace((), (), labels).encode(ids)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def read_ids(path: Path) -> npt.NDArray[np.integer]:
    """Read the ``(H, W)`` label ids of an image file as they are stored."""
    try:
        with Image.open(path) as image:
            mode = image.mode
            ids = np.asarray(image)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read as an image ({error})") from None
    if mode not in ("L", "P", "1", "I", "I;16"):
        raise ValueError(f"{path}: expected an image of label ids (one channel), got mode {mode}")
    return ids.astype(np.uint8) if mode == "1" else ids


def no_target(image: Path) -> LabelMap:
    """Return an all-void target for an image whose labels are not public."""
    with Image.open(image) as opened:
        width, height = opened.size
    return np.full((height, width), IGNORE, np.uint8)


def one_of(reader: str, option: str, value: object, choices: Sequence[str]) -> str:
    """Check a reader's option.

    Examples
    --------
    >>> one_of("coco", "background", "road", ("ignore", "road"))
    'road'
    """
    if not isinstance(value, str) or value not in choices:
        raise ValueError(
            f"{reader} reader: option {option}: expected one of {', '.join(choices)}, got {value!r}"
        )
    return value
