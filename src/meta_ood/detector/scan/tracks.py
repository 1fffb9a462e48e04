"""Tracks: segments of one sequence that are taken for the same thing, their features over time, and alarms.

Everything follows from the tables of a finished scan, frame by frame and from the past alone, so that it could be had
while driving. Memory is that of one part and of the tracks that may go on.
"""

import json
import math
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from meta_ood.data import files
from meta_ood.detector.scan import tables
from meta_ood.detector.scan.engine import MANIFEST, SETTINGS
from meta_ood.detector.scan.manifest import read_manifest

Floats = npt.NDArray[np.float64]

TRACKS_FILE = "tracks.parquet"  # in the folder of a scan
SIDES = ("top", "left", "bottom", "right")
TEMPORAL_FEATURES = ("age", "flicker", "growth", "overlap", "mean_severity", "highest_severity")
_MARGIN = 1 / 64  # of the frame's height, around both boxes: else specks that move by their own size would not overlap
_SMOOTHING = 0.5  # weight of the newest change in the motion of a track: boxes of segments are noisy

TEMPORAL = pa.schema(
    [
        ("index", pa.int64()),
        ("segment", pa.int32()),
        ("track", pa.int64()),
        ("age", pa.int32()),
        *((name, pa.float64()) for name in TEMPORAL_FEATURES[1:]),
    ],
    {"format": "meta-ood scan, temporal, version 1"},
)
TRACKS = pa.schema(
    [
        ("sequence", pa.string()),
        ("track", pa.int64()),
        *((f"{end}_index", pa.int64()) for end in ("first", "last")),
        *((f"{end}_time", pa.float64()) for end in ("first", "last")),
        *((name, pa.int32()) for name in ("frames", "seen", "kept")),
        *((name, pa.float64()) for name in ("flicker", "growth", "mean_severity", "highest_severity")),
        ("worst_index", pa.int64()),
        *((f"worst_{name}", pa.int32()) for name in ("segment", "size")),
        ("worst_severity", pa.float64()),
        ("alarm", pa.bool_()),
        ("alarm_index", pa.int64()),
        ("alarm_time", pa.float64()),
        *((side, pa.int32()) for side in SIDES),
    ],
    {"format": "meta-ood scan, tracks, version 1"},
)


@dataclass(frozen=True)
class Rule:
    """When segments belong to one track, and when a track is an alarm; docs/results/tracks.md has the choice."""

    gap: int = 3  # frames in which a track may be missed, one after another
    overlap: float = 0.1  # the least IoU with the predicted box
    needed: int = 2  # an alarm is a track with so many segments that count …
    window: int = 3  # … in so many frames
    severity: float | None = None  # a segment counts from this severity on; None: if it is kept


class Observed(NamedTuple):
    """A segment of a frame, as the tables have it."""

    segment: int
    box: tuple[int, int, int, int]  # top, left, bottom, right, half open [px]
    size: int  # [px]
    severity: float
    kept: bool

    @property
    def weight(self) -> tuple[bool, float]:
        """The order of the contact sheet: kept before removed, then severity times the root of the size."""
        return self.kept, self.severity * math.sqrt(self.size)


class Frame(NamedTuple):
    """A frame of a sequence."""

    row: int  # of the manifest
    time: float | None  # [s]
    height: int  # [px]


@dataclass(slots=True, eq=False)
class Track:
    """What is known of a track after its last segment."""

    number: int  # in its sequence, by birth
    first: Frame
    born: int  # frame of the sequence in which it was first seen
    first_size: int
    place: tuple[float, ...]  # centre row, centre column, log height, log width of its last box
    motion: tuple[float, ...]  # their change a frame
    counted: deque[int]  # the last frames with a segment that counts for an alarm, as many as are needed
    last: Frame
    seen_at: int  # frame of the sequence in which it was last seen
    box: tuple[int, ...]
    size: int
    seen: int = 0  # segments
    kept: int = 0
    sum_severity: float = 0.0
    highest: float = -np.inf  # severity
    worst: Observed | None = None  # see Observed.weight; of equal ones the first
    worst_row: int = -1  # of the manifest, of its frame
    alarm: Frame | None = None
    alarm_box: tuple[int, ...] = (0, 0, 0, 0)

    def temporal(self, overlap: float) -> tuple[float, ...]:
        """Return the values of :data:`TEMPORAL_FEATURES` after its last segment, which overlaps the one before so."""
        age = self.seen_at - self.born
        growth = float(np.log(self.size / self.first_size)) / age if age else 0.0
        return age, 1 - self.seen / (age + 1), growth, overlap, self.sum_severity / self.seen, self.highest

    def row(self, sequence: str) -> dict[str, Any]:
        """Return its row of ``tracks``."""
        age, flicker, growth, _, mean, highest = self.temporal(0.0)
        row = {"sequence": sequence, "track": self.number, "frames": age + 1, "seen": self.seen, "kept": self.kept}
        row |= {"first_index": self.first.row, "first_time": self.first.time}
        row |= {"last_index": self.last.row, "last_time": self.last.time}
        row |= {"flicker": flicker, "growth": growth, "mean_severity": mean, "highest_severity": highest}
        if worst := self.worst:
            row |= {"worst_index": self.worst_row, "worst_segment": worst.segment}
            row |= {"worst_size": worst.size, "worst_severity": worst.severity}
        if alarm := self.alarm:
            row |= {"alarm_index": alarm.row, "alarm_time": alarm.time, **dict(zip(SIDES, self.alarm_box, strict=True))}
        return {**row, "alarm": self.alarm is not None}


class Tracker:
    """The tracks of one sequence, frame by frame."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.open: list[Track] = []  # that may go on, by number
        self._frames = 0
        self._born = 0

    def add(self, frame: Frame, segments: Sequence[Observed]) -> tuple[list[tuple[Track, float]], list[Track]]:
        """Take the next frame.

        Args:
            frame: The frame. One that could not be read has no segments.
            segments: All its segments, kept or not.

        Returns:
            The track of each segment and the IoU with its last box (0 for a new track), and the tracks that have ended.
        """
        now, gap = self._frames, self.rule.gap
        self._frames += 1
        # 1. tracks that were missed too often end
        ended = [track for track in self.open if now - track.seen_at > gap + 1]
        self.open = [track for track in self.open if now - track.seen_at <= gap + 1]
        # 2. at most one segment goes on with each track
        partners = self._partners(segments, now, _MARGIN * frame.height)
        found: list[tuple[Track, float]] = []
        for number, seen in enumerate(segments):
            partner = partners.get(number)
            track = self._new(frame, seen, now) if partner is None else self.open[partner]
            overlap = 0.0 if partner is None else _overlap(track.box, seen.box)
            self._continue(track, frame, seen, now)
            found.append((track, overlap))
        self.open += [track for track, _ in found if track.born == now]
        return found, ended

    def _partners(self, segments: Sequence[Observed], now: int, margin: float) -> dict[int, int]:
        """Return the place in `open` of the track that each segment goes on with, by the segment's place.

        Pairs are taken by falling overlap of predicted and found box; of equal ones the older track, then the first
        segment.
        """
        if not (self.open and segments):
            return {}
        # 1. where the tracks should be now
        waited = np.array([now - track.seen_at for track in self.open], np.float64)[:, None]
        place = np.array([track.place for track in self.open])
        place += waited * np.array([track.motion for track in self.open])
        half = np.exp(np.minimum(place[:, 2:], 20)) / 2  # a box that grew on and on would overflow
        before = np.concatenate([place[:, :2] - half - margin, place[:, :2] + half + margin], axis=1)
        boxes = np.array([seen.box for seen in segments]) + np.array([-margin, -margin, margin, margin])
        # 2. overlaps of all pairs
        low = np.maximum(before[:, None, :2], boxes[None, :, :2])
        high = np.minimum(before[:, None, 2:], boxes[None, :, 2:])
        common = np.maximum(high - low, 0).prod(axis=2)
        areas = (before[:, 2:] - before[:, :2]).prod(axis=1), (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
        iou = common / (areas[0][:, None] + areas[1][None, :] - common)
        # 3. the best pair, then the best of what is left
        tracks, places = np.nonzero(iou >= self.rule.overlap)
        order = np.lexsort((places, tracks, -iou[tracks, places]))
        taken: set[int] = set()
        partners: dict[int, int] = {}
        for track, segment in zip(tracks[order].tolist(), places[order].tolist(), strict=True):
            if track not in taken and segment not in partners:
                taken.add(track)
                partners[segment] = track
        return partners

    def _new(self, frame: Frame, seen: Observed, now: int) -> Track:
        track = Track(
            self._born, frame, now, seen.size, _place(seen.box), (0.0,) * 4, deque(maxlen=self.rule.needed), frame, now,
            seen.box, seen.size,
        )  # fmt: skip
        self._born += 1
        return track

    def _continue(self, track: Track, frame: Frame, seen: Observed, now: int) -> None:
        """Add a segment to a track, the first one too."""
        # 1. place and motion
        place, passed = _place(seen.box), now - track.seen_at
        if passed:
            changes = ((new - old) / passed for new, old in zip(place, track.place, strict=True))
            pairs = zip(track.motion, changes, strict=True)
            track.motion = tuple((1 - _SMOOTHING) * old + _SMOOTHING * new for old, new in pairs)
        track.place, track.box, track.size, track.last, track.seen_at = place, seen.box, seen.size, frame, now
        # 2. what it adds up to
        track.seen += 1
        track.kept += seen.kept
        track.sum_severity += seen.severity
        track.highest = max(track.highest, seen.severity)
        if track.worst is None or seen.weight > track.worst.weight:
            track.worst, track.worst_row = seen, frame.row
        # 3. the alarm
        threshold = self.rule.severity
        if seen.kept if threshold is None else seen.severity >= threshold:
            track.counted.append(now)
        is_alarm = len(track.counted) == self.rule.needed and now - track.counted[0] < self.rule.window
        if is_alarm and track.alarm is None:
            track.alarm, track.alarm_box = frame, seen.box


def _place(box: tuple[int, int, int, int]) -> tuple[float, ...]:
    top, left, bottom, right = box
    return (top + bottom) / 2, (left + right) / 2, float(np.log(bottom - top)), float(np.log(right - left))


def _overlap(a: Sequence[int], b: Sequence[int]) -> float:
    """Return the IoU of two boxes."""
    rows, columns = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    common = max(rows, 0) * max(columns, 0)
    return common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common)


def rule_of(out: Path) -> Rule:
    """Return the rule with which the tracks of a scan were made; the default if there are none.

    ValueError if their table is damaged.
    """
    path = out / TRACKS_FILE
    if not path.exists():
        return Rule()
    try:
        return Rule(**json.loads(pq.read_schema(path).metadata[b"rule"]))
    except (pa.ArrowException, KeyError, TypeError) as error:
        raise ValueError(
            f"{path}: damaged: make it again with `meta-ood tracks` and the rule it had: {error}"
        ) from error


def link(out: Path, rule: Rule) -> dict[str, float | int | None]:
    """Write the tables ``tracks`` and ``temporal`` of a finished scan, again if they are there.

    Returns:
        Numbers of ``tracks`` and of ``alarms`` among them; ``minutes`` of the sequences whose times are known, None if
        there are none; in these, ``alarms_per_minute`` and ``alarm_frames_per_minute``, of frames with a kept segment.

    Raises:
        FileNotFoundError, ValueError: The folder holds no scan, or one that is not finished.
    """
    # 1. the scan must be whole: sequences span parts
    manifest = read_manifest(str(out / MANIFEST))
    parts = -(-len(manifest) // int(files.read_json(out / SETTINGS)["frames_per_part"]))
    finished = tables.finished_parts(out)
    if len(finished) < parts:
        raise ValueError(f"{out}: {len(finished)} of {parts} parts are finished: run meta-ood scan to its end first")
    # 2. one part after another; a sequence is forgotten after its last frame
    rows = pa.table({"sequence": manifest["sequence"], "index": np.arange(len(manifest))})
    ends = rows.group_by("sequence").aggregate([("index", "max")])
    last = dict(zip(ends["sequence"].to_pylist(), ends["index_max"].to_pylist(), strict=True))
    counts: Counter[str] = Counter()
    open_sequences: dict[str, _Sequence] = {}
    (out / TRACKS_FILE).unlink(missing_ok=True)  # it is written last: where it is, all belong together
    schema = TRACKS.with_metadata({**TRACKS.metadata, b"rule": json.dumps(asdict(rule))})
    with files.replacing(out / TRACKS_FILE) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as to:
        for part in finished:
            temporal: list[tuple[Any, ...]] = []
            ended: list[dict[str, Any]] = []
            for name, frame, segments in _frames(out, part):
                sequence = open_sequences.setdefault(name, _Sequence(Tracker(rule)))
                found, over = sequence.add(frame, segments)
                if last[name] == frame.row:
                    over += sequence.tracker.open
                    counts.update(sequence.counts())
                    del open_sequences[name]
                counts.update(tracks=len(over), alarms=sum(track.alarm is not None for track in over))
                ended += [track.row(name) for track in over]
                for seen, (track, overlap) in zip(segments, found, strict=True):
                    temporal.append((frame.row, seen.segment, track.number, *track.temporal(overlap)))
            columns = [list(column) for column in zip(*temporal, strict=True)] or [[] for _ in TEMPORAL]
            with files.replacing(tables.part_path(out, "temporal", part)) as path:
                pq.write_table(pa.table(columns, TEMPORAL), path, compression="zstd")
            to.write_table(pa.Table.from_pylist(ended, schema))
    minutes = counts["seconds"] / 60
    return {
        "tracks": counts["tracks"],
        "alarms": counts["alarms"],
        "minutes": minutes or None,
        "alarms_per_minute": counts["timed_alarms"] / minutes if minutes else None,
        "alarm_frames_per_minute": counts["timed_frames"] / minutes if minutes else None,
    }


@dataclass(eq=False)
class _Sequence:
    """The tracker of a sequence, and what its alarms per minute need."""

    tracker: Tracker
    times: tuple[float | None, float | None] = (None, None)  # [s] of the first and the last frame
    frames: int = 0
    alarm_frames: int = 0
    alarms: int = 0

    def add(self, frame: Frame, segments: Sequence[Observed]) -> tuple[list[tuple[Track, float]], list[Track]]:
        self.times = (self.times[0] if self.frames else frame.time), frame.time
        self.frames += 1
        self.alarm_frames += any(seen.kept for seen in segments)
        found, ended = self.tracker.add(frame, segments)
        self.alarms += sum(track.alarm is frame for track, _ in found)
        return found, ended

    def counts(self) -> Mapping[str, float]:
        """Return seconds and alarms if the times are known and rise, else nothing."""
        first, last = self.times
        if first is None or last is None or last <= first:
            return {}
        # n frames last n times as long as one, n - 1 lie between the first and the last
        seconds = (last - first) * self.frames / (self.frames - 1)
        return {"seconds": seconds, "timed_alarms": self.alarms, "timed_frames": self.alarm_frames}


def _frames(out: Path, part: int) -> Iterator[tuple[str, Frame, list[Observed]]]:
    """Yield sequence, frame and segments of the rows of a part."""
    frames = pq.read_table(tables.part_path(out, "frames", part), columns=["sequence", "index", "time", "height"])
    names = ["index", "segment", *SIDES, "size", "severity", "kept"]
    segments = pq.read_table(tables.part_path(out, "segments", part), columns=names)
    columns = [segments[name].to_pylist() for name in names]
    rows = zip(*columns, strict=True)
    seen = [Observed(row[1], row[2:6], row[6], row[7], row[8]) for row in rows]
    starts = np.searchsorted(segments["index"].to_numpy(), frames["index"].to_numpy()).tolist()
    for row, start, end in zip(frames.to_pylist(), starts, [*starts[1:], len(seen)], strict=True):
        yield row["sequence"], Frame(row["index"], row["time"], row["height"] or 0), seen[start:end]
