"""Round trip for each layout: written, read, and passed by the checks."""

import numpy as np
import pytest

from meta_ood.data.labels import IGNORE, IN, OOD
from meta_ood.datasets import READERS, read
from meta_ood.datasets.checks.examine import examine
from meta_ood.datasets.reader import LayoutReader
from meta_ood.demo.miniature import miniatures, splits_of, write_miniature

CASES = [(kind, split) for kind, what in miniatures().items() for split in what.layout.splits]
CASES = [
    (kind, split) for kind, split in CASES
    if split not in ("train_extra", "trainValid", "testValid", "testNoKnown", "valAll")
]  # fmt: skip


def options(kind):
    if kind.startswith("fishyscapes_static_"):
        return "fishyscapes_static", {"version": kind[-2:]}
    changed = {"cityscapes_train_ids": {"labels": "train_ids"}, "cityscapes_coarse": {"annotation": "coarse"}}
    return ("cityscapes", changed[kind]) if kind in changed else (kind, {})


@pytest.mark.parametrize(("kind", "split"), CASES)
def test_round_trip(tmp_path, kind, split):
    assert write_miniature(tmp_path, kind, split, 7, height=64, width=128, distinct=3) == 7
    reader, chosen = options(kind)
    frames = read(reader, tmp_path, split, chosen)
    assert len(frames) == 7
    targets = [frame.target() for frame in frames]
    values = {int(value) for target in targets for value in np.unique(target)}
    function = READERS[reader]
    assert isinstance(function, LayoutReader)
    layout = function.layout(**chosen)
    if split in layout.unlabelled:
        assert values == {IGNORE}
    elif reader == "cityscapes":
        assert values <= {*range(19), IGNORE}
        assert len(values) > 8
    else:
        assert {IN, OOD} <= values <= {IN, OOD, IGNORE}
    report = examine(kind, reader, tmp_path, split, chosen, full=True)
    assert report.passed, report.findings
    assert {f.code for f in report.findings} <= {"count", "size", "classes"}


@pytest.mark.parametrize("split", ["train2017", "val2017"])
def test_round_trip_of_coco(tmp_path, split):
    assert splits_of("coco") == ["train2017", "val2017"]
    assert write_miniature(tmp_path, "coco", split, 9, height=64, width=96, distinct=6) == 9
    frames = read("coco", tmp_path, split, {"min_side": 64})
    assert len(frames) == 6  # every third holds something of the street
    for frame in frames:
        target = frame.target()
        assert target.shape == (64, 96)
        assert set(np.unique(target).tolist()) == {OOD, IGNORE}
    report = examine("coco", "coco", tmp_path, split, {}, full=True)
    assert {f.code for f in report.findings} == {"count"}
    assert (report.facts["frames"], report.facts["published"]) == (9, {"train2017": 118287, "val2017": 5000}[split])
    assert len({frame.image.read_bytes() for frame in frames}) == 6


def test_overlays_give_the_pasted_pictures(tmp_path):
    write_miniature(tmp_path, "fishyscapes_static_v2", "val", 2)
    for frame in read("fishyscapes_static", tmp_path, "val", {"version": "v2"}):
        assert frame.pixels is not None
        pixels, target = frame.pixels(), frame.target()
        from PIL import Image

        plain = np.asarray(Image.open(frame.image))
        changed = (pixels != plain).any(axis=2)
        assert changed[target == OOD].mean() > 0.9
        assert changed.mean() < 0.5


@pytest.mark.parametrize(
    ("kind", "split"), [("fishyscapes_lost_and_found", "val"), ("road_anomaly", "all"), ("road_obstacle21", "val")]
)
def test_counts_are_those_of_the_real_dataset(tmp_path, kind, split):
    write_miniature(tmp_path, kind, split, height=64, width=128)
    report = examine(kind, kind, tmp_path, split, {})
    assert report.findings == ()
    assert report.facts["frames"] == report.facts["published"]


def test_names_of_cityscapes_have_the_real_counts():
    what = miniatures()["cityscapes"]
    for split, total in (("train", 2975), ("val", 500), ("test", 1525)):
        names = what.names(split, total)
        assert len({name["id"] for name in names}) == total
    assert sum(name["folder"] == "lindau" for name in what.names("val", 500)) == 59


def test_unknown_kind_and_split(tmp_path):
    with pytest.raises(ValueError, match="unknown miniature 'kitti'"):
        write_miniature(tmp_path, "kitti", "val")
    with pytest.raises(ValueError, match="unknown Cityscapes split 'dev'"):
        write_miniature(tmp_path, "cityscapes", "dev")
