"""Raw frames, and the reader of datasets that are a path template and a label table."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from meta_ood.data.images import RgbImage, image_size, read_label_map
from meta_ood.data.labels import IGNORE, IN, LabelMap
from meta_ood.data.registry import lookup

T = TypeVar("T")


@dataclass(frozen=True)
class RawFrame:
    """One image of a raw dataset, not decoded yet; its functions can be pickled, for other processes."""

    image_id: str  # unique within dataset and split
    image: Path  # the image file; with `pixels`, the file that the image is made from
    scene: str  # the unit of grouped cross validation and of the bootstrap
    target: Callable[[], LabelMap]  # reads the (H, W) uint8 target
    pixels: Callable[[], RgbImage] | None = None  # makes the image, where it is no file of the dataset
    label_ids: Callable[[], LabelMap] | None = None  # reads the ids, where they tell more than the target
    labels: Path | None = None  # the label file, if the frame has one alone and it is public

    @property
    def is_complete(self) -> bool:
        """Whether its files exist."""
        return self.image.exists() and (self.labels is None or self.labels.exists())


@dataclass(frozen=True)
class Layout:
    """A dataset as data: where its files lie, what its labels mean, how many frames it has.

    `images` and `targets` are paths below the root. ``{split}`` is the split's folder, ``{number}`` stands for digits,
    ``{id}``, ``{folder}``, ``{scene}`` and the like for any text without a slash. One side is listed, the other one
    follows by its template; either may hold ``*``.
    """

    name: str  # in messages
    images: str
    targets: str  # empty for ordinary frames without labels: in-distribution everywhere
    labels: Mapping[int, int]  # label id in the files -> target value
    splits: Mapping[str, int]  # split -> number of frames as published, 0 where unknown; empty: any split
    size: tuple[int, int] | None = None  # width and height [px], if all images are alike
    lead: str = "images"  # the side that is listed, or "targets"
    folders: Mapping[str, str] = field(default_factory=dict)  # split -> folder, if not its name
    # which frames a split (or "*": any) holds: ids that match a regular expression from the beginning, without
    # positions in the order of the folder, without beginnings of ids, and ids dropped everywhere
    only: Mapping[str, str] = field(default_factory=dict)
    skip: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    without: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    drop: tuple[str, ...] = ()
    unlabelled: tuple[str, ...] = ()  # splits whose labels are not public: their targets are void
    # searched in the id; where it does not match, {scene} or {folder} is the scene, else the id itself
    scene: str = r"^(?P<scene>.+)_\d{6}_\d{6}$"
    compose: Callable[[Path, Path], RgbImage] | None = None  # makes the image from image file and target file
    names: Mapping[int, str] = field(default_factory=dict)  # label id -> name; if any, label ids are kept


@dataclass(frozen=True)
class LayoutReader:
    """The reader of every dataset that is a :class:`Layout`."""

    layout: Callable[..., Layout]  # its keyword arguments are the reader's options

    def __call__(self, root: Path, split: str, **options: object) -> Iterator[RawFrame]:
        """Yield the frames of a split; a missing root, split or partner file is an error that names it."""
        layout = self.layout(**options)
        found = list_frames(layout, root, split)
        if not found:
            wanted = expected(layout, split)
            others = in_words(unmatched(layout, root, split, ()), root)
            raise FileNotFoundError(
                f"{layout.name}: no file of split {split!r} below {root}; expected {wanted}{others}"
            )
        for frame in found:
            for path, partner in ((frame.image, frame.labels), (frame.labels, frame.image)):
                if path is not None and not path.exists():
                    others = in_words(unmatched(layout, root, split, found, path), root)
                    raise FileNotFoundError(f"{layout.name}: {path} is missing, the partner of {partner}{others}")
            yield frame


def list_frames(layout: Layout, root: Path, split: str, *, left_out: bool = False) -> list[RawFrame]:
    """List the frames of a split in path order, complete or not; or those that it leaves out."""
    if layout.splits:
        lookup(f"{layout.name} split", layout.splits, split)
    if not root.is_dir():
        raise FileNotFoundError(f"{layout.name}: {root} is no folder; expected {expected(layout, split)} in it")
    leading, following = sides(layout, split)
    only = re.compile(layout.only.get(split, layout.only.get("*", "")))
    skip, without = layout.skip.get(split, ()), layout.without.get(split, ())
    found = []
    # positions count all frames of the folder, also those that the next lines pass over
    for position, (fields, path) in enumerate(listed(leading, root)):
        name = fields["id"]
        is_left_out = position in skip or name in layout.drop or name.startswith(without)
        if not only.match(name) or is_left_out != left_out:
            continue
        image, labels = path, locate(following, root, fields) if following else None
        if layout.lead == "targets" and labels is not None:
            image, labels = labels, path
        match = re.search(layout.scene, name)
        scene = match["scene"] if match else fields.get("scene", fields.get("folder", name))
        # where files are numbered, the number is part of the frame's name; so is the scene, unless the name begins so
        before = fields.get("number") or fields.get("scene", "")
        image_id = name if name.startswith(before) and "number" not in fields else f"{before}_{name}"
        without_labels = IGNORE if split in layout.unlabelled else IN
        target = partial(read_target, labels, layout.labels) if labels else partial(flat_target, image, without_labels)
        pixels = partial(layout.compose, image, labels) if labels and layout.compose else None
        label_ids = partial(read_label_map, labels) if labels and layout.names else None
        found.append(RawFrame(image_id, image, scene, target, pixels, label_ids, labels))
    return found


def sides(layout: Layout, split: str) -> tuple[str, str]:
    """Return the templates of the listed side and of the other one for a split."""
    folder = layout.folders.get(split, split)
    images = layout.images.replace("{split}", folder)
    targets = "" if split in layout.unlabelled else layout.targets.replace("{split}", folder)
    return (targets, images) if layout.lead == "targets" else (images, targets)


def expected(layout: Layout, split: str) -> str:
    """Return where the files of a split are looked for, for messages."""
    return " and ".join(side for side in sides(layout, split) if side)


def unmatched(
    layout: Layout, root: Path, split: str, found: Iterable[RawFrame], beside: Path | None = None
) -> list[Path]:
    """List the files that belong to none of the frames `found`, sorted.

    They lie beside the listed files, or beside the file `beside`; where there is none at all, anywhere below `root`.
    """
    known = {path for frame in found for path in (frame.image, frame.labels)}
    folder = re.sub(r"\{\w+\}", "*", sides(layout, split)[0]).rpartition("/")[0]
    files = beside.parent.glob("*") if beside else root.glob(f"{folder}/*" if folder else "*")
    there = [path for path in files if path.is_file()] or [path for path in root.rglob("*") if path.is_file()]
    return sorted(path for path in there if path not in known and not path.name.startswith("."))


def in_words(files: Sequence[Path], root: Path) -> str:
    """Return the number of files that belong to no frame and the first three, as the end of a message."""
    names = ", ".join(path.relative_to(root).as_posix() for path in files[:3])
    return f"; {len(files)} file(s) there belong to no frame, such as {names}" if files else ""


def listed(template: str, root: Path) -> Iterator[tuple[dict[str, str], Path]]:
    """Yield the fields and the path of each file below `root` that fits a template, sorted."""
    pattern = re.escape(template).replace(re.escape("*"), "[^/]*")
    for name in re.findall(r"\{(\w+)\}", template):
        digits_or_text = r"\d+" if name == "number" else "[^/]+"
        # the first occurrence defines the field, later ones must repeat it
        pattern = pattern.replace(re.escape("{" + name + "}"), f"(?P<{name}>{digits_or_text})", 1)
        pattern = pattern.replace(re.escape("{" + name + "}"), f"(?P={name})")
    fits = re.compile(pattern + r"\Z")
    for path in sorted(root.glob(re.sub(r"\{\w+\}", "*", template))):
        match = fits.match(path.relative_to(root).as_posix())
        if match and not path.name.startswith("."):  # macOS leaves such files in archives
            yield match.groupdict(), path


def locate(template: str, root: Path, fields: Mapping[str, str]) -> Path:
    """Fill a template; the path need not exist. ``*`` and fields not given are searched for."""
    for name, value in fields.items():
        template = template.replace("{" + name + "}", value)
    if not re.search(r"[*{[]", template):
        return root / template
    return min(root.glob(re.sub(r"\{\w+\}", "*", template)), default=root / template)


def read_target(path: Path, labels: Mapping[int, int]) -> LabelMap:
    """Return a label image as ``(H, W) uint8``, its ids translated by a table label id -> target value."""
    # Pillow counts and looks up bytes several times faster than NumPy
    image = Image.fromarray(read_label_map(path))
    unknown = [k for k, count in enumerate(image.histogram()) if count and k not in labels]
    if unknown:
        raise ValueError(f"{path}: label ids {unknown} are not in the table {sorted(labels)}")
    return np.asarray(image.point([labels.get(value, IGNORE) for value in range(256)]), np.uint8)


def flat_target(image: Path, value: int) -> LabelMap:
    """Return a target of one value, for an image without label map."""
    return np.full(image_size(image), value, np.uint8)


def one_of(reader: str, option: str, value: object, choices: Mapping[str, T]) -> T:
    """Return what a reader's option stands for; a ``ValueError`` lists the known values."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{reader} reader: option {option}: expected one of {', '.join(choices)}, got {value!r}")
    return choices[value]
