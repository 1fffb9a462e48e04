"""Videos against their frames; the tables with readers that know nothing of us; how much they take."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from meta_ood.data.images import read_image
from meta_ood.detector import demo
from meta_ood.detector.scan import engine, parts
from meta_ood.detector.scan.manifest import frames_of, make_manifest
from meta_ood.detector.scan.task import Scan

PHOTOS = [read_image(photo) for photo in sorted(demo.PHOTOS.iterdir())]


def scanned(out: Path, given: Path, features: bool = False) -> Path:
    manifest = make_manifest([str(given)])
    scan = Scan(out, demo.DETECTOR, "cpu", "none", features)
    engine.prepare(scan, manifest)
    with parts.worker(scan) as do:
        list(do(parts.Part(0, frames_of(manifest, 0, 100))))
    return out


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Nine drawn photos, each a little further to the right; their scan with features."""
    folder = tmp_path_factory.mktemp("drawn")
    (folder / "frames").mkdir()
    for number in range(9):
        moved = np.roll(PHOTOS[number // 3], 2 * (number % 3), axis=1)
        Image.fromarray(moved).save(folder / "frames" / f"{number}.png")
    return folder, scanned(folder / "scan", folder / "frames", features=True)


def found(out: Path) -> list[list[tuple[object, ...]]]:
    """Return box, size, severity and decision of each frame's segments."""
    names = ("top", "left", "bottom", "right", "size", "severity", "kept")
    rows = pq.read_table(out / "segments").to_pylist()
    return [[tuple(row[name] for name in names) for row in rows if row["index"] == index] for index in range(9)]


def encode(path: Path, frames: Path, codec: str, pixels: str, rate: int = 10, **options: str) -> None:
    av = pytest.importorskip("av")
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = 256, 128, pixels
        for number in range(9):
            image = read_image(frames / f"{number}.png")
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))


def test_a_lossless_video_gives_the_segments_of_its_frames(drawn):
    folder, scan = drawn
    encode(folder / "exact.mp4", folder / "frames", "libx264rgb", "rgb24", crf="0")
    assert found(scanned(folder / "exact", folder / "exact.mp4")) == found(scan)


def test_a_compressed_video_gives_nearly_the_same_alarms(drawn):
    folder, scan = drawn
    encode(folder / "lossy.mp4", folder / "frames", "libx264", "yuv420p", crf="18")
    pairs = list(zip(found(scanned(folder / "lossy", folder / "lossy.mp4")), found(scan), strict=True))
    alarms = [(any(s[-1] for s in a), any(s[-1] for s in b)) for a, b in pairs]
    assert sum(a == b for a, b in alarms) >= 8
    assert any(a != b for a, b in pairs)  # compression does change something


def test_a_cut_video_keeps_the_frames_that_are_whole(drawn):
    folder, _ = drawn
    # a stream that needs no index at its end
    encode(folder / "whole.ts", folder / "frames", "libx264", "yuv420p", g="3", tune="zerolatency")
    content = (folder / "whole.ts").read_bytes()
    (folder / "cut.ts").write_bytes(content[: len(content) * 2 // 3])
    frames = pq.read_table(scanned(folder / "cut", folder / "cut.ts") / "frames").to_pylist()
    assert 3 <= sum(row["error"] is None for row in frames) < 9
    # its header says how long it was
    encode(folder / "whole.mkv", folder / "frames", "libx264", "yuv420p", rate=1, g="3", tune="zerolatency")
    content = (folder / "whole.mkv").read_bytes()
    (folder / "cut.mkv").write_bytes(content[: len(content) // 2])
    *whole, last = pq.read_table(scanned(folder / "cut-mkv", folder / "cut.mkv") / "frames").to_pylist()
    assert 3 <= len(whole) < 9
    assert all(row["error"] is None for row in whole[:-1])
    assert "cut.mkv: damaged: its frames end after" in last["error"]
    # an mp4 has its index at the end: without it no frame can be found, which is a row too
    encode(folder / "whole.mp4", folder / "frames", "libx264", "yuv420p")
    content = (folder / "whole.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(content[: len(content) // 2])
    (row,) = pq.read_table(scanned(folder / "cut-mp4", folder / "cut.mp4") / "frames").to_pylist()
    assert "cut.mp4: not a video, or damaged" in row["error"]


def test_pandas_and_duckdb_read_the_tables(drawn):
    pandas, duckdb = pytest.importorskip("pandas"), pytest.importorskip("duckdb")
    _, scan = drawn
    own = pq.read_table(scan / "segments")
    frame = pandas.read_parquet(scan / "segments")
    assert frame["severity"].tolist() == own["severity"].to_pylist()
    assert frame["E"].tolist() == own["E"].to_pylist()
    query = f"SELECT frame, count(*) FROM '{scan}/segments/*.parquet' WHERE kept GROUP BY frame ORDER BY frame"
    kept = frame[frame["kept"]].groupby("frame").size()
    assert duckdb.sql(query).fetchall() == list(kept.items())
    reasons = duckdb.sql(f"SELECT reasons[1].feature FROM '{scan}/segments/*.parquet'").fetchall()
    assert [name for (name,) in reasons] == [row["reasons"][0]["feature"] for row in own.to_pylist()]
    # Spark's reader takes types that Parquet has by itself, and names that differ by more than case
    assert len({name.lower() for name in own.column_names}) == len(own.column_names)


def test_tables_take_little(drawn):
    _, scan = drawn
    size = sum(path.stat().st_size for kind in ("frames", "segments", "seconds") for path in (scan / kind).iterdir())
    assert size / 9 < 50_000
