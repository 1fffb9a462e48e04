"""What the tables of a scan say in all: counts, doubts about the promise, and a contact sheet of the worst alarms."""

import heapq
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.dataset as ds
from PIL import Image, ImageDraw, ImageFont

from meta_ood.data.images import write_image
from meta_ood.data.overlays import KEPT
from meta_ood.detector.scan import tables
from meta_ood.detector.scan.engine import MANIFEST
from meta_ood.detector.scan.manifest import frames_of, read_manifest
from meta_ood.detector.scan.sources import Reader
from meta_ood.detector.scan.tracks import SIDES, TRACKS_FILE
from meta_ood.meta_classification.promise import STATISTICS, Promise, monitor

SHEET = "alarms.jpg"
COUNTED = ("frames", "alarm", "unreadable", "segments", "removed", "unlike")  # by summarise
_TILES, _COLUMNS = 24, 2
_WIDTH, _HEIGHT, _LINE = 320, 180, 16  # [px] of a frame in the sheet, and of the line below it
ALARM = ["frame", "index", "sequence", "time", "segment", "top", "left", "bottom", "right"]  # columns of a row here
ALARM += ["size", "severity", "unlike_training"]


def summarise(out: Path, promise: Promise | None) -> tuple[Counter[str], list[str]]:
    """Return the counts over all finished parts by :data:`COUNTED`, and reasons to distrust the promise."""
    if not tables.finished_parts(out):  # a shard without a part of its own, before the others
        return Counter(), []
    names = [name.replace(" ", "_") for name in STATISTICS]
    frames = dataset(out, "frames").to_table(["alarm", "kept", "error", "sequence", "time", *names])
    readable = frames.filter(pc.is_null(frames["error"]))
    counts = Counter(
        frames=len(frames),
        alarm=pc.sum(readable["alarm"]).as_py() or 0,
        unreadable=len(frames) - len(readable),
        segments=pc.sum(readable["segments"]).as_py() or 0,
        unlike=dataset(out, "segments").count_rows(filter=pc.field("unlike_training")),
    )
    counts["removed"] = counts["segments"] - (pc.sum(readable["kept"]).as_py() or 0)
    if promise is None:
        return counts, []
    # frames that follow each other are alike: one of each second, where times are known
    second = np.floor(readable["time"].to_numpy())
    sequence = readable["sequence"].combine_chunks().dictionary_encode().indices.to_numpy()
    changes = np.isnan(second) | (np.diff(second, prepend=np.nan) != 0) | (np.diff(sequence, prepend=-1) != 0)
    statistics = np.stack([readable[name].to_numpy().astype(np.float64) for name in names], axis=1)
    return counts, monitor(promise, statistics[changes], int(readable["alarm"].to_numpy()[changes].sum()))


def worst_alarms(out: Path, count: int = _TILES) -> list[dict[str, Any]]:
    """Return the worst segment of each track that has a kept one, as rows for :func:`write_sheet`.

    Tracks that are alarms come first; among them those with the highest severity times the root of the pixels: by
    severity alone specks of few pixels lead, for which it is extrapolated (docs/drives.md).
    """
    # 1. the tracks
    names = ["track", "alarm", "worst_index", "worst_segment", "worst_severity", "worst_size"]
    batches = ds.dataset(out / TRACKS_FILE).to_batches(columns=names, filter=pc.field("kept") > 0)
    tracks = heapq.nlargest(count, (row for batch in batches for row in batch.to_pylist()), key=_worst_first)
    # 2. their worst segments
    wanted = pc.field("index").isin([track["worst_index"] for track in tracks])
    rows = dataset(out, "segments").to_table(ALARM, filter=wanted).to_pylist()
    found = {(row["index"], row["segment"]): row for row in rows}
    notes = (f"track {track['track']}{'' if track['alarm'] else ' (no alarm)'}, " for track in tracks)
    worst = (found[track["worst_index"], track["worst_segment"]] for track in tracks)
    return [{**row, "note": note} for row, note in zip(worst, notes, strict=True)]


def _worst_first(track: dict[str, Any]) -> tuple[bool, float, int, int]:
    weight = track["worst_severity"] * math.sqrt(track["worst_size"])
    # ties are decided by place: the same sheet whatever the order of the rows
    return track["alarm"], weight, -track["worst_index"], -track["worst_segment"]


def write_sheet(out: Path, alarms: Sequence[Mapping[str, Any]], name: str = SHEET) -> Path | None:
    """Write alarms as one picture, each frame beside what its box holds; None, and no picture, if there is no alarm.

    Rows have the columns :data:`ALARM`, and perhaps a ``note`` that begins the line below.
    """
    if not alarms:
        (out / name).unlink(missing_ok=True)  # of alarms that were there before
        return None
    rows = -(-len(alarms) // _COLUMNS)
    tile = _WIDTH + _HEIGHT, _HEIGHT + _LINE  # [px]
    sheet = Image.new("RGB", (_COLUMNS * tile[0], rows * tile[1]), "black")
    for number, drawn in enumerate(_tiles(out, alarms)):
        sheet.paste(drawn, (number % _COLUMNS * tile[0], number // _COLUMNS * tile[1]))
    write_image(out / name, np.asarray(sheet), quality=90)
    return out / name


def _tiles(out: Path, alarms: Sequence[Mapping[str, Any]]) -> Iterator[Image.Image]:
    """Yield a tile for each alarm, in their order; its frame is read again."""
    manifest = read_manifest(str(out / MANIFEST))
    with closing(Reader()) as reader:
        for alarm in alarms:
            (frame,) = frames_of(manifest, alarm["index"], 1)
            tile = Image.new("RGB", (_WIDTH + _HEIGHT, _HEIGHT + _LINE), "black")
            draw = ImageDraw.Draw(tile)
            when = "" if alarm["time"] is None else f" at {alarm['time']:.1f} s"
            unsure = ", unlike training" if alarm["unlike_training"] else ""
            text = f"{alarm.get('note', '')}severity {alarm['severity']:.2g}, {alarm['size']} px{unsure}{when}, "
            name, font = frame.id, ImageFont.load_default()
            while name and draw.textlength(text + name, font) > tile.width - 4:  # as much of its end as fits
                name = name[1:]
            draw.text((2, _HEIGHT + 2), text + name, "white", font)
            try:
                whole = Image.fromarray(reader(frame.source, frame.position)[0])
            except (OSError, ValueError):  # gone since
                draw.text((2, 2), "cannot be read any more", "white")
            else:
                _draw(tile, whole, alarm)
            yield tile


def _draw(tile: Image.Image, whole: Image.Image, alarm: Mapping[str, Any]) -> None:
    """Draw a frame with the box of an alarm, and right of it a square around the box."""
    top, left, bottom, right = (alarm[side] for side in SIDES)
    # 1. the frame
    scale = min(_WIDTH / whole.width, _HEIGHT / whole.height)
    small = whole.resize((max(1, round(whole.width * scale)), max(1, round(whole.height * scale))))
    box = [round(scale * side) for side in (left, top, right, bottom)]
    ImageDraw.Draw(small).rectangle((box[0] - 2, box[1] - 2, box[2] + 1, box[3] + 1), outline=KEPT, width=2)
    tile.paste(small, (0, 0))
    # 2. the object with as much again around it, at most the frame
    side = min(max(2 * (bottom - top), 2 * (right - left), 64), whole.height, whole.width)
    x = min(max((left + right - side) // 2, 0), whole.width - side)
    y = min(max((top + bottom - side) // 2, 0), whole.height - side)
    near = whole.resize((_HEIGHT, _HEIGHT), box=(x, y, x + side, y + side))
    enlarged = _HEIGHT / side
    box = [round(enlarged * edge) for edge in (left - x, top - y, right - x, bottom - y)]
    ImageDraw.Draw(near).rectangle((box[0] - 2, box[1] - 2, box[2] + 1, box[3] + 1), outline=KEPT)
    tile.paste(near, (_WIDTH, 0))


def dataset(out: Path, kind: str) -> ds.Dataset:
    """Return a table of a scan by :data:`tables.KINDS`, without columns of features; a ValueError if there is none."""
    if not tables.finished_parts(out):
        raise ValueError(f"{out}: expected the folder of a scan with a finished part")
    return ds.dataset(out / kind, tables.SCHEMAS[kind], format="parquet")
