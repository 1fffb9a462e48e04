"""The published preparation of COCO, against its own output (tests/reference/g6_coco.json)."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from meta_ood.datasets import read

REFERENCE = Path(__file__).parents[1] / "reference" / "g6_coco.json"
PUBLISHED = {"min_side": 480, "background": "road", "exclude": "published"}


@pytest.fixture(scope="module")
def reference():
    return json.loads(REFERENCE.read_text())


@pytest.fixture(scope="module")
def root(reference, tmp_path_factory):
    root = tmp_path_factory.mktemp("coco")
    (root / "train2017").mkdir()
    (root / "annotations").mkdir()
    for name in (*reference["runs"]["main"]["disk"], "000000581234.jpg", "readme.txt"):
        (root / "train2017" / name).write_bytes(b"")
    path = root / "annotations" / "instances_train2017.json"
    path.write_text(json.dumps(reference["instances"]))
    return root


def test_published_preset_gives_the_published_files_and_masks(reference, root):
    frames = read("coco", root, "train2017", PUBLISHED)
    files = reference["runs"]["main"]["files"]
    assert [f"{frame.image_id}.png" for frame in frames] == sorted(files)
    for frame in frames:
        mask, expected = frame.target(), files[f"{frame.image_id}.png"]
        assert list(mask.shape) == expected["shape"]
        assert int((mask == 254).sum()) == expected["n254"]
        assert hashlib.sha256(mask.tobytes()).hexdigest() == expected["sha256"]


def test_default_differs_from_the_published_preparation_in_three_ways(reference, root, caplog):
    published = {f.image_id: f.target() for f in read("coco", root, "train2017", PUBLISHED)}
    default = {f.image_id: f.target() for f in read("coco", root, "train2017")}
    assert "000000581234.jpg" in caplog.text  # the published code stops with a KeyError here
    trains = {f"{a['image_id']:012d}" for a in reference["instances"]["annotations"] if a["category_id"] == 7}
    assert set(published) - set(default) == trains & set(published) != set()
    for name, target in default.items():
        assert np.array_equal(target == 254, published[name] == 254)
        assert set(np.unique(target).tolist()) <= {254, 255}
        assert set(np.unique(published[name]).tolist()) <= {254, 0}


def test_masks_keep_their_size_in_the_prepared_folder(root, reference, tmp_path):
    from meta_ood.datasets.preparation import prepare_frame

    frame = read("coco", root, "train2017", PUBLISHED)[0]
    shape = reference["runs"]["main"]["files"][f"{frame.image_id}.png"]["shape"]
    Image.new("RGB", (shape[1], shape[0])).save(frame.image)
    written = prepare_frame(frame, tmp_path)
    with Image.open(written.target) as target:
        assert (target.mode, target.size) == ("L", (shape[1], shape[0]))
