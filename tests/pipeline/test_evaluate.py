"""The stage evaluate, on predictions made by hand."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import average_precision_score, roc_auc_score

from meta_ood import config
from meta_ood.data import prediction_files
from meta_ood.data.context import Machine
from meta_ood.data.frames import Frame, write_frames, write_label_names
from meta_ood.data.labels import IGNORE, IN, NEUTRAL, OOD
from meta_ood.data.predictions import Prediction
from meta_ood.evaluation import counting
from meta_ood.metrics import component
from meta_ood.metrics.catalogue import METRICS
from meta_ood.metrics.pixel import PROTOCOLS, RESIZED
from meta_ood.pipeline import evaluate
from meta_ood.scores import score_maps
from meta_ood.segments import SegmentTable, measure_segments, table_file

ROOT = Path(__file__).parents[2]
THRESHOLD = config.load(ROOT / "params.yaml").segments.threshold
CLASSES = 5


def make_predictions(ood: bool) -> list[Prediction]:
    generator = np.random.default_rng(3)
    predictions = []
    for index in range(5):
        target = generator.integers(0, CLASSES, (32, 48)).astype(np.uint8)
        logits = 0.5 * generator.standard_normal((CLASSES, 32, 48)).astype(np.float32)
        np.put_along_axis(logits, target[None].astype(np.int64), 4, axis=0)
        if ood:
            target[:] = IN
            target[:3] = IGNORE
            target[3] = NEUTRAL
            target[8:20, 5 : 12 + index] = OOD
            logits[:, 8:18, 5 : 12 + index] *= 0.05
            logits[:, 25:28, 30:34] *= 0.05
        predictions.append(Prediction(f"f{index}", logits, (32, 48), True, target, f"s{index % 2}"))
    return predictions


def run(
    folder: Path, predictions: list[Prediction], workers: int = 1, engine: str = "local", **overrides: object
) -> dict:
    names = [f"c{i}" for i in range(CLASSES)]
    (folder / "infer").mkdir(parents=True)
    (folder / "prepare").mkdir()
    frames = []
    for p in predictions:
        prediction_files.write_prediction(
            folder / "infer" / f"{p.image_id}.h5", p, class_names=names, network="n", weights_sha256="0"
        )
        image = folder / f"{p.image_id}.png"
        Image.fromarray(np.zeros((32, 48, 3), np.uint8)).save(image)
        frames.append(Frame(p.image_id, image, "", folder / "prepare/t.png", p.scene))
    write_frames(folder / "prepare", frames, Path("/elsewhere"))
    table = SegmentTable.concatenate([measure_segments(p, threshold=THRESHOLD) for p in predictions])
    table_file.write_table(folder / "segments.h5", table, {})
    (folder / "meta").mkdir()
    with (folder / "meta/probabilities.csv").open("w") as file:
        print("segment,image_id,probability,removed", file=file)
        for i, image in enumerate(table.image):
            p = 0.9 if table.segment_size[i] < 20 else 0.1
            print(f"{i},{table.image_ids[image]},{p},{int(p > 0.5)}", file=file)
    calibration = {"count": [2, 3], "predicted": [0.1, 0.9], "observed": [0.5, 1.0]}
    (folder / "meta/metrics.json").write_text(json.dumps({"calibration": calibration, "differing_decisions": 3}))
    return evaluate_again(folder, workers, engine=engine, **overrides)


def evaluate_again(
    folder: Path, workers: int = 1, network: str = "n", engine: str = "local", **overrides: object
) -> dict:
    params = config.load(ROOT / "params.yaml", [f"{k}={v}" for k, v in overrides.items()])
    evaluate.run(
        params,
        network=network,
        variant="baseline",
        dataset="lost_and_found",
        prepared=folder / "prepare",
        predictions=folder / "infer",
        segments=folder / "segments.h5",
        meta=folder / "meta",
        metrics=folder / "metrics.json",
        summary=folder / "summary.json",
        curves=folder / "curves",
        pictures=folder / "pictures",
        masks=folder / "masks.h5",
        log=lambda values, step: None,
        machine=Machine("cpu", workers, engine),
    )
    return json.loads((folder / "metrics.json").read_text())


def test_found_objects_stand_under_the_names_of_their_labels(tmp_path: Path) -> None:
    label_ids = np.full((32, 48), 9, np.uint8)
    labelled = [replace(p, label_ids=label_ids) for p in make_predictions(ood=True)]
    unnamed = run(tmp_path / "a", labelled)["detection"]["label_id"]
    assert list(unnamed) == ["9"]
    write_label_names(tmp_path / "a/prepare", {1: "free", 9: "Cardboard box 1"})
    named = evaluate_again(tmp_path / "a")["detection"]["label_id"]
    assert named == {"Cardboard box 1": {"components": 5, "found": 5, "found_after_meta": 5}}
    assert run(tmp_path / "b", make_predictions(ood=True))["detection"]["label_id"] == {}


def test_ood_set(tmp_path: Path) -> None:
    predictions = make_predictions(ood=True)
    values = run(tmp_path, predictions)
    assert values["differing_decisions"] == 3
    stored = prediction_files.open_predictions(tmp_path / "infer")
    target = np.concatenate([p.target.ravel() for p in stored])
    evaluated = (target == IN) | (target == OOD)
    for name in ("entropy", "energy"):
        score = np.concatenate([score_maps(p, [name])[name].ravel() for p in stored])
        y, s = target[evaluated] == OOD, score[evaluated]
        assert values["scores"][name]["auroc"] == pytest.approx(roc_auc_score(y, s), abs=1e-9)
        assert values["scores"][name]["auprc"] == pytest.approx(average_precision_score(y, s), abs=1e-9)
    assert values["auroc"] == values["scores"]["entropy"]["auroc"]
    assert values["pixels"] == evaluated.sum()
    assert values["positives"] == (target == OOD).sum()
    assert values["ignored"] == (target == IGNORE).sum()
    assert values["neutral"] == (target == NEUTRAL).sum()
    assert (values["frames"], values["scenes"], values["miou"]) == (5, 2, None)
    assert values["segment_false_positives"] == 5
    assert values["segment_false_positives_after_meta"] == 0
    assert values["segment_false_negatives_after_meta"] == 0
    assert values["segment_f1"] == pytest.approx(2 * 5 / (2 * 5 + 5))  # five true, five false
    assert values["segment_f1_after_meta"] == values["segment"]["after_meta"]["f1"] == 1
    assert values["intervals"]["segment_f1_after_meta"] == [1, 1]
    of_score, smiyc = values["component"]["of_score"], values["component"]["smiyc"]
    assert of_score["threshold_is_oracle"]
    assert smiyc["threshold_is_oracle"]
    assert (of_score["rule"], smiyc["rule"]) == ("best_pixel_f1", "smiyc")
    entropy = np.stack([score_maps(p, ["entropy"])["entropy"] for p in stored])
    targets = target.reshape(entropy.shape)
    for found, above in ((of_score, np.greater_equal), (smiyc, np.greater)):
        masks = above(entropy, np.float64(found["threshold"])) & (targets != IGNORE)
        parts = [component.of_mask(mask, one) for mask, one in zip(masks, targets, strict=True)]
        assert found["siou"] == component.component_metrics(component.Overlaps.concatenate(parts)).siou
    headlines = json.loads((tmp_path / "summary.json").read_text())
    assert headlines == {name: values[name] for name in METRICS if values[name] is not None}
    assert 8 <= len(headlines) <= 13
    assert of_score["f1"] == pytest.approx(2 * 5 / (2 * 5 + 5))  # five found, five false
    assert set(values["protocols"]) == set(PROTOCOLS) - {RESIZED}  # those of params.yaml
    low, high = values["intervals"]["auroc"]
    assert 0.9 < low <= values["auroc"] <= high <= 1
    with (tmp_path / "curves/roc.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert float(rows[-1]["true_positive_rate"]) == 1
    with (tmp_path / "curves/meta_calibration.csv").open() as file:
        assert list(csv.reader(file)) == [["predicted", "observed", "segments"], ["0.1", "0.5", "2"], ["0.9", "1", "3"]]
    assert len(list((tmp_path / "pictures").glob("f*_segments.png"))) == 4
    assert len(list((tmp_path / "pictures").glob("f*_image.png"))) == 4


def test_a_threshold_chosen_on_another_set(tmp_path: Path) -> None:
    """The network's own threshold goes before that for all; none is called an oracle."""
    own = {"deeplabv3plus_mini": {"baseline": 0.9}}
    settings = {"evaluate.component_threshold": 0.0, "evaluate.component_thresholds": own}
    low = run(tmp_path, make_predictions(ood=True), **settings)["component"]["of_score"]
    assert (low["threshold"], low["threshold_is_oracle"]) == (0, False)
    high = evaluate_again(tmp_path, network="deeplabv3plus_mini", **settings)
    high = high["component"]["of_score"]
    assert (high["threshold"], high["threshold_is_oracle"]) == (0.9, False)
    assert high["siou"] != low["siou"]


def test_closed_set(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    values = run(tmp_path, make_predictions(ood=False))
    assert values["auroc"] is None
    assert values["auprc"] is None
    assert values["miou"] == 1
    assert values["component"]["of_score"] == {}
    assert caplog.text.count("no OoD pixel") == 1


def test_tables_of_other_frames_are_refused(tmp_path: Path) -> None:
    predictions = make_predictions(ood=True)
    run(tmp_path, predictions)
    (tmp_path / "infer/f4.h5").rename(tmp_path / "f4.h5")
    with pytest.raises(ValueError, match=r"1 of 5 frames are missing, 0 .*f4, .*run `infer`"):
        evaluate_again(tmp_path)
    shutil.copy(tmp_path / "f4.h5", tmp_path / "infer/f5.h5")
    with pytest.raises(ValueError, match="1 of 5 frames are missing, 1 are unknown"):
        evaluate_again(tmp_path)
    (tmp_path / "infer/f5.h5").unlink()
    (tmp_path / "f4.h5").rename(tmp_path / "infer/f4.h5")
    table_file.write_table(tmp_path / "segments.h5", measure_segments(predictions[0]), {})
    (tmp_path / "meta/probabilities.csv").unlink()  # the table is compared before it is needed
    with pytest.raises(ValueError, match="is of other frames than"):
        evaluate_again(tmp_path)


@pytest.mark.parametrize(
    ("made_with", "threshold", "message"),
    [({"weights_sha256": "1"}, THRESHOLD, "is of other weights than"), ({}, 0.25, r"was made with entropy at 0\.25")],
)
def test_a_table_of_other_weights_or_another_threshold_is_refused(
    tmp_path: Path, made_with: dict, threshold: float, message: str
) -> None:
    """It has the right frames, and without pictures nothing else would notice."""
    predictions = make_predictions(ood=True)
    run(tmp_path, predictions)
    table = SegmentTable.concatenate([measure_segments(p, threshold=threshold) for p in predictions])
    table_file.write_table(tmp_path / "segments.h5", table, made_with)
    with pytest.raises(ValueError, match=message + ".*run `segments` again"):
        evaluate_again(tmp_path, **{"evaluate.pictures": 0})


def test_meta_classification_must_fit_the_table(tmp_path: Path) -> None:
    run(tmp_path, make_predictions(ood=True))
    path = tmp_path / "meta/probabilities.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:-1]) + "\n")
    with pytest.raises(ValueError, match="do not fit the table"):
        evaluate_again(tmp_path)
    path.write_text("\n".join(lines).replace("0.9", "high") + "\n")
    with pytest.raises(ValueError, match="expected a number"):
        evaluate_again(tmp_path)
    for right, wrong in (("0.1,0", "0.1,2"), ("0.1,0", "nan,0"), ("0.1,0", "1.5,0")):
        path.write_text("\n".join(lines).replace(right, wrong) + "\n")
        with pytest.raises(ValueError, match=r"row \d+: expected `probability` in \[0, 1\] and `removed` 0 or 1"):
            evaluate_again(tmp_path)
    path.unlink()
    with pytest.raises(FileNotFoundError, match="run `meta` first"):
        evaluate_again(tmp_path)


@pytest.mark.parametrize(
    ("held", "settings", "reads"),
    [
        (1 << 28, {}, 1),  # a small set stays in memory
        (0, {}, 2),  # thresholds and class statistics need a second look
        (0, {"evaluate.component_threshold": 0.5, "evaluate.scores": ["entropy"], "evaluate.protocols": ["exact"]}, 1),
    ],
)
def test_each_file_is_read_once_or_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: int, settings: dict, reads: int
) -> None:
    read: list[Path] = []

    def counted(path: Path, *rest: object) -> Prediction:
        read.append(path)
        return prediction_files.read_prediction(path, *rest)

    monkeypatch.setattr(counting, "read_prediction", counted)
    monkeypatch.setattr(counting, "HELD", held)
    run(tmp_path, make_predictions(ood=True), 2, **settings)
    assert sorted(read) == sorted(reads * list((tmp_path / "infer").iterdir()))


@pytest.mark.parametrize("engine", ["local", "ray"])
def test_workers_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str) -> None:
    if engine == "ray":
        pytest.importorskip("ray")
    monkeypatch.setattr(counting, "BATCH", 2)
    predictions = make_predictions(ood=True)
    protocols = {"evaluate.protocols": [*PROTOCOLS], "evaluate.scores": ["entropy", counting.STANDARDISED]}
    run(tmp_path / "one", predictions, 1, **protocols)
    run(tmp_path / "three", predictions, 3, engine, **protocols)
    for path in sorted((tmp_path / "one").rglob("*")):
        if path.suffix in (".json", ".csv", ".png") or path.name == "masks.h5":
            other = tmp_path / "three" / path.relative_to(tmp_path / "one")
            if path.name != "frames.csv":
                assert path.read_bytes() == other.read_bytes(), path.name


@pytest.mark.parametrize("text", ["{}", "[]", '{"calibration": {"count": [1], "predicted": [1]}}', "no"])
def test_a_calibration_that_is_none_is_refused_by_name(tmp_path: Path, text: str) -> None:
    run(tmp_path, make_predictions(ood=True))
    (tmp_path / "meta/metrics.json").write_text(text)
    with pytest.raises(ValueError, match=r"metrics\.json: no calibration"):
        evaluate_again(tmp_path)
    (tmp_path / "meta/metrics.json").unlink()
    with pytest.raises(FileNotFoundError, match="run `meta` first"):
        evaluate_again(tmp_path)
