"""`meta-ood manifest` and `meta-ood scan`: inputs, tables against the detector itself, kills."""

import errno
import io
import itertools
import json
import math
import os
import shutil
import signal
import tarfile
import threading
import time
from contextlib import closing
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import children
from meta_ood import Detector, cli
from meta_ood.data import workers
from meta_ood.data.context import Machine
from meta_ood.data.files import file_hash
from meta_ood.data.images import read_image
from meta_ood.data.overlays import KEPT
from meta_ood.detector import demo
from meta_ood.detector.scan import engine, parts, sources, summary, tables
from meta_ood.detector.scan.manifest import SCHEMA, frames_of, make_manifest, read_manifest, write_manifest
from meta_ood.detector.scan.task import Scan
from meta_ood.detector.scan.video import VIDEO
from meta_ood.inference import prediction

PHOTOS = sorted(demo.PHOTOS.iterdir())


@pytest.fixture(autouse=True, scope="module")
def _server() -> None:
    """Start the process that others are forked from with the imports of all tests."""
    children.start(int).join()


def invoke(*words: object, code: int = 0) -> str:
    result = CliRunner().invoke(cli.main, ["-q", *map(str, words)])
    assert result.exit_code == code, result.output
    return result.output


def rows(manifest: pa.Table) -> list[tuple[object, ...]]:
    return [tuple(row.values()) for row in manifest.to_pylist()]


@pytest.fixture
def drives(tmp_path, monkeypatch):
    """Two drives of drawn frames, a note beside them; the working folder is theirs."""
    monkeypatch.chdir(tmp_path)
    for name, photo in (("a/2.png", PHOTOS[0]), ("a/10.JPG", PHOTOS[1]), ("b/cam/1.png", PHOTOS[2])):
        path = Path("fleet", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(photo, path)
    Path("fleet/a/note.md").write_text("no frame")
    return tmp_path


# --- inputs ------------------------------------------------------------------------------------


def test_folder_pattern_and_lists_name_the_same_frames(drives):
    expected = [
        # numbers in their order: without zeros before them too, frames follow each other
        ("fleet/a/2.png", "fleet/a/2.png", None, "fleet/a", None, None),
        ("fleet/a/10.JPG", "fleet/a/10.JPG", None, "fleet/a", None, None),
        ("fleet/b/cam/1.png", "fleet/b/cam/1.png", None, "fleet/b/cam", None, None),
    ]
    assert rows(make_manifest(["fleet"])) == expected
    assert rows(make_manifest(["fleet/a", "./fleet/b"])) == [
        *expected[:2],
        (expected[2][0], "./fleet/b/cam/1.png", *expected[2][2:]),
    ]
    assert rows(make_manifest(["fleet/**/*.[jJpP]*"])) == expected
    Path("list.txt").write_text("fleet/a\n\nfleet/b/cam/1.png\n")
    assert rows(make_manifest(["list.txt"])) == expected
    # relative to the list, not to the working folder
    Path("fleet/list.csv").write_text("source,id,sequence,time\nb/cam/1.png,one,drive,0.5\na/2.png,,,\n")
    assert rows(make_manifest(["fleet/list.csv"])) == [
        ("one", "fleet/b/cam/1.png", None, "drive", 0.5, None),
        ("fleet/a/2.png", "fleet/a/2.png", None, "fleet/a", None, None),
    ]


def test_every_nth_frame_is_counted_in_each_sequence(drives):
    Path("list.csv").write_text("source,id,sequence\n" + "".join(f"x.png,{k},{k % 2}\n" for k in range(9)))
    assert make_manifest(["list.csv"], every=3)["id"].to_pylist() == ["0", "1", "6", "7"]
    write_manifest(Path("all.parquet"), make_manifest(["list.csv"]))
    assert make_manifest(["all.parquet"], every=3)["id"].to_pylist() == ["0", "1", "6", "7"]


def test_names_of_lost_and_found_tell_sequences_apart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = [f"02_Street_4_{sequence:06d}_{frame:06d}" for sequence, frame in ((0, 90), (0, 100), (3, 10))]
    paths = [*(f"laf/02_Street_4/{name}_leftImg8bit.png" for name in names), "x/ulm_000002_000019_leftImg8bit.png"]
    for path in paths:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).touch()
    manifest = make_manifest(["laf", "x"])
    assert manifest["id"].to_pylist() == paths
    one = "laf/02_Street_4/02_Street_4_00000"
    # Cityscapes has one frame of each sequence: its folder is the sequence
    assert manifest["sequence"].to_pylist() == [f"{one}0", f"{one}0", f"{one}3", "x"]


def test_a_manifest_needs_ids_and_sources_only(tmp_path):
    path = tmp_path / "own.parquet"
    pq.write_table(pa.table({"source": ["x.png"], "id": ["x"], "weather": ["rain"]}), path)
    assert rows(read_manifest(str(path))) == [("x", "x.png", None, "", None, None)]
    pq.write_table(pa.table({"source": ["x.png"]}), path)
    with pytest.raises(ValueError, match="columns id, source"):
        read_manifest(str(path))


@pytest.mark.parametrize(
    ("ids", "says"),
    [
        (["a", "b", "a"], "'a' stands for two"),
        *(([name], r"without \.\. and control") for name in ("../a", "/a", "", "a/..", "a\0", "a\nb")),
    ],
)
def test_ids_that_no_picture_can_be_named_by_are_refused(tmp_path, ids, says):
    path = tmp_path / "own.parquet"
    pq.write_table(pa.table({"id": ids, "source": [f"{k}.png" for k in range(len(ids))]}), path)
    with pytest.raises(ValueError, match=says):
        read_manifest(str(path))


def test_wrong_inputs_are_named(drives):
    for given, says in (
        ("nothing.png", "nothing.png: no such file"),
        ("fleet/*.gif", "matches no file"),
        ("fleet/a/note.md", "note.md: expected a folder or one of .png"),
    ):
        with pytest.raises(FileNotFoundError, match=says.replace("*", r"\*")):
            make_manifest([given])
    Path("empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no image, tar archive or video in empty"):
        make_manifest(["empty"])
    assert "K/N" in invoke("scan", "fleet", "--detector", demo.DETECTOR, "--shard", "5/4", code=2)


def test_a_subfolder_without_rights_is_not_left_out(tmp_path, monkeypatch):
    (tmp_path / "private").mkdir()
    shutil.copyfile(PHOTOS[0], tmp_path / "0.png")
    listed = os.scandir

    def scandir(path):
        if str(path).endswith("private"):  # root ignores rights
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert "private" in invoke("manifest", tmp_path, "--out", tmp_path / "m.parquet", code=2)


def test_times_that_say_nothing(drives):
    """Writers without nulls say NaN, and a scan with one could not go on: NaN is unlike itself."""
    pq.write_table(pa.table({"id": ["a", "b"], "source": ["x.png"] * 2, "time": [np.nan, 1.0]}), "own.parquet")
    assert make_manifest(["own.parquet"])["time"].to_pylist() == [None, 1.0]
    Path("own.csv").write_text("source,time\nx.png,nan\n")
    with pytest.raises(ValueError, match="'nan' of x"):
        make_manifest(["own.csv"])


def test_a_name_of_other_bytes_is_told(drives):
    Path("fleet/a/2.png").rename(os.fsdecode(b"fleet/a/\xff.png"))
    with pytest.raises(ValueError, match="not UTF-8: rename it"):
        make_manifest(["fleet"])


def test_names_too_long_for_pictures_are_told_before_the_work(drives):
    name, words = 200 * "x" + 7 * "日" + ".png", ("scan", "long", "--detector", demo.DETECTOR, "--out", "out")
    Path("long").mkdir()
    shutil.copyfile(PHOTOS[0], Path("long", name))
    assert "longer than 220 bytes" in invoke(*words, "--pictures", "all", code=2)
    # a shard without a part of its own, before the others, has nothing to say and is no failure
    assert "0 of 1 parts" in invoke(*words, "--shard", "2/2")


def read_all(manifest):
    reader = sources.Reader()
    try:
        return [reader(frame.source, frame.position) for frame in frames_of(manifest, 0, len(manifest))]
    finally:
        reader.close()


def test_members_of_an_archive_are_the_files(drives):
    long = f"{'deep/' * 30}2.png"  # its name takes headers of its own
    with tarfile.open("shard.tar", "w", format=tarfile.GNU_FORMAT) as archive:
        for photo, name in ((PHOTOS[0], "10.png"), (PHOTOS[1], "note.txt"), (PHOTOS[2], long)):
            archive.add(photo, name)
    manifest = make_manifest(["shard.tar"])
    assert manifest["id"].to_pylist() == ["shard.tar/10.png", f"shard.tar/{long}"]
    # backwards too
    for (pixels, digest), photo in zip(read_all(manifest.take([1, 0])), (PHOTOS[2], PHOTOS[0]), strict=True):
        assert digest == file_hash(photo)
        np.testing.assert_array_equal(pixels, np.array(Image.open(photo).convert("RGB")))


def test_a_cut_archive_keeps_what_is_whole(drives):
    with tarfile.open("shard.tar", "w") as archive:
        for photo in PHOTOS:
            archive.add(photo, photo.name)
    content = Path("shard.tar").read_bytes()
    Path("cut.tar").write_bytes(content[: 512 * 3])
    Path("none.tar").write_bytes(b"not an archive" * 100)
    manifest = make_manifest(["cut.tar", "none.tar"])
    assert manifest["id"].to_pylist()[0] == f"cut.tar/{PHOTOS[0].name}"
    assert manifest["id"].to_pylist()[-1] == "none.tar/damaged"
    assert "none.tar: not a tar archive" in manifest["error"].to_pylist()[-1]
    with pytest.raises(ValueError, match=r"cut\.tar"):
        read_all(manifest.slice(0, 1))


@pytest.fixture
def video(drives):
    """A lossless video of ten frames of one grey each, 25 a second, with a key frame every four."""
    av = pytest.importorskip("av")
    with av.open("clip.mkv", "w") as container:
        stream = container.add_stream("ffv1", rate=25, options={"g": "4"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "bgr0"
        for number in range(10):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 20 * number, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return Path("clip.mkv")


def test_frames_of_a_video_in_any_order(video):
    manifest = make_manifest([str(video)])
    assert manifest["id"].to_pylist() == [f"clip.mkv/{number:06d}" for number in range(10)]
    assert set(manifest["sequence"].to_pylist()) == {"clip.mkv"}
    np.testing.assert_allclose(manifest["time"], np.arange(10) / 25, atol=1e-3)
    order = [7, 8, 2, 3, 9, 0]
    for number, (pixels, _) in zip(order, read_all(manifest.take(order)), strict=True):
        np.testing.assert_array_equal(pixels, np.full((48, 64, 3), 20 * number))
    assert make_manifest([str(video)], every=4)["id"].to_pylist() == [f"clip.mkv/{k:06d}" for k in (0, 4, 8)]


def test_a_video_that_is_none_is_a_frame_with_an_error(drives):
    pytest.importorskip("av")
    Path("clip.mp4").write_bytes(b"no video" * 100)
    ((name, source, position, sequence, _, error),) = rows(make_manifest(["clip.mp4"]))
    assert (name, source, position, sequence) == ("clip.mp4/damaged", "clip.mp4", None, "clip.mp4")
    assert "clip.mp4: not a video" in error


def test_other_file_systems_have_the_same_frames(drives):
    fsspec = pytest.importorskip("fsspec")
    store = fsspec.filesystem("memory")
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        archive.add(PHOTOS[2], "cam/1.png")
    try:
        store.pipe({"/bucket/a/1.png": PHOTOS[0].read_bytes(), "/bucket/shard.tar": content.getvalue()})
        store.pipe("/bucket/list.txt", b"a/1.png\n")
        manifest = make_manifest(["memory://bucket"])
        assert manifest["source"].to_pylist() == ["memory:///bucket/a/1.png", "memory:///bucket/shard.tar"]
        assert manifest["id"].to_pylist() == ["bucket/a/1.png", "bucket/shard.tar/cam/1.png"]
        assert [digest for _, digest in read_all(manifest)] == [file_hash(PHOTOS[0]), file_hash(PHOTOS[2])]
        assert make_manifest(["memory://bucket/*/*.png"])["id"].to_pylist() == ["bucket/a/1.png"]
        assert make_manifest(["memory://bucket/list.txt"])["id"].to_pylist() == ["bucket/a/1.png"]
    finally:
        store.rm("/bucket", recursive=True)


def test_a_web_server_that_goes_away_is_no_missing_file(tmp_path, monkeypatch):
    pytest.importorskip("aiohttp")
    monkeypatch.setattr(sources, "_PAUSES", (0.1,))
    shutil.copyfile(PHOTOS[0], tmp_path / "0.png")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=tmp_path))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    with closing(sources.Reader()) as reader:
        assert reader(f"{address}/0.png", None)[1] == file_hash(PHOTOS[0])
        with pytest.raises(FileNotFoundError):
            reader(f"{address}/1.png", None)
        server.shutdown()
        server.server_close()
        with pytest.raises(ConnectionError, match=r"no answer any more: http://127.*0\.png"):
            reader(f"{address}/0.png", None)


# --- tables ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    """Twelve frames: photos of the package with a column removed each, and one that is no image."""
    folder = tmp_path_factory.mktemp("frames")
    for number in range(12):
        photo = Image.open(PHOTOS[number % 3]).convert("RGB").crop((number, 0, 256, 128))
        photo.save(folder / f"{number:02d}.png")
    (folder / "05.png").write_bytes(b"no image")
    return folder


@pytest.fixture(scope="module")
def scanned(frames, tmp_path_factory):
    out = tmp_path_factory.mktemp("scan")
    task = (
        "scan",
        frames,
        "--detector",
        demo.DETECTOR,
        "--out",
        out,
        "--features",
        "--embeddings",
        "--frames-per-part",
        3,
    )
    text = invoke(*task, "--workers", 1, "--pictures", "alarms", "--json", code=3)
    return out, json.loads(text)


def contents(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for kind in ("frames", "segments") for path in (out / kind).iterdir()}


def part_files(out: Path, kind: str) -> list[Path]:
    return sorted((out / kind).glob("part-*.parquet"))


def test_the_tables_say_what_the_detector_says(frames, scanned):
    out, told = scanned
    detector = Detector.load(demo.DETECTOR, "cpu", embed=True)
    by_frame = pq.read_table(out / "frames").to_pylist()
    by_segment = pq.read_table(out / "segments").to_pylist()
    assert [row["index"] for row in by_frame] == list(range(12))
    for row in by_frame:
        path = frames / Path(row["id"]).name
        own = [segment for segment in by_segment if segment["frame"] == row["id"]]
        if path.name == "05.png":
            assert "not an image" in row["error"]
            assert row["alarm"] is row["segments"] is row["sha256"] is None
            assert own == []
            continue
        found = detector(path)
        assert row["error"] is None
        assert row["sha256"] == file_hash(path)
        assert (row["height"], row["width"]) == found.labels.shape
        assert (row["segments"], row["kept"]) == (len(found.segments), sum(s.kept for s in found.segments))
        assert row["alarm"] == (row["kept"] > 0)
        assert row["highest_severity"] == max(s.severity for s in found.segments)
        for segment, expected, features in zip(own, found.segments, found.table.features, strict=True):
            assert tuple(segment[side] for side in ("top", "left", "bottom", "right")) == expected.box
            for name in ("size", "score", "severity", "false_alarm", "kept", "reasons", "farthest", "unlike_training"):
                assert segment[name] == getattr(expected, name), name
            assert [segment[name] for name in found.table.feature_names] == features.tolist()
            embedding = found.embeddings[segment["segment"]].tolist() if expected.kept else None
            assert segment["embedding"] == embedding
    assert told["frames"] == 12
    assert told["unreadable"] == 1
    assert told["alarm"] == sum(bool(row["alarm"]) for row in by_frame)
    assert told["removed"] == sum(not row["kept"] for row in by_segment)
    assert {*told["seconds"]} == {*tables.STEPS, "write"}


def test_pictures_are_those_of_the_frames_with_an_alarm(scanned):
    out, _ = scanned
    alarms = {row["id"] for row in pq.read_table(out / "frames").to_pylist() if row["alarm"]}
    found = {path.relative_to(out / "pictures").as_posix() for path in (out / "pictures").rglob("*.png")}
    assert found == {f"{name}_{kind}.png" for name in alarms for kind in ("mask", "overlay")}
    for name in alarms:
        mask = np.array(Image.open(out / "pictures" / f"{name}_mask.png"))
        kept = [r for r in pq.read_table(out / "segments").to_pylist() if r["frame"] == name and r["kept"]]
        assert (mask == 255).sum() == sum(row["size"] for row in kept)


def test_the_sheet_shows_the_worst_of_each_track(scanned):
    out, told = scanned
    assert told["sheet"] == str(out / summary.SHEET)
    segments, temporal = pq.read_table(out / "segments").to_pylist(), pq.read_table(out / "temporal").to_pylist()
    kept = [
        (row["sequence"], own["track"], row["severity"] * math.sqrt(row["size"]))
        for row, own in zip(segments, temporal, strict=True)
        if row["kept"]
    ]
    chosen = summary.worst_alarms(out, count=1000)
    assert len(chosen) == len({row[:2] for row in kept})
    # alarms first, and of those the worst
    order = [("no alarm" not in row["note"], row["severity"] * math.sqrt(row["size"])) for row in chosen]
    assert order == sorted(order, reverse=True)
    assert max(weight for _, weight in order) == max(row[2] for row in kept)
    assert summary.worst_alarms(out, count=2) == chosen[:2]
    assert read_image(out / summary.SHEET).shape[1] == 1000


def test_tracks_again_with_another_rule(scanned, tmp_path):
    """With one segment needed each track with a kept segment is an alarm."""
    out = shutil.copytree(scanned[0], tmp_path / "scan")
    told = json.loads(invoke("tracks", out, "--needed", "1", "--window", "1", "--json"))
    tracks = pq.read_table(out / "tracks.parquet").to_pylist()
    assert [row["alarm"] for row in tracks] == [row["kept"] > 0 for row in tracks]
    assert told["tracks"]["alarms"] == sum(row["alarm"] for row in tracks) > scanned[1]["tracks"]["alarms"]
    assert told["rule"]["needed"] == 1
    assert "cannot lie in" in invoke("tracks", out, "--needed", "4", "--window", "3", code=2)


def test_the_video_shows_boxes_of_alarms(scanned, tmp_path):
    av = pytest.importorskip("av")
    out = shutil.copytree(scanned[0], tmp_path / "scan", ignore=shutil.ignore_patterns("pictures"))

    def shown(*rule):
        """Return the numbers of orange and of white pixels of each picture."""
        invoke("tracks", out, *rule, "--video")
        with av.open(str(out / VIDEO)) as container:
            pictures = [frame.to_ndarray(format="rgb24").astype(int) for frame in container.decode(video=0)]
        # compression changes colours a little
        orange = [(np.abs(picture - KEPT) < 40).all(axis=2).sum() for picture in pictures]
        return orange, [(picture > 200).all(axis=2).sum() for picture in pictures]

    readable = [row for row in pq.read_table(out / "frames").to_pylist() if row["error"] is None]
    orange, white = shown("--needed", "1", "--window", "1")
    # with no alarm the boxes of kept segments are white
    none, more = shown("--needed", "99", "--window", "99")
    assert [box > photo + 200 for box, photo in zip(orange, none, strict=True)] == [row["alarm"] for row in readable]
    assert [box > photo + 200 for box, photo in zip(more, white, strict=True)] == [row["alarm"] for row in readable]


def test_a_second_run_does_nothing_and_another_scan_is_refused(frames, scanned, monkeypatch):
    out, told = scanned
    times = {path: path.stat().st_mtime_ns for kind in tables.KINDS for path in part_files(out, kind)}
    assert len(times) == 12
    given = ("scan", frames, "--detector", demo.DETECTOR, "--out", out, "--embeddings", "--frames-per-part", 3)
    again = json.loads(invoke(*given, "--features", "--pictures", "alarms", "--json", code=3))
    assert again["seconds"] == {}
    assert {key: again[key] for key in summary.COUNTED} == {key: told[key] for key in summary.COUNTED}
    assert times == {path: path.stat().st_mtime_ns for path in times}
    assert "other features, pictures" in invoke(*given, code=2)
    assert "other frames" in invoke(*given, "--features", "--pictures", "alarms", "--every", 2, code=2)


# --- kills -------------------------------------------------------------------------------------


def test_kills_and_numbers_of_processes_change_no_byte(frames, scanned, tmp_path, monkeypatch):
    """Two processes are killed after a frame and replaced; the other half is a job of its own."""
    reference = contents(scanned[0])
    task = Scan(tmp_path, demo.DETECTOR, "cpu", "none", True, 3, True)
    manifest = make_manifest([str(frames)])
    engine.prepare(task, manifest)
    killed = []

    class Killed(workers._Worker):
        def __setattr__(self, name, value):
            super().__setattr__(name, value)
            if name == "done" and value and len(killed) < 2 and self not in killed:
                killed.append(self)
                os.kill(self.process.pid, signal.SIGKILL)

    monkeypatch.setattr(workers, "_Worker", Killed)
    engine.run(task, manifest, Machine("cpu", 2), shard=(1, 2))
    assert [worker.process.exitcode for worker in killed] == [-signal.SIGKILL] * 2
    assert tables.finished_parts(tmp_path) == [0, 2]
    engine.run(task, manifest, Machine("cpu", 1), shard=(2, 2))
    assert contents(tmp_path) == reference


@pytest.mark.parametrize(
    ("lost", "added", "says"),
    [
        ("scan.json", None, "settings (scan.json) are lost"),
        (None, "frames/part-00000001 (copy).parquet", "(copy).parquet: expected part-"),
        (None, "tracks.parquet", "tracks.parquet: damaged: make it again"),
    ],
)
def test_a_damaged_folder_is_told(frames, scanned, tmp_path, lost, added, says):
    out = shutil.copytree(scanned[0], tmp_path / "scan")
    if lost:
        (out / lost).unlink()
    if added:
        (out / added).write_bytes(b"")
    task = ("scan", frames, "--detector", demo.DETECTOR, "--out", out, "--features", "--embeddings")
    assert says in invoke(*task, "--frames-per-part", 3, "--pictures", "alarms", code=2)


@pytest.mark.parametrize("engine_name", ["local", "ray"])
def test_a_killed_driver_leaves_no_process_and_the_same_call_goes_on(frames, scanned, tmp_path, engine_name):
    if engine_name == "ray":
        pytest.importorskip("ray")
    task, machine = Scan(tmp_path, demo.DETECTOR, "cpu", "none", True, 3, True), Machine("cpu", 2, engine_name)
    manifest = make_manifest([str(frames)])
    engine.prepare(task, manifest)
    driver = children.start(engine.run, task, manifest, machine)
    while not any(tmp_path.glob("journal/*/*")):
        assert driver.is_alive()
        time.sleep(0.01)
    started = psutil.Process(driver.pid).children(recursive=True)
    started = [process for process in started if "Agent" not in process.name()]  # ray's own take a minute to end
    driver.kill()
    driver.join()
    assert psutil.wait_procs(started, timeout=60)[1] == []
    engine.run(task, manifest, machine)
    assert contents(tmp_path) == contents(scanned[0])


def test_a_kill_costs_the_frame_in_hand_only(frames, scanned, tmp_path, monkeypatch):
    do_frame, worked = parts._do_frame, []

    def counting(scan, detector, read, *given):
        worked.append(Path(read.frame.id).name)
        return do_frame(scan, detector, read, *given)

    monkeypatch.setattr(parts, "_do_frame", counting)
    manifest = make_manifest([str(frames)])
    part = parts.Part(0, frames_of(manifest, 0, 12))
    with parts.worker(Scan(tmp_path / "whole", demo.DETECTOR, "cpu", "none", True, 12)) as do:
        assert [said for said in do(part) if isinstance(said, int)] == [1] * 12
    # two processes end within the part, the first while it writes the record of the sixth frame
    for done, said in ((5, [1] * 5), (2, [5, 1])):
        with parts.worker(Scan(tmp_path / "cut", demo.DETECTOR, "cpu", "none", True, 12)) as do:
            assert list(itertools.islice(do(part), len(said))) == said
        if done == 5:
            (file,) = (tmp_path / "cut" / "journal").rglob("*.jsonl")
            file.write_bytes(file.read_bytes() + file.read_bytes()[:100])
    with parts.worker(Scan(tmp_path / "cut", demo.DETECTOR, "cpu", "none", True, 12)) as do:
        assert list(do(part))[:-1] == [6] + [1] * 6
    assert worked == [f"{number:02d}.png" for number in range(12)] * 2
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")
    assert not any((tmp_path / "cut" / "journal").iterdir())


def test_two_scans_of_one_folder_exclude_each_other(frames, tmp_path):
    task = Scan(tmp_path, demo.DETECTOR, "cpu")
    manifest = make_manifest([str(frames)])
    is_refused = pytest.raises(BlockingIOError, match="is running since")
    with engine.files.running("another", tmp_path / ".shard-1-of-1.lock"), is_refused:
        engine.run(task, manifest, Machine("cpu", 1))


def test_a_lack_of_memory_says_what_was_too_much(frames, tmp_path, monkeypatch):
    def too_large(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr(prediction, "_logits_and_maps", too_large)
    task = Scan(tmp_path, demo.DETECTOR, "cpu", batch_size=2)
    manifest = make_manifest([str(frames)])
    with parts.worker(task) as do, pytest.raises(OSError, match=r"a batch of 1 \(128x256 px\) .* 20\.00 GiB") as caught:
        list(do(parts.Part(0, frames_of(manifest, 0, 4))))
    assert caught.value.errno == errno.ENOMEM
    # what is no lack of memory stays a defect
    monkeypatch.setattr(prediction, "_logits_and_maps", lambda *_: torch.zeros(2) @ torch.zeros(3))
    with parts.worker(task) as do, pytest.raises(RuntimeError, match="size"):
        list(do(parts.Part(0, frames_of(manifest, 0, 4))))


def test_a_full_disk_ends_the_scan_with_its_name(frames, tmp_path, monkeypatch):
    task = Scan(tmp_path, demo.DETECTOR, "cpu", frames_per_part=12)
    manifest = make_manifest([str(frames)])
    engine.prepare(task, manifest)
    (tmp_path / "segments").write_text("a file where the folder should be")
    with pytest.raises(OSError, match="segments"):
        engine.run(task, manifest, Machine("cpu", 1))
    assert tables.finished_parts(tmp_path) == []


def test_the_schema_of_a_manifest_is_that_of_its_rows():
    from meta_ood.detector.scan.manifest import ManifestFrame

    assert tuple(SCHEMA.names) == ManifestFrame._fields
