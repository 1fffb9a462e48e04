"""Frames: what every dataset looks like after ``prepare``, and frames.csv in and out."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

_COLUMNS = ("image_id", "image", "image_md5", "target", "scene", "label_ids")
_OLD_COLUMNS = _COLUMNS[:-1]
_NAMES = ("label_id", "name")


@dataclass(frozen=True)
class Frame:
    """One image of a prepared dataset.

    Attributes
    ----------
    image_id
        Unique within its dataset; a file name stem.
    image
        The raw image file.
    image_md5
        md5 of the image file's bytes: through it frames.csv depends on the pixels.
    target
        The 8-bit grey PNG with the encoded target of :mod:`meta_ood.data.labels`.
    scene
        The unit of grouped cross validation and of the bootstrap (a video, a city).
    label_ids
        An 8-bit grey PNG of the dataset's own label ids, where they say more than the target (which
        object lies on the road); else None.
    """

    image_id: str
    image: Path
    image_md5: str
    target: Path
    scene: str
    label_ids: Path | None = None


def write_frames(folder: Path, frames: Iterable[Frame], root: Path) -> None:
    """Write ``folder/frames.csv`` atomically.

    Paths below `root` are stored relative to it, so that a moved checkout still works; targets and
    label ids are stored relative to `folder`. `root` is absolute; links are not resolved.
    """

    def within(path: Path | None) -> str:
        return path.absolute().relative_to(folder.absolute()).as_posix() if path else ""

    temporary = folder / "frames.csv.tmp"
    with temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_COLUMNS)
        for frame in frames:
            image = frame.image.absolute()
            stored = image.relative_to(root) if image.is_relative_to(root) else image
            known = (frame.image_id, stored.as_posix(), frame.image_md5)
            writer.writerow((*known, within(frame.target), frame.scene, within(frame.label_ids)))
    temporary.replace(folder / "frames.csv")


def read_frames(folder: Path, root: Path) -> list[Frame]:
    """Read ``folder/frames.csv``; relative image paths are below `root`.

    Files of before, without the column ``label_ids``, are read as having none.

    Raises
    ------
    FileNotFoundError
        If the dataset has not been prepared.
    ValueError
        If the file is not a frames.csv, has no frame, or names an image twice.
    """
    path = folder / "frames.csv"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: run `prepare` for this dataset first")
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    if not rows or tuple(rows[0]) not in (_COLUMNS, _OLD_COLUMNS):
        raise ValueError(f"{path}: expected the header {','.join(_COLUMNS)}")
    frames = []
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(rows[0]):
            raise ValueError(f"{path}, line {number}: expected {len(rows[0])} columns")
        image_id, image, md5, target, scene, label_ids = *row, *[""] * (len(_COLUMNS) - len(row))
        ids = folder / label_ids if label_ids else None
        frames.append(Frame(image_id, root / image, md5, folder / target, scene, ids))
    if len({frame.image_id for frame in frames}) != len(frames):
        raise ValueError(f"{path}: an image_id occurs twice")
    if not frames:
        raise ValueError(f"{path}: no frame")
    return frames


def write_label_names(folder: Path, names: Mapping[int, str]) -> None:
    """Write ``folder/labels.csv`` atomically: what the label ids mean; no file for no names."""
    path = folder / "labels.csv"
    if not names:
        path.unlink(missing_ok=True)
        return
    temporary = folder / "labels.csv.tmp"
    with temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([_NAMES, *sorted(names.items())])
    temporary.replace(path)


def read_label_names(folder: Path) -> dict[int, str]:
    """Read ``folder/labels.csv``: label id -> name; empty where there is no such file.

    Raises
    ------
    ValueError
        If the file is not one of :func:`write_label_names`.
    """
    path = folder / "labels.csv"
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    try:
        if tuple(rows[0]) != _NAMES:
            raise ValueError(f"header {','.join(rows[0])}")
        return {int(label_id): name for label_id, name in rows[1:]}
    except (IndexError, ValueError) as error:
        expected = ",".join(_NAMES)
        raise ValueError(f"{path}: expected {expected} and integers below ({error})") from None
