"""The detector against the stages one after another, and the command `detect`."""

import json
import math
import os
import shutil

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from detector_parts import blobs, save_weights
from meta_ood import Detector, cli
from meta_ood.config import InferParams
from meta_ood.data.files import file_hash
from meta_ood.detector.detector import UNLIKE, as_rgb, judge_segments
from meta_ood.detector.folder import Settings, read_settings
from meta_ood.detector.images import detect_images, find_images
from meta_ood.meta_classification.classifier import OF_CLASSIFIER, OF_SCORE, Formula
from meta_ood.meta_classification.promise import Promise
from meta_ood.models import build
from meta_ood.scores import SCORES, pixel_maps
from meta_ood.segments import measure_segments


def test_what_is_found_is_what_the_stages_find(parts, detector):
    for frame, prediction in zip(parts.frames, parts.predictions, strict=True):
        found = detector(frame.image)
        score = SCORES["entropy"](pixel_maps(prediction))
        np.testing.assert_array_equal(found.score, score)
        np.testing.assert_array_equal(found.mask, score >= np.float32(parts.threshold))
        table = measure_segments(prediction, "entropy", parts.threshold)
        assert [list(s.box) for s in found.segments] == table.segment_box.tolist()
        assert [s.size for s in found.segments] == table.segment_size.tolist()
        probability = detector.classifier.probability(table)
        np.testing.assert_array_equal([s.false_alarm for s in found.segments], probability)
        assert [s.kept for s in found.segments] == (probability <= 0.4).tolist()
        removed = np.isin(found.labels, np.flatnonzero(probability > 0.4) + 1)
        np.testing.assert_array_equal(found.kept_mask, found.mask & ~removed)
        assert found.overlay().shape == (64, 128, 3)
        for number, segment in enumerate(found.segments, start=1):
            rows, columns = np.nonzero(found.labels == number)
            box = (rows.min(), columns.min(), rows.max() + 1, columns.max() + 1)
            assert segment.box == box


def test_array_pil_image_and_path_give_the_same(parts, detector, tmp_path):
    image = Image.open(parts.frames[0].image)
    texts = {
        detector(given).to_json()
        for given in (parts.frames[0].image, str(parts.frames[0].image), image, np.array(image))
    }
    assert len(texts) == 1
    assert json.loads(texts.pop())["size"] == [64, 128]
    # the camera's orientation is applied: 6 = turned by a quarter
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.png", exif=exif)
    assert as_rgb(tmp_path / "turned.png").shape == (128, 64, 3)
    assert as_rgb(Image.open(tmp_path / "turned.png")).shape == (128, 64, 3)
    for wrong in (np.zeros((64, 64), np.uint8), np.zeros((64, 64, 3)), [[1, 2, 3]]):
        with pytest.raises(ValueError, match=r"\(H, W, 3\) uint8 RGB, a PIL image or a path"):
            as_rgb(wrong)


def test_decisions_and_reasons_are_the_classifiers(blob_classifier):
    table = measure_segments(blobs(20), "entropy", 0.7)
    found = judge_segments(table, blob_classifier)
    probability = blob_classifier.probability(table)
    assert 0 < sum(not s.kept for s in found) < len(found)
    for row, segment in enumerate(found):
        assert segment.false_alarm == probability[row]
        assert segment.kept == (probability[row] <= 0.5)
        assert len(segment.reasons) == 3
        away = np.abs(table.features[row] - blob_classifier.mean)
        scale = blob_classifier.scale
        away = np.divide(away, scale, where=scale > 0, out=0 * away)
        assert segment.farthest["deviations"] == pytest.approx(away.max())
        assert segment.farthest["feature"] == table.feature_names[away.argmax()]
        assert segment.unlike_training == (away.max() > UNLIKE)


def test_a_segment_unlike_any_in_training_is_marked(blob_classifier):
    huge = blobs(1)
    huge.logits[0] = 0  # one segment: the whole image
    (segment,) = judge_segments(measure_segments(huge, "entropy", 0.7), blob_classifier)
    assert segment.unlike_training


def test_without_classifier_and_without_segments(parts, detector):
    settings = detector.settings.model_copy(update={"threshold": 2.0})
    found = Detector(detector.network, settings, None, "cpu")(np.zeros((64, 64, 3), np.uint8))
    assert found.segments == []
    assert not found.mask.any()
    assert not found.kept_mask.any()
    bare = Detector(detector.network, detector.settings, None, "cpu")(parts.frames[0].image)
    assert bare.segments
    assert all(s.false_alarm is None and s.kept and s.farthest is None for s in bare.segments)


def promise_at(threshold: float, severity: Formula = OF_CLASSIFIER) -> Promise:
    about = {
        "severity": severity,
        "budget": 0.5,
        "per": "frame",
        "confidence": 0.9,
        "calibrate_on": ("val",),
        "unit": "frame",
    }
    reference = {"mean score": (0.0,) * 64}
    return Promise(
        **about, threshold=threshold, units=64, frames=64, alarms=20, rate=0.3, bound=0.4, reference=reference
    )


def test_a_promise_decides_by_severity(detector, parts):
    before = [segment for frame in parts.frames for segment in detector(frame.image).segments]
    severity = [-math.log(segment.false_alarm) for segment in before]
    assert [segment.severity for segment in before] == pytest.approx(severity)
    threshold = float(np.median(severity))
    settings = detector.settings.model_copy(update={"promise": promise_at(threshold)})
    promised = Detector(detector.network, settings, detector.classifier, "cpu")
    after = [segment for frame in parts.frames for segment in promised(frame.image).segments]
    assert [s.kept for s in after] == [own >= threshold for own in severity]
    assert {s.kept for s in after} == {True, False}
    stated = json.loads(promised(parts.frames[0].image).to_json())["detector"]["promise"]
    assert (stated["threshold"], stated["budget"], stated["units"]) == (threshold, 0.5, 64)
    assert "reference" not in stated
    # without a meta classifier severity is made of score and size
    severity = [(segment.score - parts.threshold) * segment.size**0.5 for segment in before]
    threshold = float(np.median(severity))
    settings = settings.model_copy(update={"promise": promise_at(threshold, OF_SCORE), "meta_from": ""})
    bare = Detector(detector.network, settings, None, "cpu")
    found = [segment for frame in parts.frames for segment in bare(frame.image).segments]
    assert [s.severity for s in found] == pytest.approx(severity)
    assert [s.kept for s in found] == [own >= threshold for own in severity]


def test_detect_counts_alarms_and_doubts_the_promise(detector, parts, tmp_path):
    settings = detector.settings.model_copy(update={"promise": promise_at(0.0)})
    keeps_all = Detector(detector.network, settings, detector.classifier, "cpu")
    folder = tmp_path / "images"
    folder.mkdir()
    for k in range(8):
        shutil.copy(parts.frames[k % 3].image, folder / f"{k}.png")
    counts, doubts = detect_images([folder], keeps_all, tmp_path / "out")
    assert counts["alarm"] == counts["images"] == 8
    assert "8 of 8 images raise an alarm" in doubts[0]  # 0.5 ** 8 < 0.01
    assert "mean score (p = " in doubts[1]


# --- the folder --------------------------------------------------------------------------------


def test_a_folder_is_self_contained_and_equal_for_equal_parts(parts, detector, tmp_path):
    copy = shutil.copytree(parts.detector, tmp_path / "copy")
    assert sorted(p.name for p in copy.iterdir()) == ["classifier.json", "detector.json", "weights.safetensors"]
    image = parts.frames[1].image
    assert Detector.load(str(copy), "cpu")(image).to_json() == detector(image).to_json()
    again = parts.write(tmp_path / "again")
    for path in copy.iterdir():
        assert path.read_bytes() == (again / path.name).read_bytes()
    settings = read_settings(copy)
    assert (settings.network, settings.variant) == ("mini", "baseline")
    assert settings.meta_from == "frames"
    assert settings.infer == InferParams()


def test_parts_of_other_detectors_are_refused(parts, blob_classifier, detector, tmp_path):
    # a file replaced in the folder
    copy = shutil.copytree(parts.detector, tmp_path / "copy")
    (copy / "classifier.json").write_text(blob_classifier.to_json())
    with pytest.raises(ValueError, match=r"classifier\.json is not the file that .* describes"):
        Detector.load(copy)
    copy = shutil.copytree(parts.detector, tmp_path / "weights")
    save_weights(copy / "weights.safetensors", build("deeplabv3plus_mini", 19))
    with pytest.raises(ValueError, match=r"weights\.safetensors is not the file"):
        Detector.load(copy)
    # a classifier fitted at another threshold, when the folder is written and in memory
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "classifier.json").write_text(blob_classifier.to_json())
    with pytest.raises(ValueError, match=r"fitted with the threshold 0\.7, not"):
        parts.write(tmp_path / "new", tmp_path / "meta")
    with pytest.raises(ValueError, match=r"fitted with the threshold 0\.7, not"):
        Detector(detector.network, detector.settings, blob_classifier, "cpu")
    # a classifier of another number of classes
    settings = Settings(score="entropy", threshold=0.7)
    with pytest.raises(ValueError, match="fitted on"):
        Detector(detector.network, settings, blob_classifier, "cpu")(parts.frames[0].image)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "is no detector"),
        ("{", "Invalid JSON"),
        ('{"format": "meta-ood detector, version 9"}', "format .*version 1"),
        ('{"format": "meta-ood detector, version 1"}', "score Field required"),
        ('{"score": "entropy", "threshold": NaN}', "threshold .*finite"),
        ('{"score": "entropy", "threshold": 1, "files": {"../x": ""}}', "files"),
        ('{"score": "entropy", "threshold": 1}', "the hash of weights.safetensors is missing"),
        ("[" * 100_000, "detector.json"),
    ],
)
def test_damaged_settings_are_named(parts, tmp_path, text, message):
    copy = shutil.copytree(parts.detector, tmp_path / "copy")
    (copy / "detector.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_settings(copy)
    with pytest.raises(FileNotFoundError, match=r"detector\.json.*stage `detector`"):
        read_settings(tmp_path)


# --- folders of images -------------------------------------------------------------------------


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    (folder / "town").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in ("a.png", "town/b.jpg", "town/c.d.png"):
        Image.fromarray(rng.integers(0, 256, (40, 64, 3), dtype=np.uint8)).save(folder / name)
    (folder / "notes.txt").write_text("no image")
    return folder


def test_a_folder_is_written_and_not_written_again(detector, images, tmp_path):
    out = tmp_path / "out"
    counts, doubts = detect_images([images], detector, out)
    ends = (".json", "_before.png", "_after.png", "_overlay.png", "_classes.png")
    written = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}
    assert written == {f"{stem}{end}" for stem in ("a", "town/b", "town/c.d") for end in ends}
    values = json.loads((out / "a.json").read_text())
    found = detector(images / "a.png")
    origin = {"image": "a.png", "image_sha256": file_hash(images / "a.png")}
    assert values == {**origin, **json.loads(found.to_json())}
    before = np.asarray(Image.open(out / "a_before.png"))
    assert (before == 255).sum() == sum(s["size"] for s in values["segments"])
    with Image.open(out / "a_classes.png") as classes:  # indices and colours in one
        np.testing.assert_array_equal(np.asarray(classes), found.classes)
        assert tuple(classes.getpalette()[:3]) == (128, 64, 128)
    segments = [s for p in out.rglob("*.json") for s in json.loads(p.read_text())["segments"]]
    assert (counts["images"], counts["unreadable"], counts["segments"]) == (3, 0, len(segments))
    assert counts["removed"] == sum(not s["kept"] for s in segments)
    assert counts["unlike"] == sum(s["unlike_training"] for s in segments)

    stamps = {p: p.stat().st_mtime_ns for p in out.rglob("*.png")}
    (out / "town" / "b.json").write_text("damaged")
    assert detect_images([images], detector, out) == (counts, doubts)
    changed = {p.name for p, stamp in stamps.items() if p.stat().st_mtime_ns != stamp}
    assert changed == {f"b{end}" for end in ends[1:]}
    # another threshold is another detector
    settings = detector.settings.model_copy(update={"threshold": 0.5})
    detect_images([images], Detector(detector.network, settings, None, "cpu"), out)
    assert json.loads((out / "a.json").read_text())["detector"]["threshold"] == 0.5


def test_equal_stems_keep_their_endings(parts, images, tmp_path):
    shutil.copy(images / "town" / "b.jpg", images / "a.jpg")
    assert [name for name, _ in find_images([images])] == ["a.jpg", "a.png", "town/b", "town/c.d"]
    shutil.copytree(images, tmp_path / "more")
    with pytest.raises(ValueError, match="would both be written as"):
        find_images([images, tmp_path / "more"])
    with pytest.raises(FileNotFoundError, match="nowhere"):
        find_images([tmp_path / "nowhere"])
    with pytest.raises(FileNotFoundError, match="no image"):
        find_images([parts.meta])


def test_the_command_goes_on_after_a_damaged_image(parts, images, tmp_path):
    (images / "b.png").write_bytes((images / "a.png").read_bytes()[:200])
    (images / "eps.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n")
    (images / "gone.png").symlink_to(images / "nowhere.png")
    (images / "folder.png").mkdir()
    os.mkfifo(images / "pipe.png")
    arguments = ["--detector", str(parts.detector), "--out", str(tmp_path / "out")]
    arguments += ["--device", "cpu"]
    result = CliRunner().invoke(cli.main, ["detect", str(images), *arguments])
    assert result.exit_code == 3, result.output
    assert "3 images" in result.output
    assert "5 images could not be read" in result.output
    for name in ("b.png", "eps.png", "gone.png", "folder.png", "pipe.png"):
        assert f"{images / name}" in result.output
    assert (tmp_path / "out" / "town" / "c.d.json").is_file()
    result = CliRunner().invoke(cli.main, ["detect", str(images / "a.png"), *arguments])
    assert result.exit_code == 0, result.output
    result = CliRunner().invoke(cli.main, ["detect", str(tmp_path / "no.png"), *arguments])
    assert result.exit_code == 2
    assert "no.png: no such file" in result.output
