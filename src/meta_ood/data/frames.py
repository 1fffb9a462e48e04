"""Frames: the form of every dataset after ``prepare``, with the files frames.csv and labels.csv."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from meta_ood.data.files import read_csv, write_csv

_COLUMNS = ("image_id", "image", "image_md5", "target", "scene")
_LATER_COLUMNS = ("label_ids",)  # not in files of the first versions
_NAMES = ("label_id", "name")


@dataclass(frozen=True)
class Frame:
    """One image of a prepared dataset."""

    image_id: str  # unique within its dataset; a file name stem
    image: Path  # the raw image file
    image_md5: str  # of the file's bytes: through it frames.csv depends on the pixels
    target: Path  # 8-bit grey PNG with the encoded target of meta_ood.data.labels
    scene: str  # the unit of grouped cross validation and of the bootstrap (a video, a city)
    label_ids: Path | None = None  # 8-bit grey PNG of the dataset's own ids, if they say which object lies on the road


def write_frames(folder: Path, frames: Iterable[Frame], root: Path) -> None:
    """Write ``folder/frames.csv`` atomically.

    Images below `root`, which is absolute, are stored relative to it, so that a moved checkout still works; targets and
    label ids are stored relative to `folder`. Links are not resolved.
    """

    def relative(path: Path | None, to: Path) -> str:
        return path.absolute().relative_to(to.absolute()).as_posix() if path else ""

    rows = []
    for frame in frames:
        image = frame.image.absolute()
        stored = relative(image, root) if image.is_relative_to(root) else image.as_posix()
        target, label_ids = relative(frame.target, folder), relative(frame.label_ids, folder)
        rows.append((frame.image_id, stored, frame.image_md5, target, frame.scene, label_ids))
    write_csv(folder / "frames.csv", _COLUMNS + _LATER_COLUMNS, rows)


def read_frames(folder: Path, root: Path) -> list[Frame]:
    """Read ``folder/frames.csv``; relative image paths are below `root`.

    Raises:
        FileNotFoundError: If the dataset has not been prepared.
        ValueError: If the file is not a frames.csv, has no frame, or names an image twice.
    """
    path = folder / "frames.csv"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: run `prepare` for this dataset first")
    frames = [
        Frame(
            image_id=row["image_id"],
            image=root / row["image"],
            image_md5=row["image_md5"],
            target=folder / row["target"],
            scene=row["scene"],
            label_ids=folder / row["label_ids"] if row["label_ids"] else None,
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
    """Read ``folder/labels.csv``: label id -> name; empty where there is no such file."""
    path = folder / "labels.csv"
    rows = read_csv(path, _NAMES) if path.is_file() else []
    try:
        return {int(row["label_id"]): row["name"] for row in rows}
    except ValueError as error:
        raise ValueError(f"{path}: expected integers in the column label_id ({error})") from None
