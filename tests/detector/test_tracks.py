"""Tracks against a slow obvious implementation; gaps, ties, parts, alarms; features know the past alone."""

import itertools
import json
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from meta_ood.data.files import write_json
from meta_ood.detector.scan import tables
from meta_ood.detector.scan.manifest import SCHEMA, write_manifest
from meta_ood.detector.scan.tracks import TEMPORAL_FEATURES, Frame, Observed, Rule, Tracker, link, rule_of

HEIGHT = 128
RULE = Rule(gap=2, overlap=0.1, needed=3, window=5)


def iou(a, b):
    common = max(min(a[2], b[2]) - max(a[0], b[0]), 0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    return common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common)


def predicted(history, now):
    """Where a track should be: its last box, moved and scaled by the mean of its changes a frame, halved by age."""
    places = [
        (frame, ((b[0] + b[2]) / 2, (b[1] + b[3]) / 2, math.log(b[2] - b[0]), math.log(b[3] - b[1])))
        for frame, b in ((frame, seen.box) for frame, seen in history)
    ]
    box = []
    for k in range(4):
        changes = [(y[k] - x[k]) / (n - m) for (m, x), (n, y) in itertools.pairwise(places)]
        motion = sum(change * 0.5 ** (len(changes) - j) for j, change in enumerate(changes))
        box.append(places[-1][1][k] + motion * (now - places[-1][0]))
    height, width, margin = math.exp(box[2]), math.exp(box[3]), HEIGHT / 64
    return (
        box[0] - height / 2 - margin,
        box[1] - width / 2 - margin,
        box[0] + height / 2 + margin,
        box[1] + width / 2 + margin,
    )


def slow_tracks(frames, rule):
    """Return the history [(frame, segment), …] of each track, by birth."""
    tracks = []
    for now, segments in enumerate(frames):
        free = [k for k, history in enumerate(tracks) if now - history[-1][0] - 1 <= rule.gap]
        left = list(range(len(segments)))
        wide = [np.add(seen.box, (-2, -2, 2, 2)) for seen in segments]  # 2 px are the 64th part of the height
        before = {k: predicted(tracks[k], now) for k in free}
        new = dict.fromkeys(left)
        while pairs := [(iou(before[k], wide[s]), -k, -s) for k in free for s in left]:
            best, track, segment = max(pairs)
            if best < rule.overlap:
                break
            free.remove(-track)
            left.remove(-segment)
            new[-segment] = -track
        for segment, track in new.items():
            if track is None:
                tracks.append([])
            tracks[-1 if track is None else track].append((now, segments[segment]))
    return tracks


def slow_features(history):
    """The features after the last of some segments, each said directly."""
    frames, seen = [frame for frame, _ in history], [segment for _, segment in history]
    age = frames[-1] - frames[0]
    return {
        "age": age,
        "flicker": sum(frame not in frames for frame in range(frames[0], frames[-1] + 1)) / (age + 1),
        "growth": (math.log(seen[-1].size) - math.log(seen[0].size)) / age if age else 0,
        "overlap": iou(seen[-2].box, seen[-1].box) if len(seen) > 1 else 0,
        "mean_severity": np.mean([one.severity for one in seen]),
        "highest_severity": max(one.severity for one in seen),
    }


def slow_alarm(history, rule):
    """The first frame with enough segments that count among the last ones, None if there is none."""
    counts = [
        frame for frame, seen in history if (seen.kept if rule.severity is None else seen.severity >= rule.severity)
    ]
    for now in counts:
        if sum(now - rule.window < frame <= now for frame in counts) >= rule.needed:
            return now
    return None


def moving(seed, frames=40):
    """Boxes that move, grow and are missed now and then, among others that come and go."""
    rng = np.random.default_rng(seed)
    things = [
        (rng.uniform(20, 100, 2), rng.uniform(4, 12, 2), rng.normal(0, 2, 2), rng.normal(0.01, 0.02)) for _ in range(6)
    ]
    drive = []
    for step in range(frames):
        boxes = []
        for place, size, motion, growth in things:
            centre, half = place + motion * step, size * math.exp(growth * step) / 2
            low = np.rint(centre - half + rng.normal(0, 0.5, 2)).astype(int)
            if rng.uniform() < 0.8:
                boxes.append((*low.tolist(), *np.maximum(np.rint(centre + half).astype(int), low + 1).tolist()))
        for _ in range(rng.poisson(3)):
            low, side = rng.integers(0, 120, 2), rng.integers(1, 10, 2)
            boxes.append((*low.tolist(), *(low + side).tolist()))
        severity = rng.exponential(1, len(boxes)).tolist()
        drive.append(
            [
                Observed(k, box, int((box[2] - box[0]) * (box[3] - box[1])), severity[k], severity[k] > 1)
                for k, box in enumerate(boxes)
            ]
        )
    return drive


def follow(frames, rule):
    """Return (frame, segment, track number, features) of each segment, and the tracks by number."""
    tracker, rows, tracks = Tracker(rule), [], {}
    for index, segments in enumerate(frames):
        found, _ = tracker.add(Frame(index, index / 10, HEIGHT), segments)
        for seen, (track, overlap) in zip(segments, found, strict=True):
            tracks[track.number] = track
            rows.append((index, seen.segment, track.number, *track.temporal(overlap)))
    return rows, tracks


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("rule", [RULE, Rule(gap=0, overlap=0.3, needed=2, window=2, severity=0.5)])
def test_tracks_are_those_of_the_slow_obvious_way(seed, rule):
    frames = moving(seed)
    rows, tracks = follow(frames, rule)
    slow = slow_tracks(frames, rule)
    assert len(tracks) == len(slow)
    assert max(map(len, slow)) > 10
    place = {(frame, seen.segment): (k, n) for k, history in enumerate(slow) for n, (frame, seen) in enumerate(history)}
    for frame, segment, number, *features in rows:
        track, count = place[frame, segment]
        assert track == number
        expected = slow_features(slow[track][: count + 1])
        assert dict(zip(TEMPORAL_FEATURES, features, strict=True)) == pytest.approx(expected, abs=1e-12)
    raised = {number: track.alarm.row if track.alarm else None for number, track in tracks.items()}
    assert raised == {number: slow_alarm(history, rule) for number, history in enumerate(slow)}
    assert any(index is not None for index in raised.values())


def test_what_comes_later_changes_nothing():
    frames = moving(1)
    rows, _ = follow(frames, RULE)
    early, _ = follow(frames[:20], RULE)
    assert early == rows[: len(early)]


def at(row, column, size=6, severity=2.0, segment=0):
    return Observed(segment, (row, column, row + size, column + size), size * size, severity, severity > 1)


@pytest.mark.parametrize(("missed", "tracks"), [(0, 1), (2, 1), (3, 2)])
def test_a_track_goes_on_over_a_gap_and_no_further(missed, tracks):
    frames = [[at(50, 50)], *([[]] * missed), [at(50, 50)]]
    rows, _ = follow(frames, RULE)
    assert rows[-1][2] == tracks - 1
    assert rows[-1][4] == pytest.approx(missed / (missed + 2) if tracks == 1 else 0)  # flicker


def test_motion_carries_a_track_where_boxes_no_longer_overlap():
    """It speeds up to 12 pixels a frame, twice its size and more than twice the margin."""
    columns = np.cumsum([0, 4, 6, 8, 10, 12, 12, 12, 12]).tolist()
    _, tracks = follow([[at(50, column)] for column in columns], RULE)
    assert len(tracks) == 1
    _, jumped = follow([[at(50, 0)], [at(50, 12)]], RULE)
    assert len(jumped) == 2


def test_of_equal_pairs_the_older_track_and_the_first_segment_come_first():
    twice = [at(50, 50), at(50, 50, segment=1)]
    rows, _ = follow([twice, [at(50, 50)], twice], RULE)
    assert [row[2] for row in rows] == [0, 1, 0, 0, 1]


def test_an_alarm_counts_from_a_severity_or_what_is_kept():
    frames = [[at(50, 50, severity=severity)] for severity in (0.6, 2.0, 0.6, 2.0, 0.6, 2.0)]
    assert follow(frames, RULE)[1][0].alarm.row == 5
    assert follow(frames, Rule(needed=3, window=5, severity=0.5))[1][0].alarm.row == 2
    assert follow(frames, Rule(needed=3, window=5, severity=2.5))[1][0].alarm is None
    assert follow(frames, Rule(needed=3, window=4))[1][0].alarm is None
    assert follow(frames, Rule(needed=1, window=1))[1][0].alarm.row == 1


# --- the tables of a scan ------------------------------------------------------------------------


def write_scan(out, drives, order, frames_per_part, timed=True):
    """Write the tables of a scan of drives (lists of segments a frame); `order` names the drive of each frame."""
    rows, frames, segments, steps = [], [], [], dict.fromkeys(drives, 0)
    for index, name in enumerate(order):
        step = steps[name]
        steps[name] += 1
        own = {"index": index, "sequence": name, "time": step / 10 if timed else None}
        rows.append({**own, "id": str(index), "source": f"{index}.png"})
        found = drives[name][step]
        error = "damaged" if found is None else None
        kept = sum(seen.kept for seen in found or [])
        frames.append({**own, "id": str(index), "error": error, "height": None if error else HEIGHT, "alarm": kept > 0})
        for seen in found or []:
            box = dict(zip(("top", "left", "bottom", "right"), seen.box, strict=True))
            segments.append({**own, **box, **seen._asdict(), "frame": str(index)})
    write_manifest(out / "manifest.parquet", pa.Table.from_pylist(rows, SCHEMA))
    write_json(out / "scan.json", {"frames_per_part": frames_per_part})
    for part, start in enumerate(range(0, len(order), frames_per_part)):
        end = start + frames_per_part
        mine = [row for row in segments if start <= row["index"] < end]
        tables.write_part(tables.part_path(out, "segments", part), mine, tables.SCHEMAS["segments"])
        tables.write_part(tables.part_path(out, "frames", part), frames[start:end], tables.SCHEMAS["frames"])


def test_sequences_go_on_across_parts_and_may_take_turns(tmp_path):
    drives = {"a": moving(3), "b": moving(4), "c": moving(5, frames=25)}
    order = [*"ab" * 40, *"c" * 25]
    write_scan(tmp_path, drives, order, 7)
    counts = link(tmp_path, RULE)
    temporal = pq.read_table(tmp_path / "temporal").to_pylist()
    # 1. a row for each segment, in the same order
    segments = pq.read_table(tmp_path / "segments").to_pylist()
    assert [(row["index"], row["segment"]) for row in temporal] == [(row["index"], row["segment"]) for row in segments]
    # 2. what each drive gives by itself
    told = pq.read_table(tmp_path / "tracks.parquet").to_pylist()
    alarms = 0
    for name, frames in drives.items():
        rows, tracks = follow(frames, RULE)
        indices = [k for k, one in enumerate(order) if one == name]
        own = [row for row, segment in zip(temporal, segments, strict=True) if segment["sequence"] == name]
        assert [tuple(row.values()) for row in own] == [(indices[row[0]], *row[1:]) for row in rows]
        mine = {row["track"]: row for row in told if row["sequence"] == name}
        assert sorted(mine) == sorted(tracks)
        for number, history in enumerate(slow_tracks(frames, RULE)):
            row, alarm = mine[number], slow_alarm(history, RULE)
            assert (row["first_index"], row["last_index"]) == (indices[history[0][0]], indices[history[-1][0]])
            assert (row["seen"], row["kept"]) == (len(history), sum(seen.kept for _, seen in history))
            assert row["frames"] == history[-1][0] - history[0][0] + 1
            worst = max(history, key=lambda pair: (pair[1].kept, pair[1].severity * pair[1].size ** 0.5))
            assert (row["worst_index"], row["worst_segment"]) == (indices[worst[0]], worst[1].segment)
            assert row["alarm"] == (alarm is not None)
            if alarm is not None:
                alarms += 1
                assert (row["alarm_index"], row["alarm_time"]) == (indices[alarm], alarm / 10)
                box = next(seen.box for frame, seen in history if frame == alarm)
                assert tuple(row[side] for side in ("top", "left", "bottom", "right")) == box
    # 3. in all: 10.5 s
    assert (counts["tracks"], counts["alarms"]) == (len(told), alarms)
    assert counts["minutes"] == pytest.approx(10.5 / 60)
    assert counts["alarms_per_minute"] == pytest.approx(alarms / 10.5 * 60)
    frames = sum(any(seen.kept for seen in frame) for drive in drives.values() for frame in drive)
    assert counts["alarm_frames_per_minute"] == pytest.approx(frames / 10.5 * 60)


def test_again_gives_the_same_bytes_and_keeps_the_rule(tmp_path):
    write_scan(tmp_path, {"a": moving(3)}, ["a"] * 40, 9)
    assert rule_of(tmp_path) == Rule()
    written = [tmp_path / "tracks.parquet", tmp_path / "temporal" / "part-00000003.parquet"]
    link(tmp_path, RULE)
    before = [path.read_bytes() for path in written]
    assert rule_of(tmp_path) == RULE
    link(tmp_path, rule_of(tmp_path))
    assert before == [path.read_bytes() for path in written]
    assert json.loads(pq.read_schema(written[0]).metadata[b"rule"])["gap"] == 2


def test_no_segment_no_time_and_frames_that_cannot_be_read(tmp_path):
    write_scan(tmp_path / "empty", {"a": [[], None, []]}, "aaa", 2)
    counts = link(tmp_path / "empty", Rule())
    assert (counts["tracks"], counts["alarms"], counts["alarms_per_minute"]) == (0, 0, 0)
    assert pq.read_table(tmp_path / "empty" / "temporal").num_rows == 0
    assert pq.read_table(tmp_path / "empty" / "tracks.parquet").num_rows == 0
    # a frame that cannot be read is one in which nothing was seen
    write_scan(tmp_path / "torn", {"a": [[at(50, 50)], None, [at(50, 50)]]}, "aaa", 2, timed=False)
    counts = link(tmp_path / "torn", Rule())
    assert (counts["tracks"], counts["minutes"]) == (1, None)
    assert pq.read_table(tmp_path / "torn" / "tracks.parquet")["flicker"].to_pylist() == [pytest.approx(1 / 3)]


def test_a_scan_that_is_not_finished_is_refused(tmp_path):
    write_scan(tmp_path, {"a": moving(3)}, ["a"] * 40, 9)
    tables.part_path(tmp_path, "frames", 2).unlink()
    with pytest.raises(ValueError, match="4 of 5 parts are finished"):
        link(tmp_path, Rule())
    assert not (tmp_path / "tracks.parquet").exists()
