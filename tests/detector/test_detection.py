import json
import logging

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from meta_ood import cli
from meta_ood.data.context import Machine
from meta_ood.data.labels import IN, OOD
from meta_ood.data.predictions import Prediction
from meta_ood.detector.detection import UNLIKE, detect, detect_images, find_images, summary, write
from meta_ood.meta_classification import MetaClassifier, fit
from meta_ood.models import build, checkpoint
from meta_ood.segments import SegmentTable, measure_segments

CLASSES = 5


def prediction(seed: int, with_ood: bool = True) -> Prediction:
    """Return blobs of high entropy on certain ground, half of them on OoD."""
    rng = np.random.default_rng(seed)
    logits = np.zeros((CLASSES, 32, 48), np.float32)
    logits[0] = 9
    target = np.full((32, 48), IN, np.uint8)
    for k in range(6):
        row, column = rng.integers(2, 24), 8 * k
        size = 2 + 2 * (k % 2)
        logits[0, row : row + size, column : column + size] = 0.3 * rng.random()
        if k % 2 and with_ood:
            target[row : row + size, column : column + size] = OOD
    return Prediction(f"i{seed}", logits, (32, 48), True, target, scene=f"s{seed % 3}")


@pytest.fixture(scope="module")
def classifier() -> MetaClassifier:
    tables = [measure_segments(prediction(seed), "entropy", 0.7) for seed in range(8)]
    return fit(SegmentTable.concatenate(tables))


@pytest.fixture(scope="module")
def place(tmp_path_factory, classifier):
    """Return a folder with images, a classifier and weights of a network."""
    folder = tmp_path_factory.mktemp("detect")
    (folder / "images" / "town").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in ("a.png", "town/b.jpg", "town/c.d.png"):
        pixels = rng.integers(0, 256, (40, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / name)
    (folder / "images" / "notes.txt").write_text("no image")
    (folder / "classifier.json").write_text(classifier.to_json())
    torch.manual_seed(0)
    checkpoint.save(
        folder / "net.safetensors",
        build("deeplabv3plus_mini", CLASSES),
        name="mini",
        architecture="deeplabv3plus_mini",
        options={},
        num_classes=CLASSES,
        class_names=[f"c{i}" for i in range(CLASSES)],
        variant="baseline",
    )
    return folder


def run(place, out, **more):
    given = {"network": place / "net.safetensors", "classifier": place / "classifier.json"}
    return list(
        detect_images([place / "images"], **{**given, **more}, out=out, machine=Machine("cpu", 1))
    )


def test_segments_are_judged_as_the_classifier_does(classifier):
    shown = prediction(20)
    found = detect(shown, classifier, "entropy", 0.7)
    table = measure_segments(shown, "entropy", 0.7)
    np.testing.assert_array_equal(found.removed, classifier.removes(table))
    assert 0 < found.removed.sum() < len(found.removed)
    for row in found.segments:
        inside = found.labels == row["segment"]
        rows, columns = np.nonzero(inside)
        box = [rows.min(), columns.min(), rows.max() + 1, columns.max() + 1]
        assert row["box"] == box
        assert row["size"] == inside.sum()
        assert row["decision"] == ("removed" if row["probability_false"] > 0.5 else "kept")
        assert len(row["reasons"]) == 3
        away = np.abs(table.features[row["segment"] - 1] - classifier.mean)
        away = np.divide(away, classifier.scale, where=classifier.scale > 0, out=0 * away)
        assert row["farthest"]["deviations"] == pytest.approx(away.max(), abs=0.01)
        assert row["farthest"]["feature"] == table.feature_names[away.argmax()]
    gone = (found.mask(after=False) == 255) & (found.mask(after=True) == 0)
    np.testing.assert_array_equal(gone, np.isin(found.labels, np.flatnonzero(found.removed) + 1))
    np.testing.assert_array_equal(found.mask(after=False) == 255, found.labels > 0)


def test_an_image_without_segments(classifier):
    calm = prediction(1)
    calm.logits[0] = 9
    found = detect(calm, classifier, "entropy", 0.7)
    assert found.segments == []
    assert not found.mask(after=True).any()


def test_a_classifier_of_another_label_space_is_refused(classifier):
    logits = np.zeros((4, 8, 8), np.float32)
    other = Prediction("x", logits, (8, 8), True, np.full((8, 8), IN, np.uint8))
    with pytest.raises(ValueError, match="fitted on"):
        detect(other, classifier, "entropy", 0.7)


def test_a_segment_unlike_any_in_training_is_said(place, tmp_path, classifier):
    huge = prediction(1)
    huge.logits[0] = 0  # one segment: the whole image
    found = detect(huge, classifier, "entropy", 0.7)
    assert found.segments[0]["farthest"]["deviations"] > UNLIKE
    write(tmp_path, "huge", found, np.zeros((32, 48, 3), np.uint8), {})
    counts = summary([tmp_path / "huge.json"])
    assert counts == {"images": 1, "segments": 1, "removed": int(found.removed[0]), "unlike": 1}


def test_a_folder_is_written_and_not_written_again(place, tmp_path):
    files = run(place, tmp_path, threshold=0.5)
    names = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    stems = ("a", "town/b", "town/c.d")
    assert names == {
        f"{stem}{end}"
        for stem in stems
        for end in (".json", "_before.png", "_after.png", "_overlay.png")
    }
    assert [f.relative_to(tmp_path).as_posix() for f in files] == [f"{s}.json" for s in stems]
    values = json.loads(files[0].read_text())
    assert values["size"] == [40, 64]
    assert values["threshold"] == 0.5
    assert values["network"] == "mini/baseline"
    before = np.asarray(Image.open(tmp_path / "a_before.png"))
    assert (before == 255).sum() == sum(s["size"] for s in values["segments"])
    assert before.shape == (40, 64)

    stamps = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.png")}
    files[1].unlink()
    assert run(place, tmp_path, threshold=0.5) == files
    changed = {p.name for p, stamp in stamps.items() if p.stat().st_mtime_ns != stamp}
    assert changed == {"b_before.png", "b_after.png", "b_overlay.png"}
    run(place, tmp_path, threshold=0.6)
    assert json.loads(files[0].read_text())["threshold"] == 0.6


def test_another_threshold_than_the_classifiers_is_said(place, tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "meta_ood"):
        run(place, tmp_path, threshold=0.7)
        assert not caplog.records
        run(place, tmp_path, threshold=0.3)
    assert "fitted on segments of entropy >= 0.7, not entropy >= 0.3" in caplog.text


def test_what_is_wrong_is_named(place, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        find_images([tmp_path / "nowhere"])
    with pytest.raises(FileNotFoundError, match="no image"):
        find_images([tmp_path])
    (tmp_path / "a.png").write_bytes(b"x")
    with pytest.raises(ValueError, match="would both be written as 'a'"):
        find_images([tmp_path, place / "images" / "a.png"])
    with pytest.raises(ValueError, match=r"a\.png: not a readable image"):
        list(
            detect_images(
                [tmp_path],
                network=place / "net.safetensors",
                classifier=place / "classifier.json",
                out=tmp_path / "out",
                machine=Machine("cpu", 1),
            )
        )


def test_a_classifier_that_does_not_say_its_score(place, tmp_path):
    values = json.loads((place / "classifier.json").read_text())
    values["score"], values["threshold"] = "", None
    path = tmp_path / "old.json"
    path.write_text(json.dumps(values))
    with pytest.raises(ValueError, match="give --score --threshold"):
        run(place, tmp_path / "out", classifier=path)
    assert run(place, tmp_path / "out", classifier=path, score="entropy", threshold=0.7)


def test_the_command(place, tmp_path):
    arguments = [str(place / "images" / "a.png"), "--network", str(place / "net.safetensors")]
    arguments += ["--classifier", str(place / "classifier.json"), "--out", str(tmp_path)]
    result = CliRunner().invoke(cli.main, ["detect", *arguments, "--device", "cpu"])
    assert result.exit_code == 0, result.output
    assert "1 images" in result.output
    assert (tmp_path / "a.json").is_file()
    result = CliRunner().invoke(cli.main, ["detect", str(tmp_path / "no.png"), *arguments[1:]])
    assert result.exit_code == 2
    assert "no.png: no such file" in result.output
