"""Layouts beyond the demo's: each written as it comes out of its archive."""

import re

import numpy as np
import pytest
from PIL import Image

from demo_world import REPOSITORY
from meta_ood.data.labels import IGNORE, IN, OOD
from meta_ood.datasets import READERS, LayoutReader, read
from meta_ood.datasets.checks.examine import examine
from meta_ood.datasets.preparation import prepare_frame
from png_files import grey_png

LABELS = np.array([[0, 1, 255, 0]], np.uint8)
TARGET = [[IN, OOD, IGNORE, IN]]


def put(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path)


def picture(value=0):
    return np.full((1, 4, 3), value)


def test_fishyscapes_lost_and_found_takes_images_of_either_split(tmp_path):
    first, second = "04_Maurener_Weg_8_000000_000030", "13_Elly_Beinhorn_Str_000001_000100"
    put(tmp_path / f"leftImg8bit/test/04_Maurener_Weg_8/{first}_leftImg8bit.png", picture())
    put(tmp_path / f"leftImg8bit/train/13_Elly_Beinhorn_Str/{second}_leftImg8bit.png", picture())
    put(tmp_path / "leftImg8bit/train/other/other_000001_000100_leftImg8bit.png", picture())
    for number, name in enumerate((first, second)):
        put(tmp_path / f"fishyscapes_lostandfound/{number:04d}_{name}_labels.png", LABELS)
    frames = read("fishyscapes_lost_and_found", tmp_path, "val")
    assert [frame.image_id for frame in frames] == [f"0000_{first}", f"0001_{second}"]
    assert [frame.scene for frame in frames] == ["04_Maurener_Weg_8", "13_Elly_Beinhorn_Str"]
    assert frames[1].image.parts[-3] == "train"
    assert frames[0].target().tolist() == TARGET


def test_fishyscapes_lost_and_found_names_the_image_it_misses(tmp_path):
    put(tmp_path / "fishyscapes_lostandfound/0000_04_Weg_8_000000_000030_labels.png", LABELS)
    with pytest.raises(FileNotFoundError, match=r"_000030_leftImg8bit\.png is missing"):
        read("fishyscapes_lost_and_found", tmp_path, "val")


@pytest.mark.parametrize("version", ["v1", "v2", "v3"])
@pytest.mark.parametrize("kind", [np.int16, np.float32])
def test_fishyscapes_static_is_clip_of_image_plus_overlay(tmp_path, version, kind):
    rng = np.random.default_rng(0)
    name = "frankfurt_000000_000294"
    image = rng.integers(0, 256, (6, 8, 3))
    overlay = rng.integers(-300, 300, (6, 8, 3)).astype(kind)
    put(tmp_path / f"leftImg8bit/val/frankfurt/{name}_leftImg8bit.png", image)
    put(tmp_path / f"fs_val_{version}/0007_{name}_labels.png", np.zeros((6, 8)))
    np.savez(tmp_path / f"fs_val_{version}/0007_{name}_rgb.npz", rgb=overlay)
    (frame,) = read("fishyscapes_static", tmp_path, "val", {"version": version})
    expected = [
        [[min(max(int(image[r, c, k]) + int(overlay[r, c, k]), 0), 255) for k in range(3)] for c in range(8)]
        for r in range(6)
    ]
    assert frame.pixels is not None
    assert frame.pixels().tolist() == expected
    written = prepare_frame(frame, tmp_path / "prepared")
    assert np.asarray(Image.open(written.image)).tolist() == expected
    assert written.image_id == f"0007_{name}"
    assert written.scene == "frankfurt"


def test_fishyscapes_static_names_what_is_wrong_with_an_overlay(tmp_path):
    name = "frankfurt_000000_000294"
    put(tmp_path / f"leftImg8bit/val/frankfurt/{name}_leftImg8bit.png", picture())
    put(tmp_path / f"fs_val_v1/0007_{name}_labels.png", LABELS)
    (frame,) = read("fishyscapes_static", tmp_path, "val", {"version": "v1"})
    with pytest.raises(FileNotFoundError, match=r"_rgb\.npz is missing, the overlay of"):
        frame.pixels()
    overlay = tmp_path / f"fs_val_v1/0007_{name}_rgb.npz"
    overlay.write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(ValueError, match=r"_rgb\.npz: expected an array named rgb"):
        frame.pixels()
    np.savez(overlay, other=np.zeros(3))
    with pytest.raises(ValueError, match=r"_rgb\.npz: expected an array named rgb"):
        frame.pixels()
    np.savez(overlay, rgb=np.zeros((2, 4, 3), np.int16))
    with pytest.raises(ValueError, match=r"_rgb\.npz: overlay \(2, 4, 3\) int16, but .* is \(1, 4, 3\)"):
        frame.pixels()


@pytest.mark.parametrize(("region", "folder"), [("all", "labels"), ("roi", "labels_with_ROI")])
def test_fishyscapes_processed_folders(tmp_path, region, folder):
    put(tmp_path / "Static/original/0001_a_000000_000001.jpg", picture())
    put(tmp_path / f"Static/{folder}/0001_a_000000_000001.png", LABELS)
    (frame,) = read("fishyscapes_processed", tmp_path, "Static", {"region": region})
    assert (frame.image_id, frame.scene) == ("0001_a_000000_000001", "a")
    assert frame.target().tolist() == TARGET


@pytest.mark.parametrize("suffix", ["jpg", "webp"])
def test_road_anomaly(tmp_path, suffix):
    put(tmp_path / f"frames/animals01.{suffix}", picture())
    put(tmp_path / "frames/animals01.labels/labels_semantic.png", [[0, 2, 0, 2]])
    (frame,) = read("road_anomaly", tmp_path, "all")
    assert (frame.image_id, frame.scene) == ("animals01", "animals01")
    assert frame.target().tolist() == [[IN, OOD, IN, OOD]]


@pytest.mark.parametrize(("reader", "suffix"), [("road_anomaly21", "jpg"), ("road_obstacle21", "webp")])
def test_tracks_of_segment_me_if_you_can(tmp_path, reader, suffix):
    put(tmp_path / f"images/validation0000.{suffix}", picture())
    put(tmp_path / f"images/airplane0001.{suffix}", picture())
    put(tmp_path / "labels_masks/validation0000_labels_semantic.png", LABELS)
    (validation,) = read(reader, tmp_path, "val")
    assert validation.target().tolist() == TARGET
    (test,) = read(reader, tmp_path, "test")
    assert test.image_id == "airplane0001"
    assert test.target().tolist() == [[IGNORE] * 4]


def test_night_and_snow_are_splits_of_their_own(tmp_path):
    for name in ("validation_1", "driveway_1", "snowstorm1_0", "gravel_1"):
        put(tmp_path / f"images/{name}.webp", picture())
    ids = {
        split: [frame.image_id for frame in read("road_obstacle21", tmp_path, split)]
        for split in ("test", "night", "snow")
    }
    assert ids == {"test": ["gravel_1"], "night": ["driveway_1"], "snow": ["snowstorm1_0"]}


def test_validation_frames_of_obstacles_are_those_of_the_benchmarks_loader(tmp_path):
    names = [f"validation_{number}" for number in range(1, 41)]
    for name in names:
        put(tmp_path / f"images/{name}.webp", picture(len(name)))
        put(tmp_path / f"labels_masks/{name}_labels_semantic.png", LABELS)
    # as road_anomaly_benchmark/datasets/tracks.py states it, ObstacleTrack-validation
    excluded = ("validation_19", *(f"validation_{number}" for number in range(21, 30)))
    expected = sorted(name for name in names if not name.startswith(excluded))
    assert len(expected) == 30
    assert [f.image_id for f in read("road_obstacle21", tmp_path, "val")] == expected
    assert len(read("road_obstacle21", tmp_path, "valAll")) == 40
    report = examine("val", "road_obstacle21", tmp_path, "val", {})
    (note,) = [f for f in report.findings if f.code == "left_out"]
    assert (note.level, note.count) == ("note", 10)
    assert {f.code for f in report.findings} <= {"left_out", "duplicate"}
    for name in names[30:]:  # the archive of Zenodo holds 1 to 30
        (tmp_path / f"images/{name}.webp").unlink()
        (tmp_path / f"labels_masks/{name}_labels_semantic.png").unlink()
    assert len(read("road_obstacle21", tmp_path, "val")) == 20
    report = examine("val", "road_obstacle21", tmp_path, "val", {})
    assert "20 frames; published are 30" in str(report.findings)
    report = examine("val", "road_obstacle21", tmp_path, "valAll", {})
    assert not {"count", "left_out"} & {f.code for f in report.findings}


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_label_files_of_few_bits_keep_their_ids(tmp_path, bits):
    scene = "02_Weg"
    stem = f"test/{scene}/{scene}_000000_000020"
    put(tmp_path / f"leftImg8bit/{stem}_leftImg8bit.png", picture())
    path = tmp_path / f"gtCoarse/{stem}_gtCoarse_labelIds.png"
    path.parent.mkdir(parents=True)
    grey_png(path, np.array([[1, 0, 1, 0]], np.uint8), bits)
    (frame,) = read("lost_and_found", tmp_path, "test", {"reading": "smiyc"})
    assert frame.target().tolist() == [[IN, IGNORE, IN, IGNORE]]


def put_lost_and_found(root, name, split):
    folder = name[:-14]
    put(root / f"leftImg8bit/{split}/{folder}/{name}_leftImg8bit.png", picture())
    put(root / f"gtCoarse/{split}/{folder}/{name}_gtCoarse_labelIds.png", [[0, 1, 2, 31]])


def test_lost_and_found_without_frames_that_have_no_label(tmp_path):
    for number in range(1036):
        split, folder = "train", f"{number // 200:02d}_Weg"
        path = tmp_path / f"leftImg8bit/{split}/{folder}/{folder}_000000_{number:06d}_leftImg8bit.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        label = str(path).replace("leftImg8bit.png", "gtCoarse_labelIds.png")
        label = type(path)(label.replace("leftImg8bit", "gtCoarse"))
        label.parent.mkdir(parents=True, exist_ok=True)
        label.touch()
    kept = [int(f.image_id[-6:]) for f in read("lost_and_found", tmp_path, "trainValid")]
    assert len(kept) == 1030
    assert set(range(1036)) - set(kept) == {44, 67, 88, 109, 131, 614}


def test_lost_and_found_without_known_objects_and_dropped_frames(tmp_path):
    names = [
        "02_Hanns_Klemm_Str_44_000000_000020",
        "15_Rechbergstr_Deckenpfronn_000000_000010",
        "01_Hanns_Klemm_Str_45_000006_000010",
        "01_Hanns_Klemm_Str_45_000005_000010",
        "10_Schlossberg_9_000004_000010",
    ]
    for name in names:
        put_lost_and_found(tmp_path, name, "test")
    assert len(read("lost_and_found", tmp_path, "test")) == 5
    kept = read("lost_and_found", tmp_path, "testNoKnown", {"reading": "smiyc"})
    assert [frame.image_id for frame in kept] == [names[3], names[0]]
    dropped = read("lost_and_found", tmp_path, "testNoKnown", {"drop": [names[0]]})
    assert [frame.image_id for frame in dropped] == [names[3]]
    with pytest.raises(ValueError, match="option drop: expected a list"):
        read("lost_and_found", tmp_path, "test", {"drop": names[0]})


def test_the_dataset_that_the_documentation_adds_works(tmp_path, monkeypatch):
    page = (REPOSITORY / "docs" / "own-data.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(code.splitlines()) < 40
    module = {}
    exec(code, module)
    monkeypatch.setitem(READERS, "test_track", LayoutReader(module["test_track"]))
    for number in range(2):
        put(tmp_path / f"val/lap{number}/frame{number}.jpg", picture(60 * number))
        put(tmp_path / f"val/lap{number}/frame{number}_mask.png", [[0, 7, 255, 0]])
    frames = read("test_track", tmp_path, "val")
    assert [(frame.image_id, frame.scene) for frame in frames] == [
        ("frame0", "lap0"), ("frame1", "lap1"),
    ]  # fmt: skip
    assert frames[0].target().tolist() == TARGET
    with pytest.raises(ValueError, match="test_track reader: unknown option 'labels'; known: none"):
        read("test_track", tmp_path, "val", {"labels": "x"})
    report = examine("track", "test_track", tmp_path, "val", {}, full=True)
    assert report.passed
    assert [f.code for f in report.findings] == ["count"]
    put(tmp_path / "val/lap1/frame1_mask.png", [[0, 8, 255, 0]])
    report = examine("track", "test_track", tmp_path, "val", {}, full=True)
    assert [f.code for f in report.findings if f.level == "error"] == ["label_values"]
