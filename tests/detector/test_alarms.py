"""Alarms that are alike, by brute force; alarms as labels, read by pycocotools; labels that come back."""

import csv
import json
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from PIL import ExifTags, Image
from pycocotools import mask
from pycocotools.coco import COCO

from meta_ood import Detector, SegmentTable, cli, fit, measure_segments
from meta_ood.data.files import write_json
from meta_ood.data.images import read_image
from meta_ood.data.labels import IN, OOD
from meta_ood.datasets import read
from meta_ood.demo.drives import write_drives
from meta_ood.detector import demo
from meta_ood.detector.folder import read_settings, write_folder
from meta_ood.detector.scan import labelling, similar, tables, tracks
from meta_ood.detector.scan.manifest import ManifestFrame

PHOTOS = sorted(demo.PHOTOS.iterdir())
# pycocotools 2.0 has not caught up with NumPy 2
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def invoke(*words: object, code: int = 0) -> str:
    result = CliRunner().invoke(cli.main, ["-q", *map(str, words)])
    assert result.exit_code == code, result.output
    return result.output


def write_segments(out: Path, vectors: np.ndarray, **columns: list) -> None:
    """Write a table of alarms, one a frame, in two parts whose order is not that of the frames."""
    rows = []
    for k, vector in enumerate(vectors):
        row = {
            "frame": f"f{k}",
            "index": k,
            "sequence": f"s{k}",
            "segment": 3,
            "kept": True,
            "embedding": vector.tolist(),
        }
        row |= dict.fromkeys(("top", "left"), 0) | dict.fromkeys(("bottom", "right", "size"), 9) | {"severity": 1.0}
        rows.append(row | {name: values[k] for name, values in columns.items()})
    for part, some in enumerate((rows[1::2], rows[::2])):
        tables.write_part(tables.part_path(out, "segments", part), some, tables.SEGMENTS)
        tables.write_part(tables.part_path(out, "temporal", part), [{"track": 0} for _ in some], tracks.TEMPORAL)
        tables.write_part(tables.part_path(out, "frames", part), [], tables.FRAMES)
    (out / tracks.TRACKS_FILE).touch()


@pytest.fixture
def vectors():
    """Three tight bunches of 20, 12 and 8 in 24 dimensions, in random order, and their bunch."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(3, 24))
    bunch = rng.permutation([0] * 20 + [1] * 12 + [2] * 8)
    found = centres[bunch] + 0.1 * rng.normal(size=(40, 24))
    return found.astype(np.float32), bunch


def slow_distances(vectors, k):
    z = (vectors - vectors.mean(0)) / vectors.std(0)
    return [1 - z[k] @ other / np.sqrt((z[k] @ z[k]) * (other @ other)) for other in z]


# --- alike -------------------------------------------------------------------------------------


def test_the_nearest_are_those_of_all_pairs(tmp_path, vectors):
    write_segments(tmp_path, vectors[0])
    alarms = similar.read_alarms(tmp_path)
    assert alarms.table["frame"].to_pylist() == [f"f{k}" for k in range(40)]
    for k in (0, 17):
        expected = slow_distances(vectors[0], k)
        assert alarms.find(f"f{k}:3") == k
        found = list(alarms.nearest(k))
        assert [other for other, _ in found] == [other for other in np.argsort(expected).tolist() if other != k]
        np.testing.assert_allclose([d for _, d in found], sorted(expected)[1:], atol=1e-5)


def test_of_each_other_track_the_nearest_alarm_is_listed(tmp_path, vectors):
    """Frames 0 to 19 and 20 to 39 are two drives of one track each."""
    write_segments(tmp_path, vectors[0], sequence=["a"] * 20 + ["b"] * 20)
    found = list(similar.read_alarms(tmp_path).nearest(0))
    expected = slow_distances(vectors[0], 0)
    assert [other for other, _ in found] == [20 + int(np.argmin(expected[20:]))]


def test_groups_are_the_bunches_the_largest_first(tmp_path, vectors):
    write_segments(tmp_path, vectors[0])
    alarms = similar.read_alarms(tmp_path)
    groups = alarms.groups(5)
    assert groups.tolist() == (vectors[1] + 1).tolist()
    said = list(similar.describe_groups(alarms, groups))
    assert [(group["group"], group["alarms"], group["sequences"]) for group in said] == [
        (1, 20, 20),
        (2, 12, 12),
        (3, 8, 8),
    ]
    z = alarms.vectors[groups == 2]
    typical = np.flatnonzero(groups == 2)[np.argmax(z @ z.mean(0))]
    assert said[1]["typical"]["name"] == f"f{typical}:3"
    assert set(alarms.groups(23).tolist()) == {0}  # there are no two groups of 23


def test_unknown_alarms_get_a_hint(tmp_path, vectors):
    write_segments(tmp_path, vectors[0], frame=["drive/1.png"] * 2 + ["drive/2.png"] * 38)
    alarms = similar.read_alarms(tmp_path)
    for name, says in (
        ("drive/3.png:3", "did you mean drive/2.png or drive/1.png"),
        ("drive/1.png:4", "those of this frame: 3"),
        ("elsewhere", "expected FRAME:SEGMENT"),
    ):
        with pytest.raises(ValueError, match=says):
            alarms.find(name)
    other = tmp_path / "other"
    write_segments(other, vectors[0], embedding=[None] * 40)
    with pytest.raises(ValueError, match="scan with --embeddings"):
        similar.read_alarms(other)


# --- from a scan to labels and back ------------------------------------------------------------


@pytest.fixture(scope="module")
def scanned(tmp_path_factory):
    """Photos of the package as files, as members of an archive and flipped, scanned with pictures and embeddings."""
    folder = tmp_path_factory.mktemp("fleet")
    for number, photo in enumerate(PHOTOS):
        shutil.copyfile(photo, folder / f"{number}.png")
        Image.open(photo).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(folder / "mirror.png")
    with tarfile.open(folder / "shard.tar", "w") as archive:
        archive.add(folder / "mirror.png", "cam/mirror.png")
    (folder / "mirror.png").unlink()
    out = tmp_path_factory.mktemp("scan")
    given = ("--detector", demo.DETECTOR, "--out", out, "--embeddings", "--pictures", "alarms", "--workers", 1)
    invoke("scan", folder, *given)
    return folder, out


def kept_rows(out):
    rows = pq.read_table(out / "segments").to_pylist()
    return [row for row in rows if row["kept"]]


def test_the_commands_write_tables_and_sheets(scanned):
    _, out = scanned
    rows = kept_rows(out)
    name = f"{rows[0]['frame']}:{rows[0]['segment']}"
    told = json.loads(invoke("similar", out, name, "--count", 2, "--json"))
    with (out / "similar.csv").open() as file:
        listed = list(csv.DictReader(file))
    assert [(row["frame"], int(row["segment"])) for row in listed] == [
        (r["frame"], r["segment"]) for r in told["similar"]
    ]
    assert len(listed) == 2
    assert "distance" in invoke("similar", out, name)
    assert read_image(out / "similar.jpg").shape[1] == 1000
    told = json.loads(invoke("cluster", out, "--least", 2, "--json"))
    with (out / "groups.csv").open() as file:
        groups = [int(row["group"]) for row in csv.DictReader(file)]
    assert len(groups) == len(rows)
    assert [groups.count(k + 1) for k in range(len(told["groups"]))] == [group["alarms"] for group in told["groups"]]
    assert told["alone"] == groups.count(0)


@pytest.mark.parametrize("layout", labelling.LAYOUTS)
def test_pycocotools_reads_boxes_and_masks_of_the_alarms(scanned, tmp_path, layout, capsys):
    folder, out = scanned
    told = json.loads(invoke("export-alarms", out, "--format", layout, "--out", tmp_path, "--json"))
    images, labels = (tmp_path / name for name in labelling.LAYOUTS[layout])
    read_back = COCO(str(labels))
    rows = kept_rows(out)
    assert (told["alarms"], told["images"]) == (len(rows), len({row["frame"] for row in rows}))
    assert len(read_back.getAnnIds(catIds=read_back.getCatIds(["alarm"]))) == len(rows)
    detector = Detector.load(demo.DETECTOR, "cpu")
    for listed in read_back.loadImgs(read_back.getImgIds()):
        pixels = read_image(images / listed["file_name"])
        found = detector(pixels)
        assert pixels.shape == (listed["height"], listed["width"], 3)
        annotations = read_back.loadAnns(read_back.getAnnIds(listed["id"]))
        assert [a["segment"] for a in annotations] == [k for k, s in enumerate(found.segments) if s.kept]
        for annotation in annotations:
            expected = found.labels == annotation["segment"] + 1
            np.testing.assert_array_equal(read_back.annToMask(annotation) > 0, expected)
            top, left, bottom, right = found.segments[annotation["segment"]].box
            assert annotation["bbox"] == [left, top, right - left, bottom - top]
    # the same pixels; those of files in the same bytes
    (member,) = images.glob("*_mirror*.png")
    np.testing.assert_array_equal(read_image(member), read_image(PHOTOS[-1])[:, ::-1])
    (copied,) = images.glob("*__0.png")
    assert copied.read_bytes() == (folder / "0.png").read_bytes()
    assert "choose another folder" in invoke("export-alarms", out, "--format", layout, "--out", tmp_path, code=2)


@pytest.mark.parametrize("orientation", [1, 6])
def test_photos_that_lie_on_their_side_are_written_upright(tmp_path, orientation):
    photo = tmp_path / "a.jpg"
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.open(PHOTOS[0]).convert("RGB").save(photo, exif=exif)
    upright = read_image(photo)
    frame = ManifestFrame("a.jpg", str(photo), None, "s", None, None)
    written = tmp_path / "out" / labelling._write_frame(tmp_path / "out", frame, 7, upright)
    # a tool that knows nothing of EXIF sees what the annotations are of
    np.testing.assert_array_equal(np.asarray(Image.open(written)), upright)
    assert (written.read_bytes() == photo.read_bytes()) == (orientation == 1)


def test_without_pictures_there_are_boxes_and_a_lost_frame_is_said(scanned, tmp_path):
    folder, out = scanned
    moved = tmp_path / "scan"
    shutil.copytree(out, moved, ignore=shutil.ignore_patterns("pictures"))
    (folder / "1.png").rename(folder / "away")
    try:
        told = invoke("export-alarms", moved, "--out", tmp_path, "--json", code=3)
    finally:
        (folder / "away").rename(folder / "1.png")
    told = json.loads(told[told.index("{\n") :])  # after the warning
    assert told["unreadable"] == 1
    labels = json.loads((tmp_path / labelling.LAYOUTS["cvat"][1]).read_text())
    assert {str(annotation["segmentation"]) for annotation in labels["annotations"]} == {"[]"}
    assert len(labels["images"]) == told["images"] == len({row["frame"] for row in kept_rows(out)}) - 1


OPTIONS = {
    "images": "images",
    "annotations": "annotations/instances_default.json",
    "min_side": 0,
    "background": "in",
    "include": ["ood"],
    "exclude": ["alarm"],
    "scene": "_.+__",
}


def test_labels_that_come_back_are_targets(scanned, tmp_path):
    """Of the first image all alarms are judged, with a box drawn by hand; of the others not all are."""
    _, out = scanned
    invoke("export-alarms", out, "--out", tmp_path)
    path = tmp_path / labelling.LAYOUTS["cvat"][1]
    labels = json.loads(path.read_text())
    first = labels["images"][0]["id"]
    own = [annotation for annotation in labels["annotations"] if annotation["image_id"] == first]
    for number, annotation in enumerate(own):
        annotation["category_id"] = 2 + number % 2
    size = (labels["images"][0]["height"], labels["images"][0]["width"])
    box = {"id": 10_000, "image_id": first, "category_id": 2, "bbox": [3, 5, 10, 4], "area": 40, "iscrowd": 0}
    labels["annotations"].append({**box, "segmentation": []})
    write_json(path, labels)
    expected = np.full(size, IN, np.uint8)
    for annotation in own[::2]:
        expected[COCO(str(path)).annToMask(annotation) > 0] = OOD
    expected[5:9, 3:13] = OOD
    (frame,) = read("coco", tmp_path, "all", OPTIONS)
    np.testing.assert_array_equal(frame.target(), expected)
    assert frame.image.name == labels["images"][0]["file_name"]
    assert frame.scene.endswith("__")


def judge(annotation, target):
    """Return the category of a labeller who knows the target: ood or false alarm."""
    with_object = (mask.decode(annotation["segmentation"]) > 0) & (target == OOD)
    return 2 if with_object.any() else 3


def measured(detector, frame):
    prediction = replace(detector.predict(read_image(frame.image)), target=frame.target(), scene=frame.scene)
    return measure_segments(prediction, detector.settings.score, detector.settings.threshold)


def test_labels_of_alarms_make_a_detector_better_on_other_drives(tmp_path):
    """A network without meta classifier keeps all segments; people judge those of two drives; two others test it."""
    # 1. drawn drives, and a scan of the first two
    assert sum(write_drives(tmp_path / "raw", 4, 4, seed=4, height=128, width=256)) == 16
    frames = read("lost_and_found", tmp_path / "raw", "test")
    first, second = frames[:8], frames[8:]
    settings = read_settings(demo.DETECTOR).model_copy(update={"promise": None, "files": {}})
    before, scan, labels = (tmp_path / name for name in ("detector", "scan", "labels"))
    write_folder(before, demo.DETECTOR / "weights.safetensors", None, settings)
    folders = sorted({frame.image.parent for frame in first})
    invoke("scan", *folders, "--detector", before, "--out", scan, "--pictures", "alarms", "--workers", 1)
    # 2. its alarms, judged
    invoke("export-alarms", scan, "--out", labels)
    path = labels / labelling.LAYOUTS["cvat"][1]
    said = json.loads(path.read_text())
    targets = {frame.image.stem: frame.target() for frame in first}
    by_image = {image["id"]: targets[Path(image["frame"]).stem] for image in said["images"]}
    for annotation in said["annotations"]:
        annotation["category_id"] = judge(annotation, by_image[annotation["image_id"]])
    write_json(path, said)
    # 3. a meta classifier fitted on what came back
    detector = Detector.load(before, "cpu")
    back = read("coco", labels, "all", OPTIONS)
    assert [scene[-10:] for scene in sorted({frame.scene for frame in back})] == ["00_Drive__", "01_Drive__"]
    table = SegmentTable.concatenate([measured(detector, frame) for frame in back])
    categories = [annotation["category_id"] for annotation in said["annotations"]]
    assert table.is_false.tolist() == [category == 3 for category in categories]
    classifier = fit(table)
    # 4. on the other drives
    truth = SegmentTable.concatenate([measured(detector, frame) for frame in second])
    kept = classifier.probability(truth) <= classifier.operating_point
    assert np.bincount(truth.is_false).min() >= 5
    assert kept[truth.is_false].mean() < 0.05
    assert kept[~truth.is_false].mean() > 0.7
