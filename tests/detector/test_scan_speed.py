"""What makes a scan fast changes nothing, or says so: decoding ahead, batches, precision, ONNX Runtime."""

import json
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from meta_ood import Detector
from meta_ood.detector import demo, export
from meta_ood.detector.scan import engine, parts, tables
from meta_ood.detector.scan.manifest import frames_of, make_manifest
from meta_ood.detector.scan.task import NETWORK, Scan

PHOTOS = sorted(demo.PHOTOS.iterdir())


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """Seven frames: three of one size, one that is no image, three of two other sizes."""
    folder = tmp_path_factory.mktemp("frames")
    for number, (width, height) in enumerate([(256, 128)] * 3 + [(0, 0)] + [(200, 128)] * 2 + [(256, 100)]):
        if width:
            Image.open(PHOTOS[number % 3]).convert("RGB").crop((0, 0, width, height)).save(folder / f"{number}.png")
        else:
            (folder / f"{number}.png").write_bytes(b"no image")
    return make_manifest([str(folder)])


def run(scan, manifest):
    """Do the first part of a scan in this process."""
    engine.prepare(scan, manifest)
    with parts.worker(scan) as do:
        return list(do(parts.Part(0, frames_of(manifest, 0, scan.frames_per_part))))


def tables_of(out: Path) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for kind in ("frames", "segments") for path in (out / kind).iterdir()}


def boxes(out: Path) -> list[tuple[object, ...]]:
    names = ("frame", "top", "left", "bottom", "right", "size", "kept")
    return [tuple(row[name] for name in names) for row in pq.read_table(out / "segments").to_pylist()]


@pytest.fixture(scope="module")
def one_by_one(manifest, tmp_path_factory):
    out = tmp_path_factory.mktemp("scan")
    run(Scan(out, demo.DETECTOR, "cpu"), manifest)
    return out


def test_frames_of_one_size_go_through_together(manifest, one_by_one, tmp_path, monkeypatch):
    together, predict = [], Detector.predict_together

    def counting(self, images):
        together.append(len(images))
        return predict(self, images)

    monkeypatch.setattr(Detector, "predict_together", counting)
    scan = Scan(tmp_path / "whole", demo.DETECTOR, "cpu", batch_size=2)
    run(scan, manifest)
    # batches begin at frames 0, 2, 4 and 6; frame 3 is broken
    assert together == [2, 1, 2, 1]
    assert boxes(scan.out) == boxes(one_by_one)
    # a process that ends within a batch: the batch is the same again
    cut = Scan(tmp_path / "cut", demo.DETECTOR, "cpu", batch_size=2)
    engine.prepare(cut, manifest)
    part = parts.Part(0, frames_of(manifest, 0, 100))
    with parts.worker(cut) as do:
        begun = do(part)
        next(begun)
        begun.close()
    run(cut, manifest)
    assert tables_of(cut.out) == tables_of(scan.out)


def test_what_changes_bits_stands_in_the_folder(manifest, one_by_one):
    for change, says in (
        ({"batch_size": 2}, "detector"),
        ({"precision": "bfloat16"}, "detector"),
        ({"runtime": "onnx"}, "runtime"),
    ):
        with pytest.raises(ValueError, match=f"a scan with other .*{says}"):
            engine.prepare(Scan(one_by_one, demo.DETECTOR, "cpu", **change), manifest)
    assert not (one_by_one / NETWORK).exists()


def test_frames_are_read_while_the_network_works_and_not_too_many(manifest, tmp_path, monkeypatch):
    begun, threads = [], set()

    class Reader(parts.Reader):
        def __call__(self, address, position):
            begun.append(address)
            threads.add(threading.current_thread())
            return super().__call__(address, position)

    monkeypatch.setattr(parts, "Reader", Reader)
    scan = Scan(tmp_path, demo.DETECTOR, "cpu")
    engine.prepare(scan, manifest)
    with parts.worker(scan) as do:
        doing = do(parts.Part(0, frames_of(manifest, 0, 100)))
        assert next(doing) == 1
        end = time.monotonic() + 10
        while len(begun) < 3 and time.monotonic() < end:
            time.sleep(0.001)
        assert len(begun) == 3
        *_, spent = doing
    assert threading.current_thread() not in threads
    assert {*spent} == {*tables.STEPS, "write"}
    # of the broken frame, too, time is spent, but its row has none
    rows = pq.read_table(tmp_path / "seconds").to_pylist()
    for step in tables.STEPS:
        assert 0 < sum(row[step] or 0 for row in rows) <= spent[step] + 1e-9, step


def test_a_store_that_is_gone_ends_the_scan_and_keeps_what_is_done(manifest, tmp_path, monkeypatch):
    class Reader(parts.Reader):
        def __call__(self, address, position):
            if address.endswith("5.png"):
                raise ConnectionError("s3://bucket: no answer")
            return super().__call__(address, position)

    monkeypatch.setattr(parts, "Reader", Reader)
    with pytest.raises(ConnectionError, match="no answer"):
        run(Scan(tmp_path, demo.DETECTOR, "cpu"), manifest)
    (journal,) = (tmp_path / parts.JOURNAL).rglob("*.jsonl")
    assert [json.loads(line)["frames"][0]["index"] for line in journal.read_text().splitlines()] == [0, 1, 2, 3, 4]


# --- ONNX Runtime ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def by_onnx(manifest, tmp_path_factory):
    pytest.importorskip("onnxruntime")
    out = tmp_path_factory.mktemp("onnx")
    run(Scan(out, demo.DETECTOR, "cpu", runtime="onnx"), manifest)
    return out


@pytest.mark.filterwarnings("ignore")  # of the exporter
def test_onnx_runtime_finds_the_same_segments(manifest, one_by_one, by_onnx, tmp_path):
    assert boxes(by_onnx) == boxes(one_by_one)
    assert tables_of(by_onnx) != tables_of(one_by_one)  # it was not PyTorch
    # a copy of the file gives the same bytes
    given = Scan(tmp_path, demo.DETECTOR, "cpu", runtime=str(by_onnx / NETWORK))
    run(given, manifest)
    assert tables_of(tmp_path) == tables_of(by_onnx)
    # another file in its place is noticed
    (by_onnx / NETWORK).write_bytes((by_onnx / NETWORK).read_bytes() + b"\0" * 8)
    with pytest.raises(ValueError, match=r"network|not an ONNX file"):
        engine.prepare(Scan(by_onnx, demo.DETECTOR, "cpu", runtime="onnx"), manifest)


@pytest.mark.filterwarnings("ignore")  # of the exporter
def test_onnx_files_of_other_networks_are_refused(parts, manifest, tmp_path):
    pytest.importorskip("onnxruntime")
    path = tmp_path / "other.onnx"
    export.export(Detector.load(parts.detector, "cpu").network, path, weights="of another")
    with pytest.raises(ValueError, match="holds other weights"):
        engine.prepare(Scan(tmp_path / "out", demo.DETECTOR, "cpu", runtime=str(path)), manifest)
    path.write_bytes(b"no network")
    with pytest.raises(ValueError, match="not an ONNX file"):
        engine.prepare(Scan(tmp_path / "out", demo.DETECTOR, "cpu", runtime=str(path)), manifest)
    assert not (tmp_path / "out").exists()
    for change in ({"device": "cuda"}, {"precision": "bfloat16"}):
        with pytest.raises(ValueError, match="ONNX Runtime computes on the CPU"):
            engine.prepare(Scan(tmp_path / "out", demo.DETECTOR, runtime="onnx", **change), manifest)


def test_detectors_that_need_more_than_logits_are_refused(detector):
    for infer, says in (
        ({"scores": ("kl_to_prior",)}, "kl_to_prior need the network"),
        ({"size": (64, 128), "scales": (0.5, 1.0)}, "infer.size alone"),
    ):
        changed = detector.settings.infer.model_copy(update=infer)
        settings = detector.settings.model_copy(update={"infer": changed})
        detector_of = Detector(detector.network, settings, None, "cpu", {"prior": torch.ones(19)})
        with pytest.raises(ValueError, match=says):
            export.exported(detector_of, lambda image: np.zeros(image.shape, np.float32))
