import hashlib
import json

import numpy as np
import pytest
from PIL import Image

from demo_world import small_params, synthesize_to
from meta_ood.data.labels import CITYSCAPES, IGNORE
from meta_ood.datasets.lost_and_found import NON_HAZARDS
from meta_ood.demo.obstacles import HAZARDS
from meta_ood.demo.obstacles import NON_HAZARDS as DRAWN_NON_HAZARDS


def digests(root):
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def test_same_seed_gives_same_bytes_and_another_seed_other_bytes(demo, tmp_path):
    synthesize_to(tmp_path / "again", small_params())
    synthesize_to(tmp_path / "other", small_params(seed=1))
    first, again, other = digests(demo), digests(tmp_path / "again"), digests(tmp_path / "other")
    assert first == again
    pictures = [name for name in first if "leftImg8bit" in name or name.endswith(".jpg")]
    assert pictures
    assert all(first[name] != other[name] for name in pictures if name in other)


@pytest.mark.parametrize("split", ["train", "val"])
def test_every_class_and_void_occur_in_each_cityscapes_split(demo, split):
    seen = set()
    for path in (demo / "cityscapes" / "gtFine" / split).rglob("*_labelIds.png"):
        seen |= set(np.unique(CITYSCAPES.encode(np.asarray(Image.open(path)))).tolist())
    assert seen == {*range(19), IGNORE}


def test_ego_vehicle_and_border_are_labelled(demo):
    path = next((demo / "cityscapes" / "gtFine" / "train").rglob("*_labelIds.png"))
    ids = np.asarray(Image.open(path))
    assert (ids[0] == 2).all()
    assert (ids[-1, 1:-1] == 1).all()


def test_lost_and_found_has_scenes_hazards_non_hazards_and_frames_without_obstacle(demo):
    root = demo / "lost_and_found" / "gtCoarse" / "test"
    assert len(list(root.iterdir())) == 5
    seen, empty = set(), 0
    for path in root.rglob("*_labelIds.png"):
        ids = np.asarray(Image.open(path))
        train_ids = np.asarray(Image.open(str(path).replace("_labelIds", "_labelTrainIds")))
        assert set(np.unique(ids)) <= set(range(44))
        assert np.array_equal(train_ids == 255, ids == 0)
        assert np.array_equal(train_ids == 1, ids == 1)
        assert np.array_equal(train_ids == 0, np.isin(ids, NON_HAZARDS))
        seen |= set(np.unique(ids).tolist())
        empty += not (ids > 1).any()
    assert empty >= 5
    assert seen & set(HAZARDS)
    assert seen & set(NON_HAZARDS)


def test_drawn_obstacles_agree_with_the_published_label_table():
    assert set(DRAWN_NON_HAZARDS) <= set(NON_HAZARDS)
    assert set(HAZARDS) <= set(range(2, 44)) - set(NON_HAZARDS)


def test_neighbouring_frames_of_a_scene_look_alike_and_scenes_differ(demo):
    scenes = sorted((demo / "lost_and_found" / "leftImg8bit" / "test").iterdir())
    pictures = [[np.asarray(Image.open(path), float) for path in sorted(scene.iterdir())[:2]] for scene in scenes[:2]]
    near = np.abs(pictures[0][0] - pictures[0][1]).mean()
    far = np.abs(pictures[0][0] - pictures[1][0]).mean()
    assert near < 0.7 * far


def test_coco_has_the_oddities_of_real_folders(demo):
    root = demo / "coco"
    instances = json.loads((root / "annotations" / "instances_train2017.json").read_text())
    forms = {
        "polygons" if isinstance(a["segmentation"], list) else type(a["segmentation"]["counts"]).__name__
        for a in instances["annotations"]
    }
    assert forms == {"polygons", "str", "list"}
    assert {a["iscrowd"] for a in instances["annotations"]} == {0, 1}
    listed = {image["file_name"] for image in instances["images"]}
    on_disk = {path.name for path in (root / "train2017").iterdir()}
    assert len(listed - on_disk) == 1
    assert len(on_disk - listed) == 1
    annotated = {a["image_id"] for a in instances["annotations"]}
    assert any(image["id"] not in annotated for image in instances["images"])
    assert any(min(image["height"], image["width"]) < 64 for image in instances["images"])
    for image in instances["images"]:
        if image["file_name"] in on_disk:
            with Image.open(root / "train2017" / image["file_name"]) as opened:
                assert opened.size == (image["width"], image["height"])


def test_fishyscapes_labels_are_0_1_255_and_each_frame_has_an_object(demo):
    for path in (demo / "fishyscapes" / "Static").glob("*.png"):
        values = set(np.unique(np.asarray(Image.open(path))).tolist())
        assert values == {0, 1, 255}
        assert path.with_suffix(".jpg").is_file()
