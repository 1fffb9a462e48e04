"""From raw frames to encoded targets on disk: one frame at a time, in parallel, resumable."""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from meta_ood.data.files import file_hash, write_text
from meta_ood.data.frames import Frame
from meta_ood.data.images import write_image
from meta_ood.datasets.checks.findings import KINDS
from meta_ood.datasets.checks.frames import inspect, ordered_map
from meta_ood.datasets.reader import RawFrame

# by this file an interrupted run is continued: the settings, then one line per frame
JOURNAL = "progress.jsonl"


def prepare_frame(raw: RawFrame, prepared: Path) -> Frame:
    """Write the frame's target (its image, where it is made, and its label ids) below `prepared`.

    The first fault of the frame that is an error is raised as a ``ValueError``; the file is named.
    """
    found = inspect(raw)
    for code, (level, _, _) in KINDS.items():
        if code in found.problems and level == "error":
            raise ValueError(found.problems[code])
    # level 1 is three times faster than Pillow's 6; targets are flat and stay small
    image, md5 = raw.image, found.image_md5
    if found.pixels is not None:
        image = prepared / "images" / f"{raw.image_id}.png"
        write_image(image, found.pixels, compress_level=1)
        md5 = file_hash(image, "md5")
    frame = _frame(raw, image, md5, prepared)
    for path, labels in ((frame.target, found.target), (frame.label_ids, found.label_ids)):
        if path is not None and labels is not None:
            write_image(path, labels, compress_level=1)
    return frame


def _frame(raw: RawFrame, image: Path, md5: str, prepared: Path) -> Frame:
    """Return the frame with the files that belong to it."""
    target, ids = (prepared / folder / f"{raw.image_id}.png" for folder in ("targets", "label_ids"))
    return Frame(raw.image_id, image, md5, target, raw.scene, ids if raw.label_ids else None)


def prepare_frames(
    raw: Sequence[RawFrame], prepared: Path, settings: Mapping[str, Any], workers: int
) -> Iterator[Frame]:
    """Prepare all frames, in order; finished frames of an interrupted run are kept.

    `settings` are what the targets depend on: other ones start from the beginning. The caller ends the run by
    :func:`remove_left_overs`. The result does not depend on the number of processes.
    """
    # 1. keep the lines of frames whose files are still there and unchanged
    path = prepared / JOURNAL
    lines = _read_journal(path, settings)
    finished = {
        item.image_id: frame
        for item in raw
        if item.image_id in lines and (frame := _finished(item, lines[item.image_id], prepared))
    }
    kept = [settings, *(lines[image_id] for image_id in finished)]
    write_text(path, "".join(json.dumps(line) + "\n" for line in kept))

    # 2. prepare the others and write a line after each
    left = [item for item in raw if item.image_id not in finished]
    fresh = ordered_map(partial(prepare_frame, prepared=prepared), left, workers)
    with path.open("a", encoding="utf-8") as journal:
        for item in raw:
            if (frame := finished.get(item.image_id)) is None:
                frame = next(fresh)
                line = [frame.image_id, str(frame.image), frame.image_md5, _stamp(frame.image)]
                journal.write(json.dumps(line) + "\n")
                journal.flush()
            yield frame


def _read_journal(path: Path, settings: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return the line of each frame by image id; none if it belongs to other settings."""
    lines: list[Any] = []
    for line in path.read_bytes().splitlines() if path.is_file() else ():
        try:
            lines.append(json.loads(line))
        except ValueError:
            break  # the line that was being written when the run was stopped
    if lines[:1] != [json.loads(json.dumps(settings))]:
        return {}
    return {line[0]: line for line in lines[1:]}


def _finished(raw: RawFrame, line: Sequence[Any], prepared: Path) -> Frame | None:
    """Return the frame of a journal's line, or None if its image changed or a file is missing."""
    image = Path(line[1])
    frame = _frame(raw, image, line[2], prepared)
    is_there = all(file is None or file.is_file() for file in (image, frame.target, frame.label_ids))
    is_same_image = raw.pixels is not None or image == raw.image
    return frame if is_there and is_same_image and _stamp(image) == line[3] else None


def _stamp(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def remove_left_overs(prepared: Path, frames: Sequence[Frame]) -> None:
    """Delete the journal, and files in `prepared` that belong to none of the frames."""
    known = {path for frame in frames for path in (frame.target, frame.image, frame.label_ids)}
    for folder in ("targets", "images", "label_ids"):
        for path in set((prepared / folder).glob("*")) - known:
            path.unlink()
    (prepared / JOURNAL).unlink(missing_ok=True)
