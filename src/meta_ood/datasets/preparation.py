"""From raw frames to encoded targets on disk: one frame at a time, in parallel, resumable."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from meta_ood.data.frames import Frame
from meta_ood.datasets.pool import ordered_map
from meta_ood.datasets.reader import RawFrame

JOURNAL = "progress.jsonl"
"""What an interrupted run leaves behind, so that the next one goes on."""


def prepare_frame(raw: RawFrame, prepared: Path) -> Frame:
    """Write the frame's target (its image, where it is made, and its label ids) below `prepared`.

    Raises
    ------
    ValueError
        If the image is cut off or no image, if the target cannot be read, or if the two differ in
        size; the file is named.
    """
    image = raw.image
    if raw.pixels is not None:
        image = prepared / "images" / f"{raw.image_id}.png"
        _write(image, Image.fromarray(raw.pixels()))
    content = image.read_bytes()
    size = image_size(image, content)
    try:
        target = raw.target()
    except OSError as error:
        raise ValueError(f"the target of {image} cannot be read ({error})") from None
    height, width = target.shape
    if (width, height) != size:
        raise ValueError(
            f"{image}: the image is {size[0]}x{size[1]} px, its target {width}x{height} px"
        )
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    frame = _frame(raw, image, md5, prepared)
    _write(frame.target, Image.fromarray(target))
    if raw.label_ids is not None and frame.label_ids is not None:
        ids = raw.label_ids()
        if ids.max(initial=0) > 255 or ids.min(initial=0) < 0:
            raise ValueError(f"{image}: its label ids go beyond 0 to 255, what a file can hold")
        _write(frame.label_ids, Image.fromarray(ids.astype(np.uint8)))
    return frame


def _frame(raw: RawFrame, image: Path, md5: str, prepared: Path) -> Frame:
    """Return the frame with the files that belong to it."""
    name = f"{raw.image_id}.png"
    ids = None if raw.label_ids is None else prepared / "label_ids" / name
    return Frame(raw.image_id, image, md5, prepared / "targets" / name, raw.scene, ids)


def image_size(path: Path, content: bytes) -> tuple[int, int]:
    """Return width and height [px] of an image file's content, without decoding the pixels.

    Raises
    ------
    ValueError
        If it is no image, or if a PNG or JPEG has lost its end.
    """
    try:
        with Image.open(io.BytesIO(content)) as opened:
            size, kind = opened.size, opened.format
    except OSError:
        raise ValueError(f"{path}: not an image ({len(content)} bytes)") from None
    end = {"PNG": b"IEND", "JPEG": b"\xff\xd9"}.get(kind or "", b"")
    if end not in content[-4096:]:
        raise ValueError(f"{path}: the file is cut off ({len(content)} bytes)")
    return size


def _write(path: Path, image: Image.Image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp")
    image.save(temporary, format="PNG", compress_level=1)
    temporary.replace(path)


def prepare_frames(
    raw: Sequence[RawFrame], prepared: Path, settings: Mapping[str, Any], workers: int
) -> Iterator[Frame]:
    """Prepare all frames, in order; what an interrupted run with the same settings did is kept.

    Parameters
    ----------
    raw
        The frames of a reader.
    prepared
        Folder to write to; the journal in it belongs to the caller once all frames are through.
    settings
        What the targets depend on: another value starts from the beginning.
    workers
        Processes; the result does not depend on them.
    """
    prepared.mkdir(parents=True, exist_ok=True)
    path = prepared / JOURNAL
    done = _read_journal(path, settings)
    left = [frame for frame in raw if not _is_done(frame, done, prepared)]
    pending = {frame.image_id for frame in left}
    kept = {name: entry for name, entry in done.items() if name not in pending}
    lines = [settings, *([name, *entry] for name, entry in kept.items())]
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    temporary.replace(path)
    fresh = ordered_map(partial(prepare_frame, prepared=prepared), left, workers)
    with path.open("a", encoding="utf-8") as journal:
        for item in raw:
            if item.image_id not in pending:
                image, md5, _ = done[item.image_id]
                yield _frame(item, Path(image), md5, prepared)
                continue
            frame = next(fresh)
            line = [frame.image_id, str(frame.image), frame.image_md5, _stamp(frame.image)]
            journal.write(json.dumps(line) + "\n")
            journal.flush()
            yield frame


def _read_journal(path: Path, settings: Mapping[str, Any]) -> dict[str, tuple[str, str, list[int]]]:
    if not path.is_file():
        return {}
    done: dict[str, tuple[str, str, list[int]]] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines()):
        try:
            value = json.loads(line)
        except ValueError:
            break  # the line that was being written when the run was stopped
        if number == 0:
            if value != json.loads(json.dumps(settings)):
                return {}
            continue
        done[value[0]] = (value[1], value[2], value[3])
    return done


def _is_done(raw: RawFrame, done: Mapping[str, tuple[str, str, list[int]]], prepared: Path) -> bool:
    if raw.image_id not in done:
        return False
    image, md5, stamp = done[raw.image_id]
    frame = _frame(raw, Path(image), md5, prepared)
    return (
        frame.target.is_file()
        and (frame.label_ids is None or frame.label_ids.is_file())
        and (raw.pixels is not None or image == str(raw.image))
        and Path(image).is_file()
        and _stamp(Path(image)) == stamp
    )


def _stamp(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def remove_strangers(prepared: Path, frames: Sequence[Frame]) -> None:
    """Delete what an earlier run left in `prepared` and the journal of this one."""
    known = {path for frame in frames for path in (frame.target, frame.image, frame.label_ids)}
    for folder in ("targets", "images", "label_ids"):
        for path in (prepared / folder).glob("*"):
            if path not in known:
                path.unlink()
    (prepared / JOURNAL).unlink(missing_ok=True)
