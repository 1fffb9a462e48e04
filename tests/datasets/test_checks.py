"""Every kind of damage, each in a copy of the demo, and its finding."""

import hashlib
import json
import shutil

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from meta_ood.datasets.checks import archives
from meta_ood.datasets.checks.examine import examine, recognise
from meta_ood.demo.miniature import write_miniature

SPLITS = {"cityscapes": "train", "coco": "train2017", "lost_and_found": "test", "fishyscapes": "Static"}


def look(root, reader, split=None, full=True, **options):
    return examine(reader, reader, root, split or SPLITS[reader], options, full=full)


def codes(report, level=None):
    return {f.code for f in report.findings if level in (None, f.level)}


def finding(report, code):
    (found,) = [f for f in report.findings if f.code == code]
    return found


@pytest.fixture
def cityscapes(demo, tmp_path):
    return shutil.copytree(demo / "cityscapes", tmp_path / "raw" / "cityscapes")


@pytest.fixture
def coco(demo, tmp_path):
    return shutil.copytree(demo / "coco", tmp_path / "raw" / "coco")


@pytest.fixture
def lost_and_found(demo, tmp_path):
    return shutil.copytree(demo / "lost_and_found", tmp_path / "raw" / "lost_and_found")


def images(root, split="train"):
    return sorted((root / "leftImg8bit" / split).rglob("*.png"))


def labels(root, split="train"):
    return sorted((root / "gtFine" / split).rglob("*_labelIds.png"))


@pytest.mark.parametrize("reader", list(SPLITS))
def test_sound_datasets_pass(demo, reader):
    report = look(demo / reader, reader)
    assert report.passed, report.findings
    assert codes(report) <= {"count", "size", "json_only", "disk_only"}
    assert report.facts["frames"] == report.facts["decoded"] > 0
    json.dumps(report.to_json())


# damage -> code, for datasets of pairs


def cut(path):
    path.write_bytes(path.read_bytes()[: len(path.read_bytes()) // 2])
    return path


def replace(path, array):
    Image.fromarray(array).save(path)
    return path


def remove(path):
    path.unlink()
    return path


def gamma(path):
    info = PngImagePlugin.PngInfo()
    info.add(b"gAMA", (45455).to_bytes(4, "big"))
    with Image.open(path) as image:
        image.load()
    image.save(path, pnginfo=info)
    return path


def write(path, content):
    path.write_bytes(content)
    return path


def copy(source, target):
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)
    return target


def strange_value(path):
    ids = np.array(Image.open(path))
    ids[0, 0] = 77
    return replace(path, ids)


def as_other_city(path):
    return copy(path, path.parents[1] / "elsewhere" / path.name)


def as_val(path):
    text = str(path)
    twin = text.replace("/leftImg8bit/", "/gtFine/").replace("_leftImg8bit", "_gtFine_labelIds")
    for source in (text, twin):
        copy(source, type(path)(source.replace("/train/", "/val/")))
    return type(path)(text.replace("/train/", "/val/"))


DAMAGE = {
    "image without labels": (lambda root: remove(labels(root)[1]) and images(root)[1], "no_labels", "error"),
    "labels without image": (lambda root: remove(images(root)[1]) and labels(root)[1], "no_image", "error"),
    "image of no bytes": (lambda root: write(images(root)[2], b""), "image_empty", "error"),
    "image cut off": (lambda root: cut(images(root)[2]), "image_truncated", "error"),
    "no image at all": (lambda root: write(images(root)[2], b"<html>"), "image_unreadable", "error"),
    "image of 16 bits": (lambda root: replace(images(root)[2], np.zeros((64, 128), np.uint16)), "image_mode", "error"),
    "grey image": (lambda root: replace(images(root)[2], np.zeros((64, 128), np.uint8)), "image_grey", "warning"),
    "labels cut off": (lambda root: cut(labels(root)[2]), "labels_unreadable", "error"),
    "colour labels": (
        lambda root: replace(labels(root)[2], np.zeros((64, 128, 3), np.uint8)),
        "labels_colour",
        "error",
    ),
    "labels of another size": (
        lambda root: replace(labels(root)[2], np.full((32, 64), 7, np.uint8)) and images(root)[2],
        "size_mismatch",
        "error",
    ),
    "label outside the table": (lambda root: strange_value(labels(root)[2]), "label_values", "error"),
    "labels of a hidden test": (
        lambda root: replace(labels(root)[2], np.zeros((64, 128), np.uint8)),
        "labels_empty",
        "warning",
    ),
    "gamma tag": (lambda root: gamma(images(root)[2]), "gamma", "note"),
    "half a download": (lambda root: write(images(root)[0].with_suffix(".png.part"), b"x"), "stray_files", "warning"),
    "file of a Mac": (
        lambda root: write(images(root)[0].parent / "._a_leftImg8bit.png", b"x"),
        "stray_files",
        "warning",
    ),
    "same frame in two folders": (lambda root: as_other_city(images(root)[0]), "same_id", "error"),
    "frame in two splits": (lambda root: as_val(images(root)[0]), "wrong_split", "error"),
    "same picture twice": (lambda root: copy(images(root)[0], images(root)[1]), "duplicate", "warning"),
    "archive cut off": (lambda root: write(root / "gtFine_trainvaltest.zip", b"PK"), "archive_damaged", "error"),
}


@pytest.mark.parametrize("kind", list(DAMAGE))
def test_damage_is_named_with_its_file(cityscapes, kind):
    damage, code, level = DAMAGE[kind]
    path = damage(cityscapes)
    report = look(cityscapes, "cityscapes")
    found = finding(report, code)
    assert found.level == level
    assert str(path) in found.files
    assert found.advice or level == "note"
    assert report.passed == (level != "error")


def test_missing_root(tmp_path):
    assert codes(look(tmp_path / "nowhere", "cityscapes")) == {"root_missing"}
    assert codes(look(tmp_path / "nowhere", "coco")) == {"root_missing"}


@pytest.mark.parametrize("reader", list(SPLITS))
def test_root_one_level_too_high_or_too_low(demo, reader):
    too_high = look(demo, reader)
    found = finding(too_high, "wrong_level")
    assert str(demo / reader) in found.advice
    if reader != "fishyscapes":
        inside = next(p for p in sorted((demo / reader).iterdir()) if p.is_dir())
        assert str(demo / reader) in finding(look(inside, reader), "wrong_level").advice


def test_empty_root_says_what_is_expected(tmp_path):
    found = finding(look(tmp_path, "cityscapes"), "nothing_found")
    assert "leftImg8bit/train/{folder}/{id}_leftImg8bit.png" in found.text


def test_missing_split_names_the_one_that_is_there(cityscapes):
    shutil.rmtree(cityscapes / "leftImg8bit" / "train")
    shutil.rmtree(cityscapes / "gtFine" / "train")
    assert "val is there" in finding(look(cityscapes, "cityscapes"), "split_missing").text


def test_all_labels_empty_is_a_hidden_test_set(cityscapes):
    for path in labels(cityscapes):
        replace(path, np.zeros((64, 128), np.uint8))
    assert finding(look(cityscapes, "cityscapes"), "labels_empty").level == "error"


def test_train_ids_that_were_never_generated(cityscapes):
    report = look(cityscapes, "cityscapes", labels="train_ids")
    assert "data train-ids" in finding(report, "train_ids_missing").advice


def test_counts_sizes_and_classes_are_compared_with_the_published_ones(cityscapes):
    for path in labels(cityscapes):
        ids = np.array(Image.open(path))
        replace(path, np.where(ids == 26, 0, ids).astype(np.uint8))
    report = look(cityscapes, "cityscapes")
    assert report.passed
    assert "8 frames; published are 2975" in finding(report, "count").text
    assert "not 2048x1024 px but 128x64" in finding(report, "size").text
    assert "18 of 19 classes occur; not car" in finding(report, "classes").text


def test_label_ids_and_train_ids_that_disagree(lost_and_found):
    path = next((lost_and_found / "gtCoarse").rglob("*_labelTrainIds.png"))
    ids = np.array(Image.open(path))
    replace(path, np.where(ids == 1, 2, ids).astype(np.uint8))
    for kind in ("label_ids", "train_ids"):
        report = look(lost_and_found, "lost_and_found", labels=kind)
        assert finding(report, "labels_disagree").count == 1


def test_evaluation_set_without_any_obstacle(demo, tmp_path):
    root = shutil.copytree(demo / "fishyscapes", tmp_path / "fishyscapes")
    for path in (root / "Static").glob("*.png"):
        ids = np.array(Image.open(path))
        replace(path, np.where(ids == 1, 0, ids).astype(np.uint8))
    assert finding(look(root, "fishyscapes"), "no_ood").level == "error"


# overlays and archives


@pytest.fixture
def static(tmp_path):
    root = tmp_path / "raw" / "static"
    write_miniature(root, "fishyscapes_static_v1", "val", 3)
    return root


def overlay(root):
    return sorted((root / "fs_val_v1").glob("*_rgb.npz"))[1]


def save_overlay(path, **arrays):
    np.savez(path, **arrays)
    return path


OVERLAY_DAMAGE = {
    "missing": (remove, "is missing"),
    "cut off": (cut, "expected an array named rgb"),
    "without rgb": (lambda path: save_overlay(path, mask=np.zeros(3)), "named rgb"),
    "of another size": (lambda path: save_overlay(path, rgb=np.zeros((2, 2, 3), np.int16)), r"overlay (2, 2, 3)"),
    "that holds objects": (lambda path: save_overlay(path, rgb=np.array([{"a": 1}], object)), "named rgb"),
}


@pytest.mark.parametrize("kind", list(OVERLAY_DAMAGE))
def test_damage_to_an_overlay_is_named_with_its_file(static, kind):
    damage, words = OVERLAY_DAMAGE[kind]
    path = damage(overlay(static))
    report = look(static, "fishyscapes_static", "val", version="v1")
    found = finding(report, "overlay")
    assert (found.level, found.count) == ("error", 1)
    assert str(path) in found.text
    assert words in found.text
    assert found.files == (str(path).replace("_rgb.npz", "_labels.png"),)


def test_archives_are_compared_with_their_published_sums(cityscapes, monkeypatch):
    content = b"an archive"
    path = write(cityscapes.parent / "gtCoarse.zip", content)
    size, md5 = len(content), hashlib.md5(content, usedforsecurity=False).hexdigest()
    for known, is_sound_fast, is_sound in (
        ((size, "md5", md5), True, True),
        ((size, "sha256", hashlib.sha256(content).hexdigest()), True, True),
        ((size, "md5", md5[::-1]), True, False),  # the size alone says nothing
        ((size + 1, "md5", md5), False, False),
    ):
        monkeypatch.setitem(archives.ARCHIVES, "gtCoarse.zip", known)
        for full, sound in ((False, is_sound_fast), (True, is_sound)):
            report = look(cityscapes, "cityscapes", full=full)
            assert finding(report, "archive_present").files == (str(path),)
            assert report.passed == sound
            if not sound:
                assert finding(report, "archive_damaged").files == (str(path),)


def test_sums_of_archives_are_those_of_the_benchmarks():
    for _, algorithm, digits in archives.ARCHIVES.values():
        assert len(digits) == {"md5": 32, "sha256": 64}[algorithm]


# COCO


def edit(root, change):
    path = root / "annotations" / "instances_train2017.json"
    instances = json.loads(path.read_text())
    change(instances)
    path.write_text(json.dumps(instances))


def set_value(kind, index, key, value):
    return lambda root: edit(root, lambda j: j[kind][index].__setitem__(key, value))


def first_segmentation(instances, counts):
    first = instances["annotations"][0]
    (image,) = [i for i in instances["images"] if i["id"] == first["image_id"]]
    first["segmentation"] = {"counts": counts, "size": [image["height"], image["width"]]}


JSON = "instances_train2017.json"
COCO_DAMAGE = {
    "json missing": (lambda r: remove(r / "annotations" / JSON), "json_missing", "error"),
    "json cut off": (lambda r: cut(r / "annotations" / "instances_train2017.json"), "json_broken", "error"),
    "json of something else": (
        lambda r: (r / "annotations" / "instances_train2017.json").write_text("[]"),
        "json_broken",
        "error",
    ),
    "image missing": (lambda r: remove(sorted((r / "train2017").iterdir())[0]), "json_only", "warning"),
    "image cut off": (lambda r: cut(sorted((r / "train2017").iterdir())[0]), "image_truncated", "error"),
    "image resized": (
        lambda r: replace(sorted((r / "train2017").iterdir())[0], np.zeros((9, 9, 3), np.uint8)),
        "size_mismatch",
        "error",
    ),
    "same id twice": (set_value("images", 0, "id", 1037), "json_same_id", "error"),
    "annotation of no image": (set_value("annotations", 0, "image_id", 5), "json_orphans", "warning"),
    "unknown category": (set_value("annotations", 0, "category_id", 999), "json_category", "error"),
    "polygon of two points": (
        set_value("annotations", 0, "segmentation", [[1, 2, 3, 4]]),
        "json_segmentation",
        "error",
    ),
    "run lengths of another size": (
        set_value("annotations", 0, "segmentation", {"size": [3, 3], "counts": [9]}),
        "json_segmentation",
        "error",
    ),
    "run lengths too short": (lambda r: edit(r, lambda j: first_segmentation(j, [5, 6])), "json_segmentation", "error"),
    "no image of the json": (
        lambda r: [p.rename(p.with_name(f"x{p.name}")) for p in (r / "train2017").iterdir()],
        "nothing_found",
        "error",
    ),
}


@pytest.mark.parametrize("kind", list(COCO_DAMAGE))
def test_damage_to_coco_is_named_with_its_file(coco, kind):
    damage, code, level = COCO_DAMAGE[kind]
    first = sorted((coco / "train2017").iterdir())[0]
    damage(coco)
    report = look(coco, "coco")
    found = finding(report, code)
    assert found.level == level
    assert found.advice
    assert report.passed == (level != "error")
    if kind.startswith("image"):
        assert str(first) in found.files
    else:
        named = coco / ("train2017" if code == "nothing_found" else f"annotations/{JSON}")
        assert found.files
        assert all(file.startswith(str(named)) for file in found.files)


def test_a_file_that_the_json_lacks_is_named(coco):
    path = write(coco / "train2017" / "000000000001.jpg", b"x")
    found = finding(look(coco, "coco"), "disk_only")
    assert str(path) in found.files


def test_missing_street_class_is_noted(coco):
    edit(coco, lambda j: j["categories"].pop(0))
    assert "no category person" in finding(look(coco, "coco"), "street_classes").text


# modes


def test_fast_mode_decodes_a_sample_but_lists_everything(cityscapes, monkeypatch):
    monkeypatch.setattr("meta_ood.datasets.checks.examine.SAMPLE", 3)
    remove(labels(cityscapes)[7])
    report = look(cityscapes, "cityscapes", full=False)
    assert report.facts["frames"] == 8
    assert report.facts["decoded"] <= 3
    assert finding(report, "no_labels").count == 1


def test_folders_are_recognised(demo, tmp_path):
    assert ("cityscapes", "train", {}) in recognise(demo / "cityscapes")
    assert ("cityscapes", "val", {}) in recognise(demo / "cityscapes")
    assert ("coco", "train2017", {}) in recognise(demo / "coco")
    assert recognise(demo / "lost_and_found") == [("lost_and_found", "test", {})]
    assert recognise(demo / "fishyscapes") == [("fishyscapes", "Static", {})]
    assert recognise(tmp_path / "nowhere") == []


def test_examination_checks_reader_and_options(tmp_path):
    with pytest.raises(ValueError, match="unknown reader 'kitti'"):
        look(tmp_path, "kitti", "val")
    with pytest.raises(ValueError, match="unknown option 'x'"):
        look(tmp_path, "cityscapes", x=1)
