"""Datasets that params.yaml describes alone: what is read, and what an error says."""

import numpy as np
import pytest
from PIL import Image

from meta_ood.data.labels import IGNORE, IN, NEUTRAL, OOD
from meta_ood.datasets import check_options, read
from meta_ood.datasets.checks.examine import examine
from meta_ood.datasets.preparation import prepare_frame

OWN = {"images": "photos/{id}.jpg", "targets": "masks/{id}.png"}
STREETS = {"images": "{split}/{scene}/{id}_photo.jpg", "targets": "labels/{split}/{scene}/{id}_ids.png"}


def put(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path)


def put_pair(root, name, labels=((0, 1, 255, 0),)):
    put(root / f"photos/{name}.jpg", np.zeros((1, 4, 3)))
    put(root / f"masks/{name}.png", labels)


def codes(root, **options):
    return {finding.code: finding for finding in examine("own", "folder", root, "all", options, full=True).findings}


def test_photos_with_masks(tmp_path):
    put_pair(tmp_path, "b")
    put_pair(tmp_path, "a")
    first, second = read("folder", tmp_path, "any split", OWN)
    assert [(f.image_id, f.scene) for f in (first, second)] == [("a", "a"), ("b", "b")]
    assert second.target().tolist() == [[IN, OOD, IGNORE, IN]]
    assert codes(tmp_path, **OWN).keys() <= {"duplicate"}  # the two images are equal


def test_scenes_and_splits_of_the_template(tmp_path):
    # names that begin with the scene stay as they are, as in Cityscapes; numbers that begin anew get it
    for scene, name in (("ulm", "ulm_3"), ("day1", "0007"), ("day2", "0007")):
        put(tmp_path / f"val/{scene}/{name}_photo.jpg", np.zeros((1, 2, 3)))
        put(tmp_path / f"labels/val/{scene}/{name}_ids.png", [[7, 24]])
    put(tmp_path / "train/ulm/ulm_4_photo.jpg", np.zeros((1, 2, 3)))
    frames = read("folder", tmp_path, "val", STREETS | {"labels": "cityscapes_ids"})
    assert [(f.image_id, f.scene) for f in frames] == [("day1_0007", "day1"), ("day2_0007", "day2"), ("ulm_3", "ulm")]
    assert frames[0].target().tolist() == [[0, 11]]  # road, person
    assert {f.scene for f in read("folder", tmp_path, "val", STREETS | {"scene": "^[0-9a-z]"})} == {"0", "u"}


def test_a_part_of_a_folder(tmp_path):
    for name in ("00009", "00010", "00011", "10000"):
        put_pair(tmp_path, name)
    frames = read("folder", tmp_path, "all", OWN | {"only": "0000|00010"})
    assert [frame.image_id for frame in frames] == ["00009", "00010"]
    assert codes(tmp_path, **OWN, only="0000").keys() <= {"duplicate"}  # the others are no files to wonder about


def test_a_table_of_ones_own(tmp_path):
    put_pair(tmp_path, "a", [[0, 5, 6, 9, 9]])
    labels = {0: "traffic sign", 5: "in", "6": "neutral", 9: "ood"}  # keys that come from json are text
    (frame,) = read("folder", tmp_path, "all", OWN | {"labels": labels})
    assert frame.target().tolist() == [[7, IN, NEUTRAL, OOD, OOD]]
    (frame,) = read("folder", tmp_path, "all", OWN | {"labels": {0: "in", 5: "in", 9: "ood"}})
    with pytest.raises(ValueError, match=r"masks/a\.png: label ids \[6\] are not in the table \[0, 5, 9\]"):
        frame.target()


def test_frames_without_labels_are_in_distribution_everywhere(tmp_path):
    put(tmp_path / "photos/a.jpg", np.zeros((2, 3, 3)))
    (frame,) = read("folder", tmp_path, "all", {"images": "photos/{id}.jpg"})
    written = prepare_frame(frame, tmp_path / "prepared")
    assert np.asarray(Image.open(written.target)).tolist() == [[IN] * 3] * 2
    assert not codes(tmp_path, images="photos/{id}.jpg")


def test_errors_name_files_that_did_not_fit(tmp_path):
    put_pair(tmp_path, "a")
    put_pair(tmp_path, "b")
    put(tmp_path / "photos/c.jpeg", np.zeros((1, 4, 3)))
    (tmp_path / "masks/b.png").rename(tmp_path / "masks/b_mask.png")
    with pytest.raises(FileNotFoundError, match=r"masks/b\.png is missing, .*photos/b.jpg; 1 file.* masks/b_mask\.png"):
        read("folder", tmp_path, "all", OWN)
    with pytest.raises(FileNotFoundError, match=r"expected photos/\{id\}\.tif; 3 file.*photos/a\.jpg, photos/b\.jpg"):
        read("folder", tmp_path, "all", {"images": "photos/{id}.tif"})
    with pytest.raises(FileNotFoundError, match=r"expected fotos/\{id\}\.jpg; 5 file\(s\).*masks/a\.png"):
        read("folder", tmp_path, "all", {"images": "fotos/{id}.jpg"})
    found = codes(tmp_path, **OWN)
    assert found["unmatched"].files == (str(tmp_path / "photos/c.jpeg"),)
    assert found["no_labels"].files == (str(tmp_path / "photos/b.jpg"),)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "the option images is missing"),
        ({"images": "photos/a.jpg"}, "has no {id}"),
        ({"images": "/photos/{id}.jpg"}, "option images: expected a path below the root"),
        ({"images": "../{id}.jpg"}, "option images: expected a path below the root"),
        ({"images": "{id}.{}"}, "option images: expected a path below the root"),
        ({"images": 3}, "option images: expected a path below the root"),
        (OWN | {"targets": "masks/{name}.png"}, "option targets: {name} of"),
        (OWN | {"labels": "binry"}, "option labels: expected one of binary, cityscapes_ids, cityscapes_train_ids"),
        (OWN | {"labels": ["in"]}, "option labels: expected a table"),
        (OWN | {"labels": {0: "rood"}}, "option labels: 0: 'rood' is unknown; known: .*did you mean ood or road"),
        (OWN | {"labels": {256: "in"}}, "option labels: got the value 256"),
        (OWN | {"scene": "("}, r"option scene: '\(' is no pattern"),
        (OWN | {"only": "("}, r"option only: '\(' is no pattern"),
    ],
)
def test_wrong_options_are_found_before_any_file(options, message):
    with pytest.raises(ValueError, match=message):
        check_options("folder", options)


MODULE = """
from functools import partial
import numpy as np
from meta_ood.datasets.reader import Layout, LayoutReader, RawFrame

def target():
    return np.zeros((1, 4), np.uint8)

def frames(root, split, *, scene="here"):
    for path in sorted((root / split).glob("*.jpg")):
        yield RawFrame(path.stem, path, scene, target)

def names(root, split):
    yield "a.jpg"

own = LayoutReader(lambda *, kind="jpg": Layout("own", f"photos/{{id}}.{kind}", "", {}, {"all": 0}))
number = 3
"""


def test_readers_of_ones_own(tmp_path, monkeypatch):
    (tmp_path / "own_reader_for_test.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    put(tmp_path / "photos/a.jpg", np.zeros((1, 4, 3)))
    module = "own_reader_for_test"
    (frame,) = read(f"{module}:frames", tmp_path, "photos", {"scene": "there"})
    assert (frame.image_id, frame.scene, frame.target().tolist()) == ("a", "there", [[0] * 4])
    assert [frame.image_id for frame in read(f"{module}:own", tmp_path, "all")] == ["a"]
    for reader, split in (("frames", "photos"), ("own", "all")):
        report = examine("own", f"{module}:{reader}", tmp_path, split, {})
        assert (report.passed, report.facts["frames"]) == (True, 1)
    for reader, options, message in (
        (f"{module}:frames", {"scenes": 1}, "unknown option 'scenes'; known: scene"),
        (f"{module}:lost", {}, "reader own_reader_for_test:lost: expected package.module:name, .*no attribute 'lost'"),
        ("no_such_module:lost", {}, "No module named 'no_such_module'"),
        (f"{module}:number", {}, "expected a function of root, split and options, got int"),
        (f"{module}:names", {}, "expected frames as RawFrame, got str"),
    ):
        with pytest.raises(ValueError, match=message):
            read(reader, tmp_path, "photos", options)
