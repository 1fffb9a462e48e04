"""Faults of a json in COCO's format: the reader and the checks name file and annotation."""

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from meta_ood.data.labels import OOD
from meta_ood.datasets import read
from meta_ood.datasets.checks.examine import examine
from meta_ood.datasets.coco import decompress, segmentation_fault

HEIGHT, WIDTH = 40, 60
TRIANGLE = [10.0, 10.0, 30.5, 10.0, 10.0, 30.0]
COMPRESSED = coco_mask.encode(np.asfortranarray(np.eye(HEIGHT, WIDTH, dtype=np.uint8)))
TEXT = COMPRESSED["counts"].decode()
SIZE = [HEIGHT, WIDTH]


def write_coco(root, segmentation=(TRIANGLE,), category="dog", **changes):
    """Write one image with one annotation; `changes` of the annotation, None removes a key."""
    (root / "train2017").mkdir(exist_ok=True)
    (root / "annotations").mkdir(exist_ok=True)
    Image.new("RGB", (WIDTH, HEIGHT)).save(root / "train2017" / "1.jpg")
    annotation = {"id": 77, "image_id": 1, "category_id": 18, "segmentation": segmentation}
    annotation = {k: v for k, v in (annotation | changes).items() if v != "missing"}
    content = {
        "images": [{"id": 1, "file_name": "1.jpg", "height": HEIGHT, "width": WIDTH}],
        "annotations": [annotation],
        "categories": [{"id": 18, "name": category}, {"id": 1, "name": "cat"}],
    }
    (root / "annotations" / "instances_train2017.json").write_text(json.dumps(content))
    return root


def frames(root):
    return read("coco", root, "train2017", {"min_side": 8})


FAULTS = {
    "not a number": [[10.0, 10.0, float("nan"), 10.0, 10.0, 30.0]],
    "infinity": [[10.0, 10.0, float("inf"), 10.0, 10.0, 30.0]],
    "far outside": [[10.0, 10.0, 1e9, 10.0, 10.0, 30.0]],
    "far above": [[10.0, -41.0, 20.0, 10.0, 10.0, 30.0]],
    "a truth value": [[10.0, 10.0, True, 10.0, 10.0, 30.0]],
    "a text": [[10.0, 10.0, "5", 10.0, 10.0, 30.0]],
    "an endless outline": [[v for k in range(20_000) for v in (120.0 * (k % 2) - 60, 10.0)]],
    "endless outlines": [TRIANGLE] * 20_000,
    "four numbers": [[10.0, 10.0, 20.0, 20.0]],
    "an odd number of numbers": [[*TRIANGLE, 5.0]],
    "flat": TRIANGLE,
    "a flat box": [10.0, 10.0, 20.0, 20.0],
    "a list of nothing": [],
    "null": None,
    "missing": "missing",
    "a number": 5,
    "run lengths of another size": {"size": [3, 3], "counts": [9]},
    "size turned": {"size": [WIDTH, HEIGHT], "counts": TEXT},
    "size missing": {"counts": TEXT},
    "counts missing": {"size": SIZE},
    "counts null": {"size": SIZE, "counts": None},
    "too short": {"size": SIZE, "counts": [5, 6]},
    "negative": {"size": SIZE, "counts": [-5, HEIGHT * WIDTH + 5]},
    "a huge length": {"size": SIZE, "counts": [10**20]},
    "not whole": {"size": SIZE, "counts": [HEIGHT * WIDTH - 1.5, 1.5]},
    "text cut off": {"size": SIZE, "counts": TEXT[:-1]},
    "text that never ends": {"size": SIZE, "counts": "o" * 100_000},
    "text of other characters": {"size": SIZE, "counts": "\u00e9" + TEXT},
    "text of nothing": {"size": SIZE, "counts": ""},
}


@pytest.mark.parametrize("kind", FAULTS)
def test_a_segmentation_that_cannot_be_drawn_is_named(tmp_path, kind):
    write_coco(tmp_path, FAULTS[kind])
    (frame,) = frames(tmp_path)
    with pytest.raises(ValueError, match=r"instances_train2017\.json, annotation 77: "):
        frame.target()
    report = examine("coco", "coco", tmp_path, "train2017", {}, full=True)
    (found,) = [f for f in report.findings if f.code == "json_segmentation"]
    assert not report.passed
    assert found.files[0].endswith("annotation 77")


def test_no_changed_character_of_run_lengths_reaches_pycocotools():
    for position in range(len(TEXT)):
        for character in "0Oo~ \x00":
            text = TEXT[:position] + character + TEXT[position + 1 :]
            fault = segmentation_fault({"size": SIZE, "counts": text}, HEIGHT, WIDTH)
            lengths = decompress(text)
            is_sound = lengths is not None and min(lengths) >= 0 and sum(lengths) == HEIGHT * WIDTH
            assert bool(fault) != is_sound


def test_run_lengths_are_those_of_pycocotools():
    rng = np.random.default_rng(5)
    for _ in range(30):
        mask = rng.uniform(0, 1, (int(rng.integers(1, 40)), int(rng.integers(1, 40)))) < 0.3
        mask = np.kron(mask, np.ones((9, 9), bool))
        text = coco_mask.encode(np.asfortranarray(mask, np.uint8))["counts"].decode()
        flat = mask.ravel(order="F")
        bounds = [0, *(np.flatnonzero(flat[1:] != flat[:-1]) + 1), flat.size]
        expected = [0] * bool(flat[0]) + np.diff(bounds).tolist()
        assert decompress(text) == expected


@pytest.mark.parametrize(
    ("changes", "message", "code"),
    [
        ({"image_id": "1"}, "image_id: expected a whole number", "json_broken"),
        ({"category_id": "18"}, "category_id: expected a whole number", "json_broken"),
        ({"category_id": 999}, r"1 annotation\(s\) have an unknown category", "json_category"),
    ],
)
def test_ids_that_would_lose_annotations_are_named(tmp_path, changes, message, code):
    write_coco(tmp_path, **changes)
    with pytest.raises(ValueError, match=rf"(?s){message}.*|instances_train2017\.json.*{message}"):
        frames(tmp_path)
    report = examine("coco", "coco", tmp_path, "train2017", {}, full=True)
    assert code in {f.code for f in report.findings if f.level == "error"}


@pytest.mark.parametrize(("key", "name"), [("categories", "name"), ("images", "file_name")])
@pytest.mark.parametrize("value", [None, 5, ["person"]])
def test_names_are_texts(tmp_path, key, name, value):
    write_coco(tmp_path)
    path = tmp_path / "annotations" / "instances_train2017.json"
    content = json.loads(path.read_text())
    content[key][0][name] = value
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=rf"json: an element of '{key}' .* {name}: expected a text"):
        frames(tmp_path)


@pytest.mark.parametrize(
    ("end", "message"),
    [("} x", "more after its end"), ("}}", "more after"), (', "images": []}', "'images' occurs twice")],
)
def test_what_follows_the_lists_is_not_passed_over(tmp_path, end, message):
    write_coco(tmp_path)
    path = tmp_path / "annotations" / "instances_train2017.json"
    path.write_text(path.read_text().removesuffix("}") + end)
    with pytest.raises(ValueError, match=rf"json: not a complete json file \(.*{message}"):
        frames(tmp_path)


def test_an_image_id_that_occurs_twice_is_named(tmp_path):
    write_coco(tmp_path)
    path = tmp_path / "annotations" / "instances_train2017.json"
    content = json.loads(path.read_text())
    content["images"].append(content["images"][0] | {"file_name": "2.jpg"})
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"occur twice in the json, such as .*json, image 1"):
        frames(tmp_path)


def test_annotations_of_no_image_are_passed_over_with_a_warning(tmp_path, caplog):
    write_coco(tmp_path, image_id=5)
    (frame,) = frames(tmp_path)
    assert not (frame.target() == OOD).any()
    assert "belong to no image of the json" in caplog.text


@pytest.mark.parametrize("name", ["person", "Person", " PERSON ", "Traffic_Light", "stop-sign"])
def test_street_categories_are_known_whatever_their_case(tmp_path, name):
    write_coco(tmp_path, category=name)
    assert frames(tmp_path) == []


def test_a_json_without_street_categories_is_reported(tmp_path, caplog):
    write_coco(tmp_path, category="pedestrian")
    assert len(frames(tmp_path)) == 1
    assert "no category person" in caplog.text


def test_polygons_may_overshoot_the_border(tmp_path):
    write_coco(tmp_path, [[-5.0, -5.0, 65.0, -5.0, 65.0, 45.0, -5.0, 45.0]])
    (frame,) = frames(tmp_path)
    assert (frame.target() == OOD).all()


@pytest.mark.parametrize("option", ["include", "exclude"])
@pytest.mark.parametrize("value", [[5], [None]])
def test_category_options_are_lists_of_names(tmp_path, option, value):
    write_coco(tmp_path)
    with pytest.raises(ValueError, match=f"option {option}: expected a list of names"):
        read("coco", tmp_path, "train2017", {"min_side": 8, option: value})
