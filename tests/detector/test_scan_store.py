"""An S3-compatible server on loopback: the same tables as the folder, and what happens when it goes away."""

import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from meta_ood.data.context import Machine
from meta_ood.detector import demo
from meta_ood.detector.scan import engine, parts, sources
from meta_ood.detector.scan.manifest import frames_of, make_manifest
from meta_ood.detector.scan.task import Scan

# moto starts in seconds, and its packages are many
pytestmark = [pytest.mark.services, pytest.mark.filterwarnings("ignore")]


@pytest.fixture
def server(monkeypatch):
    """Yield a server with the bucket `drives`; everything about it is in the environment."""
    pytest.importorskip("s3fs")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{probe.getsockname()[1]}"
    for name, value in (
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
        ("AWS_ENDPOINT_URL", address),
    ):
        monkeypatch.setenv(name, value)
    process = subprocess.Popen([sys.executable, "-m", "moto.server", "-p", address.rpartition(":")[2]])
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            urllib.request.urlopen(urllib.request.Request(f"{address}/drives", method="PUT"))
            break
        except OSError:
            time.sleep(0.1)
    yield process
    process.kill()
    process.wait()


@pytest.fixture
def folder(tmp_path, server):
    """Five frames, one of them no image, in a folder and in the bucket."""
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()  # of servers that are gone
    folder = tmp_path / "drives"
    folder.mkdir()
    for number in range(5):
        photo = Image.open(sorted(demo.PHOTOS.iterdir())[number % 3]).convert("RGB")
        photo.crop((number, 0, 256, 128)).save(folder / f"{number}.png")
    (folder / "2.png").write_bytes(b"no image")
    s3fs.S3FileSystem().put(str(folder) + "/", "drives/day/", recursive=True)
    return folder


def tables_of(out: Path) -> list[pa.Table]:
    """Return frames, without errors, which name the address, and segments."""
    return [pq.read_table(out / "frames").drop(["error"]), pq.read_table(out / "segments")]


def test_a_bucket_gives_the_tables_of_the_folder(folder, server, tmp_path, monkeypatch):
    monkeypatch.chdir(folder.parent)
    Path("drives/day").symlink_to(folder)
    frames = {"folder": make_manifest(["drives/day/[0-9].png"]), "bucket": make_manifest(["s3://drives/day"])}
    assert frames["folder"].drop(["source", "error"]).equals(frames["bucket"].drop(["source", "error"]))
    made = {}
    for name, manifest in frames.items():
        scan = Scan(tmp_path / name, demo.DETECTOR, "cpu")
        engine.prepare(scan, manifest)
        engine.run(scan, manifest, Machine("cpu", 2))
        made[name] = tables_of(scan.out)
    assert made["folder"] == made["bucket"]

    # the server goes away: the scan ends, what is done is kept, and no frame is blamed
    monkeypatch.setattr(sources, "_PAUSES", (0.1,))
    scan = Scan(tmp_path / "cut", demo.DETECTOR, "cpu")
    engine.prepare(scan, frames["bucket"])
    with parts.worker(scan) as do:
        doing = do(parts.Part(0, frames_of(frames["bucket"], 0, 2)))
        assert next(doing) == 1
        doing.close()
    server.kill()
    server.wait()
    with parts.worker(scan) as do, pytest.raises(ConnectionError, match=r"no answer any more: s3://drives/day/\d\.png"):
        list(do(parts.Part(0, frames_of(frames["bucket"], 0, 5))))
    assert not (scan.out / "frames").exists()
    assert any((scan.out / parts.JOURNAL).rglob("*.jsonl"))
    with pytest.raises(ConnectionError, match="s3://drives/day"):
        make_manifest(["s3://drives/day"])
