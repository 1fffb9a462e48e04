"""Frames: the form of every dataset after ``prepare``, with the files frames.csv and labels.csv."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from meta_ood.data.files import read_csv, write_csv

_COLUMNS = ("image_id", "image", "image_md5", "target", "scene")
_LATER_COLUMNS = ("label_ids",)
_NAMES = ("label_id", "name")


@dataclass(frozen=True)
class Frame:
    """One image of a prepared dataset.

    Attributes:
        image_id: Unique within its dataset; a file name stem.
        image: The raw image file.
        image_md5: md5 of the image file's bytes: through it frames.csv depends on the pixels.
        target: The 8-bit grey PNG with the encoded target of :mod:`meta_ood.data.labels`.
        scene: The unit of grouped cross validation and of the bootstrap (a video, a city).
        label_ids: An 8-bit grey PNG of the dataset's own label ids, where they hold more than the target (which object
            lies on the road); else None.
    """

    image_id: str
    image: Path
    image_md5: str
    target: Path
    scene: str
    label_ids: Path | None = None


def write_frames(folder: Path, frames: Iterable[Frame], root: Path) -> None:
    """Write ``folder/frames.csv`` atomically.

    Paths below `root` are stored relative to it, so that a moved checkout still works; targets and label ids are stored
    relative to `folder`. `root` is absolute; links are not resolved.
    """

    def within(path: Path | None) -> str:
        return path.absolute().relative_to(folder.absolute()).as_posix() if path else ""

    rows = []
    for frame in frames:
        image = frame.image.absolute()
        stored = image.relative_to(root) if image.is_relative_to(root) else image
        known = (frame.image_id, stored.as_posix(), frame.image_md5)
        rows.append((*known, within(frame.target), frame.scene, within(frame.label_ids)))
    write_csv(folder / "frames.csv", _COLUMNS + _LATER_COLUMNS, rows)


def read_frames(folder: Path, root: Path) -> list[Frame]:
    """Read ``folder/frames.csv``; relative image paths are below `root`.

    Files without the column ``label_ids``, which older versions wrote, are read as having none.

    Raises:
        FileNotFoundError: If the dataset has not been prepared.
        ValueError: If the file is not a frames.csv, has no frame, or names an image twice.
    """
    path = folder / "frames.csv"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: run `prepare` for this dataset first")
    frames = [
        Frame(
            row["image_id"],
            root / row["image"],
            row["image_md5"],
            folder / row["target"],
            row["scene"],
            folder / row["label_ids"] if row["label_ids"] else None,
        )
        for row in read_csv(path, _COLUMNS, _LATER_COLUMNS)
    ]
    # predictions are files by image id
    if len({frame.image_id for frame in frames}) != len(frames):
        raise ValueError(f"{path}: an image_id occurs twice")
    if not frames:
        raise ValueError(f"{path}: no frame")
    return frames


def write_label_names(folder: Path, names: Mapping[int, str]) -> None:
    """Write the names of label ids to ``folder/labels.csv``; remove the file if there are none."""
    path = folder / "labels.csv"
    if names:
        write_csv(path, _NAMES, sorted(names.items()))
    else:
        path.unlink(missing_ok=True)


def read_label_names(folder: Path) -> dict[int, str]:
    """Read ``folder/labels.csv``: label id -> name; empty where there is no such file.

    Raises:
        ValueError: If the file is not one of :func:`write_label_names`.
    """
    path = folder / "labels.csv"
    if not path.is_file():
        return {}
    rows = read_csv(path, _NAMES)
    try:
        return {int(row["label_id"]): row["name"] for row in rows}
    except ValueError as error:
        raise ValueError(f"{path}: expected integers in the column label_id ({error})") from None
