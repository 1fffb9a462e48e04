"""Frames: what every dataset looks like after ``prepare``, and frames.csv in and out."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_COLUMNS = ("image_id", "image", "image_md5", "target", "scene")


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
        The 8-bit grey PNG with the encoded target of :mod:`meta_ood.labels`.
    scene
        The unit of grouped cross validation and of the bootstrap (a video, a city).
    """

    image_id: str
    image: Path
    image_md5: str
    target: Path
    scene: str


def write_frames(folder: Path, frames: Iterable[Frame], root: Path) -> None:
    """Write ``folder/frames.csv`` atomically.

    Paths below `root` are stored relative to it, so that a moved checkout still works; targets are
    stored relative to `folder`. `root` is absolute; links are not resolved.
    """
    temporary = folder / "frames.csv.tmp"
    with temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_COLUMNS)
        for frame in frames:
            image = frame.image.absolute()
            stored = image.relative_to(root) if image.is_relative_to(root) else image
            target = frame.target.absolute().relative_to(folder.absolute())
            writer.writerow(
                (frame.image_id, stored.as_posix(), frame.image_md5, target.as_posix(), frame.scene)
            )
    temporary.replace(folder / "frames.csv")


def read_frames(folder: Path, root: Path) -> list[Frame]:
    """Read ``folder/frames.csv``; relative image paths are below `root`.

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
    if not rows or tuple(rows[0]) != _COLUMNS:
        raise ValueError(f"{path}: expected the header {','.join(_COLUMNS)}")
    frames = []
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(_COLUMNS):
            raise ValueError(f"{path}, line {number}: expected {len(_COLUMNS)} columns")
        image_id, image, md5, target, scene = row
        frames.append(Frame(image_id, root / image, md5, folder / target, scene))
    if len({frame.image_id for frame in frames}) != len(frames):
        raise ValueError(f"{path}: an image_id occurs twice")
    if not frames:
        raise ValueError(f"{path}: no frame")
    return frames
