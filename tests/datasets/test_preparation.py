import hashlib
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from demo_world import small_params
from meta_ood.data.context import Machine, no_log
from meta_ood.data.frames import read_frames, read_label_names
from meta_ood.data.labels import IGNORE, OOD
from meta_ood.datasets import preparation, read
from meta_ood.datasets.checks import frames as frame_checks
from meta_ood.pipeline import prepare


def run(demo, prepared, dataset="lost_and_found", workers=1, log=no_log, options=()):
    params = small_params()
    own = params.datasets[dataset]
    name = own.root.rpartition("/")[2]
    changed = {**own.options, **dict(options)}
    if name == "coco":
        changed["min_side"] = 64
    object.__setattr__(own, "options", changed)
    prepare.run(params, dataset=dataset, root=demo / name, prepared=prepared, log=log, machine=Machine(workers=workers))
    return read_frames(prepared, Path.cwd())


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


@pytest.mark.parametrize(
    ("dataset", "count"),
    [("cityscapes_train", 8), ("cityscapes_val", 8), ("coco", 26), ("lost_and_found", 11), ("fishyscapes_static", 4)],
)
def test_prepare_writes_frames_and_grey_targets(demo, tmp_path, dataset, count):
    logged = {}
    frames = run(demo, tmp_path, dataset, log=lambda values, step: logged.update(values))
    assert len(frames) == count == logged["prepare/frames"]
    assert len(list((tmp_path / "targets").iterdir())) == count
    labelled = {"labels.csv", "label_ids"} if dataset == "lost_and_found" else set()
    assert {path.name for path in tmp_path.iterdir()} == {"frames.csv", "targets"} | labelled
    for frame in frames:
        assert frame.image_md5 == hashlib.md5(frame.image.read_bytes()).hexdigest()
        with Image.open(frame.target) as target, Image.open(frame.image) as image:
            assert target.mode == "L"
            assert target.size == image.size


def test_targets_are_those_of_the_reader(demo, tmp_path):
    frames = run(demo, tmp_path)
    raw = read("lost_and_found", demo / "lost_and_found", "test")
    for frame, source in zip(frames, raw, strict=True):
        assert np.array_equal(np.asarray(Image.open(frame.target)), source.target())


def test_label_ids_are_kept_where_they_say_more_than_the_target(demo, tmp_path):
    frames = run(demo, tmp_path)
    names = read_label_names(tmp_path)
    seen = set()
    for frame in frames:
        raw = next((demo / "lost_and_found").rglob(f"{frame.image_id}_gtCoarse_labelIds.png"))
        ids, target = (np.asarray(Image.open(path)) for path in (frame.label_ids, frame.target))
        assert np.array_equal(ids, np.asarray(Image.open(raw)))
        seen |= set(ids[target == OOD].tolist())
    assert seen <= set(names)
    assert len(seen) > 2
    run(demo, tmp_path, options={"labels": "train_ids"})
    assert read_label_names(tmp_path) == {}
    assert not list((tmp_path / "label_ids").iterdir())


def test_a_lost_file_of_label_ids_is_written_again(demo, tmp_path, monkeypatch):
    whole = tmp_path / "whole"
    run(demo, whole)
    monkeypatch.setattr(prepare, "write_frames", lambda *arguments: 1 / 0)
    part = tmp_path / "part"
    with pytest.raises(ZeroDivisionError):  # all through, the journal still there
        run(demo, part)
    monkeypatch.undo()
    next((part / "label_ids").iterdir()).unlink()
    run(demo, part)
    for folder in ("targets", "label_ids"):
        assert contents(part / folder) == contents(whole / folder)


def test_result_does_not_depend_on_the_number_of_workers(demo, tmp_path, monkeypatch):
    monkeypatch.setattr(frame_checks, "POOL_FROM", 2)
    for workers in (1, 2):
        run(demo, tmp_path / str(workers), "coco", workers)
    assert contents(tmp_path / "1") == contents(tmp_path / "2")


def test_interrupted_run_goes_on_where_it_stopped(demo, tmp_path, monkeypatch):
    complete = tmp_path / "complete"
    run(demo, complete)
    done = []
    real = preparation.prepare_frame

    def stops_after_four(raw, prepared):
        if len(done) == 4:
            raise KeyboardInterrupt
        done.append(raw.image_id)
        return real(raw, prepared)

    monkeypatch.setattr(preparation, "prepare_frame", stops_after_four)
    part = tmp_path / "part"
    with pytest.raises(KeyboardInterrupt):
        run(demo, part)
    assert not (part / "frames.csv").exists()

    again = []
    monkeypatch.setattr(
        preparation, "prepare_frame", lambda raw, prepared: again.append(raw.image_id) or real(raw, prepared)
    )
    run(demo, part)
    assert len(again) == 7
    assert not set(again) & set(done)
    assert contents(part) == contents(complete)


def test_two_interruptions_lose_nothing(demo, tmp_path):
    raw = read("lost_and_found", demo / "lost_and_found", "test")
    list(preparation.prepare_frames(raw[4:8], tmp_path, {}, 1))  # some in the middle are there
    again = preparation.prepare_frames(raw, tmp_path, {}, 1)
    next(again)
    again.close()  # stopped at once
    stamps = {f.name: f.stat().st_mtime_ns for f in (tmp_path / "targets").iterdir()}
    assert len(stamps) == 5
    list(preparation.prepare_frames(raw, tmp_path, {}, 1))
    after = {f.name: f.stat().st_mtime_ns for f in (tmp_path / "targets").iterdir()}
    assert len(after) == 11
    assert {name: after[name] for name in stamps} == stamps


def test_other_settings_or_images_start_from_the_beginning(demo, tmp_path):
    part = tmp_path / "part"
    raw = read("lost_and_found", demo / "lost_and_found", "test")
    first = list(preparation.prepare_frames(raw[:3], part, {"reading": "published"}, 1))
    stamps = {f.target: f.target.stat().st_ino for f in first}
    list(preparation.prepare_frames(raw[:3], part, {"reading": "published"}, 1))
    assert all(target.stat().st_ino == inode for target, inode in stamps.items())
    first[0].target.write_bytes(b"stale")
    list(preparation.prepare_frames(raw[:3], part, {"reading": "smiyc"}, 1))
    assert first[0].target.read_bytes() != b"stale"

    copy = tmp_path / "image.png"
    shutil.copy(raw[0].image, copy)
    moved = [preparation.RawFrame("a", copy, "", raw[0].target)]
    list(preparation.prepare_frames(moved, part, {}, 1))
    (part / "targets" / "a.png").write_bytes(b"stale")
    os.utime(copy, (1, 1))
    list(preparation.prepare_frames(moved, part, {}, 1))
    assert (part / "targets" / "a.png").read_bytes() != b"stale"


def test_what_an_earlier_run_left_is_removed(demo, tmp_path):
    (tmp_path / "targets").mkdir()
    (tmp_path / "targets" / "old.png").write_bytes(b"")
    run(demo, tmp_path)
    assert not (tmp_path / "targets" / "old.png").exists()


def frame_of(image, target):
    return preparation.RawFrame("a", image, "", lambda: np.asarray(target, np.uint8))


def test_sizes_that_differ_are_named(tmp_path):
    image = tmp_path / "a.png"
    Image.new("RGB", (4, 3)).save(image)
    with pytest.raises(ValueError, match=r"a.png: the image is 4x3 px, its target 3x4 px"):
        preparation.prepare_frame(frame_of(image, np.zeros((4, 3))), tmp_path)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp"])
def test_damaged_images_are_named(tmp_path, name):
    image = tmp_path / name
    Image.effect_noise((256, 128), 50).save(image)
    whole = image.read_bytes()
    middle = len(whole) // 2
    for content, message in (
        (whole[:-4200], "cannot be read as an image"),
        (whole[:middle], "cannot be read as an image"),
        (b"", "the file is empty"),
        (b"<html>", "not an image"),
    ):
        image.write_bytes(content)
        with pytest.raises(ValueError, match=rf"{name}: {message}"):
            preparation.prepare_frame(frame_of(image, np.zeros((128, 256))), tmp_path)


def test_a_png_that_is_damaged_in_the_middle_is_named(tmp_path):
    image = tmp_path / "a.png"
    Image.effect_noise((256, 128), 50).save(image)
    content = bytearray(image.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 50] = bytes(50)  # its header and its end are sound
    image.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.png: cannot be read as an image"):
        preparation.prepare_frame(frame_of(image, np.zeros((128, 256))), tmp_path)


def test_made_images_are_written_beside_the_targets(tmp_path):
    pixels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    Image.fromarray(pixels).save(tmp_path / "source.png")
    raw = preparation.RawFrame(
        "a", tmp_path / "source.png", "", lambda: np.full((2, 3), IGNORE, np.uint8), lambda: pixels
    )
    frame = preparation.prepare_frame(raw, tmp_path)
    assert frame.image == tmp_path / "images" / "a.png"
    assert np.array_equal(np.asarray(Image.open(frame.image)), pixels)
