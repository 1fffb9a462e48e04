import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from meta_ood.data.labels import CITYSCAPES, IGNORE, IN, NEUTRAL, OOD
from meta_ood.datasets import READERS, read


def put(path, ids):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(ids, np.uint8)).save(path)


def put_pair(root, name, ids, labels="gtFine", split="train", suffix="labelIds"):
    city = name.split("_")[0]
    ids = np.asarray(ids, np.uint8)
    put(root / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png", np.zeros((*ids.shape, 3)))
    put(root / labels / split / city / f"{name}_{labels}_{suffix}.png", ids)


def test_readers_are_known_by_name():
    with pytest.raises(ValueError, match="unknown reader 'kitti'; known: cityscapes, coco"):
        read("kitti", ".", "train")


def test_cityscapes_label_ids_become_train_ids(tmp_path):
    put_pair(tmp_path, "ulm_000001_000019", [[7, 8, 33, 0, 9, 30]])
    put_pair(tmp_path, "aachen_000000_000019", [[26, 1, 2, 3, 4, 31]])
    frames = read("cityscapes", str(tmp_path), "train")
    assert [frame.image_id for frame in frames] == ["aachen_000000_000019", "ulm_000001_000019"]
    assert [frame.scene for frame in frames] == ["aachen", "ulm"]
    assert frames[1].target().tolist() == [[0, 1, 18, 255, 255, 255]]
    assert frames[0].target().tolist() == [[13, 255, 255, 255, 255, 16]]
    assert frames[0].target().dtype == np.uint8


def test_cityscapes_train_ids_and_coarse_labels(tmp_path):
    put_pair(tmp_path, "ulm_000001_000019", [[0, 18, 255]], suffix="labelTrainIds")
    put_pair(tmp_path, "ulm_000001_000019", [[7, 33, 0]], labels="gtCoarse")
    for options in ({"labels": "train_ids"}, {"annotation": "coarse"}):
        (frame,) = read("cityscapes", tmp_path, "train", options)
        assert frame.target().tolist() == [[0, 18, 255]]


def test_cityscapes_of_the_demo_agrees_with_the_label_table(demo):
    frames = read("cityscapes", demo / "cityscapes", "val")
    assert len(frames) == 8
    for frame in frames:
        raw = str(frame.image).replace("leftImg8bit.png", "gtFine_labelIds.png")
        ids = np.asarray(Image.open(raw.replace("leftImg8bit", "gtFine")))
        expected = np.vectorize(CITYSCAPES.train_ids.__getitem__)(ids)
        assert np.array_equal(frame.target(), expected)


def test_missing_partner_is_named(tmp_path, demo):
    root = tmp_path / "cityscapes"
    shutil.copytree(demo / "cityscapes", root)
    gone = sorted(root.rglob("*_gtFine_labelIds.png"))[3]
    gone.unlink()
    with pytest.raises(FileNotFoundError, match=gone.name):
        read("cityscapes", root, "train")


def test_wrong_root_says_what_is_expected(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere is no folder; expected leftImg8bit/val/"):
        read("cityscapes", tmp_path / "nowhere", "val")
    with pytest.raises(FileNotFoundError, match=r"no file of split 'val'.*leftImg8bit/val/"):
        read("cityscapes", tmp_path, "val")


def test_unknown_split_and_option_list_the_known_ones(tmp_path):
    with pytest.raises(ValueError, match=r"unknown Cityscapes split 'tset'; known: test, train, val"):
        read("cityscapes", tmp_path, "tset")
    with pytest.raises(ValueError, match="unknown option 'lables'; known: annotation, labels"):
        read("cityscapes", tmp_path, "val", {"lables": "train_ids"})
    with pytest.raises(ValueError, match="option labels: expected one of label_ids, train_ids"):
        read("cityscapes", tmp_path, "val", {"labels": "trainids"})
    with pytest.raises(ValueError, match="unknown option 'x'; known: none"):
        read("fishyscapes", tmp_path, "Static", {"x": 1})


def test_label_outside_the_table_names_file_and_value(tmp_path):
    put_pair(tmp_path, "ulm_000001_000019", [[7, 77]])
    (frame,) = read("cityscapes", tmp_path, "train")
    with pytest.raises(ValueError, match=r"ulm_000001_000019_gtFine_labelIds.png: label ids \[77\]"):
        frame.target()


def test_colour_image_instead_of_ids_is_an_error(tmp_path):
    put_pair(tmp_path, "ulm_000001_000019", np.zeros((4, 4)))
    put(tmp_path / "gtFine/train/ulm/ulm_000001_000019_gtFine_labelIds.png", np.zeros((4, 4, 3)))
    (frame,) = read("cityscapes", tmp_path, "train")
    with pytest.raises(ValueError, match=r"expected label ids .* got mode RGB"):
        frame.target()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [IGNORE, IN, OOD, OOD, NEUTRAL, OOD]),
        ({"reading": "published"}, [IGNORE, IN, OOD, OOD, NEUTRAL, OOD]),
        ({"reading": "smiyc"}, [IGNORE, IN, OOD, OOD, OOD, OOD]),
    ],
)
def test_readings_of_lost_and_found(tmp_path, options, expected):
    scene = "02_Hanns_Klemm_Str_44"
    stem = f"test/{scene}/{scene}_000000_000020"
    put(tmp_path / f"leftImg8bit/{stem}_leftImg8bit.png", np.zeros((1, 6, 3)))
    put(tmp_path / f"gtCoarse/{stem}_gtCoarse_labelIds.png", [[0, 1, 2, 30, 31, 43]])
    put(tmp_path / f"gtCoarse/{stem}_gtCoarse_labelTrainIds.png", [[255, 1, 2, 2, 0, 2]])
    (frame,) = read("lost_and_found", tmp_path, "test", options)
    assert frame.scene == scene
    assert frame.image_id == f"{scene}_000000_000020"
    assert frame.target().tolist() == [expected]


def test_lost_and_found_train_ids_are_the_published_reading(demo):
    by_id = read("lost_and_found", demo / "lost_and_found", "test")
    by_train_id = read("lost_and_found", demo / "lost_and_found", "test", {"labels": "train_ids"})
    assert len(by_id) == 11
    for first, second in zip(by_id, by_train_id, strict=True):
        assert np.array_equal(first.target(), second.target())
    with pytest.raises(ValueError, match="reading smiyc needs labels label_ids"):
        read("lost_and_found", demo, "test", {"reading": "smiyc", "labels": "train_ids"})


def test_fishyscapes_pairs(demo):
    frames = read("fishyscapes", demo / "fishyscapes", "Static")
    assert len(frames) == 4
    for frame in frames:
        raw = np.asarray(Image.open(frame.image.with_suffix(".png")))
        expected = np.select([raw == 0, raw == 1, raw == 255], [IN, OOD, IGNORE])
        assert np.array_equal(frame.target(), expected)
    assert frames[0].scene == "neustadt"


def write_coco(root, images, annotations, categories):
    (root / "train2017").mkdir(parents=True)
    (root / "annotations").mkdir()
    for image in images:
        Image.new("RGB", (image["width"], image["height"])).save(root / "train2017" / image["file_name"])
    instances = {"images": images, "annotations": annotations, "categories": categories}
    (root / "annotations" / "instances_train2017.json").write_text(json.dumps(instances))


@pytest.fixture
def tiny_coco(tmp_path):
    images = [{"id": k, "file_name": f"{k:012d}.jpg", "height": 6, "width": 8} for k in range(1, 6)]
    square = {"counts": [12, 2, 4, 2, 28], "size": [6, 8]}
    names = {1: "person", 7: "train", 18: "dog", 62: "chair"}
    annotations = [
        {"id": k, "image_id": image, "category_id": category, "segmentation": square, "iscrowd": 1}
        for k, (image, category) in enumerate([(1, 18), (2, 18), (2, 1), (3, 7), (4, 62)])
    ]
    categories = [{"id": k, "name": name} for k, name in names.items()]
    write_coco(tmp_path, images, annotations, categories)
    return tmp_path


def ids(frames):
    return [int(frame.image_id) for frame in frames]


def test_coco_leaves_out_street_classes_and_small_images(tiny_coco):
    assert ids(read("coco", tiny_coco, "train2017", {"min_side": 6})) == [1, 4, 5]
    published = {"min_side": 6, "exclude": "published"}
    assert ids(read("coco", tiny_coco, "train2017", published)) == [1, 3, 4, 5]
    assert ids(read("coco", tiny_coco, "train2017", {"min_side": 0, "exclude": ["dog"]})) == [3, 4, 5]
    assert read("coco", tiny_coco, "train2017", {"min_side": 7}) == []


def test_coco_as_known_things(tiny_coco):
    known = {"min_side": 0, "known": {"Person": "person", "train": "train"}}
    frames = read("coco", tiny_coco, "train2017", known)
    assert ids(frames) == [2, 3]  # also those that `exclude` leaves out of the proxies
    for frame, train_id in zip(frames, (11, 16), strict=True):
        expected = np.full((6, 8), IGNORE)
        expected[0:2, 2:4] = train_id  # the dog on the same place of image 2 is not drawn
        assert np.array_equal(frame.target(), expected)
    assert read("coco", tiny_coco, "train2017", known | {"min_side": 7}) == []
    for option, message in ((["person"], "a table category: class"), ({"dog": "dog"}, "'dog' is unknown; known: ")):
        with pytest.raises(ValueError, match=f"option known: .*{message}"):
            read("coco", tiny_coco, "train2017", {"known": option})
    with pytest.raises(ValueError, match="option known: no category 'cow'"):
        read("coco", tiny_coco, "train2017", {"known": {"cow": "car"}})


@pytest.mark.parametrize(("background", "value"), [("ignore", IGNORE), ("road", 0), ("ood", OOD)])
def test_coco_background(tiny_coco, background, value):
    frames = read("coco", tiny_coco, "train2017", {"min_side": 0, "background": background})
    expected = np.full((6, 8), value)
    expected[0:2, 2:4] = OOD
    assert frames[0].target().tolist() == expected.tolist()
    assert (frames[-1].target() == value).all()  # no annotation


def test_coco_include_makes_proxies_of_some_categories_only(tiny_coco):
    frames = read("coco", tiny_coco, "train2017", {"min_side": 0, "include": ["chair"]})
    assert [bool((frame.target() == OOD).any()) for frame in frames] == [False, True, False]


def test_a_dataset_in_cocos_format_may_be_laid_out_otherwise(tiny_coco):
    (tiny_coco / "train2017").rename(tiny_coco / "pictures")
    json_path = tiny_coco / "annotations" / "instances_train2017.json"
    json_path.rename(tiny_coco / "labels_mine.json")
    where = {"images": "pictures", "annotations": "labels_{split}.json", "min_side": 6}
    frames = read("coco", tiny_coco, "mine", where)
    assert ids(frames) == [1, 4, 5]
    assert frames[0].image.is_file()


def test_coco_reader_checks_its_options(tiny_coco):
    for options, message in (
        ({"min_side": "480"}, "option min_side: expected pixels >= 0, got '480'"),
        ({"background": "void"}, "option background: expected one of ignore, road, ood"),
        ({"exclude": "paper"}, "option exclude: expected one of street, published"),
        ({"exclude": ["dgo"]}, "option exclude: no category 'dgo'; known: chair, dog"),
    ):
        with pytest.raises(ValueError, match=message):
            read("coco", tiny_coco, "train2017", options)


def test_coco_skips_what_is_only_on_disk_or_only_in_the_json_with_a_warning(demo, caplog):
    with caplog.at_level("WARNING"):
        frames = read("coco", demo / "coco", "train2017", {"min_side": 64})
    assert re.search(r"1 file.* on disk are not in the json, such as .*000000900001.jpg", caplog.text)
    assert re.search(r"1 image.* of the json are not on disk, such as .*000000900002.jpg", caplog.text)
    assert not {900001, 900002} & set(ids(frames))
    # of 30 images two each have a street class or are too small
    assert len(frames) == 26


def test_coco_names_a_missing_or_broken_json(tmp_path):
    (tmp_path / "train2017").mkdir()
    with pytest.raises(FileNotFoundError, match=r"instances_train2017.json is missing"):
        read("coco", tmp_path, "train2017")
    path = tmp_path / "annotations" / "instances_train2017.json"
    path.parent.mkdir()
    path.write_text('{"images": [')
    with pytest.raises(ValueError, match="not a complete json file"):
        read("coco", tmp_path, "train2017")
    path.write_text('{"images": []}')
    with pytest.raises(ValueError, match="expected a list under 'annotations'"):
        read("coco", tmp_path, "train2017")


def test_every_reader_gives_frames_that_can_be_sent_to_another_process(demo):
    from multiprocessing.reduction import ForkingPickler

    for name, split in (
        ("cityscapes", "train"),
        ("coco", "train2017"),
        ("lost_and_found", "test"),
        ("fishyscapes", "Static"),
    ):
        options = {"min_side": 64} if name == "coco" else {}
        frame = read(name, demo / name, split, options)[0]
        copy = ForkingPickler.loads(ForkingPickler.dumps(frame))
        assert np.array_equal(copy.target(), frame.target())
        assert name in READERS
