"""The detector as one model: same answer as the stages, clear errors, no pickle on the way."""

from __future__ import annotations

import base64
import io
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from meta_ood.config import GateParams, InferParams
from meta_ood.data.context import Machine
from meta_ood.data.frames import Frame
from meta_ood.data.labels import CITYSCAPES
from meta_ood.data.prediction_files import read_prediction, write_prediction
from meta_ood.detector import serving
from meta_ood.inference import predict
from meta_ood.meta_classification import fit
from meta_ood.models import build, checkpoint
from meta_ood.scores import SCORES
from meta_ood.scores.maps import pixel_maps
from meta_ood.segments import SegmentTable, measure_segments
from meta_ood.tracking import gate


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Weights, settings and a meta classifier of an untrained network, with frames."""
    folder = tmp_path_factory.mktemp("parts")
    torch.manual_seed(0)
    network = build("deeplabv3plus_mini", 19)
    weights = folder / "baseline.safetensors"
    checkpoint.save(
        weights,
        network,
        name="mini",
        architecture="deeplabv3plus_mini",
        options={},
        num_classes=19,
        class_names=CITYSCAPES.names,
        variant="baseline",
    )
    generator = np.random.default_rng(0)
    frames = []
    for k in range(3):
        small = generator.integers(0, 256, (8, 16, 3), np.uint8)
        Image.fromarray(small).resize((128, 64), 3).save(folder / f"{k}.png")
        target = np.zeros((64, 128), np.uint8)
        target[20:40, 30:60] = 254
        Image.fromarray(target).save(folder / f"{k}_target.png")
        frames.append(
            Frame(
                image_id=str(k),
                image=folder / f"{k}.png",
                image_md5="",
                target=folder / f"{k}_target.png",
                scene=str(k),
            )
        )
    network, _ = checkpoint.load(weights)
    predictions = []
    for prediction in predict(network, frames, InferParams(), Machine("cpu", 1)):
        path = folder / f"{prediction.image_id}.h5"
        write_prediction(
            path, prediction, class_names=CITYSCAPES.names, network="mini", weights_sha256=""
        )
        predictions.append(read_prediction(path))
    scores = np.stack([SCORES["entropy"](pixel_maps(p)) for p in predictions])
    threshold = float(np.quantile(scores, 0.8))
    settings = serving.Settings("entropy", threshold, InferParams())
    (folder / "settings.json").write_text(settings.to_json(), encoding="utf-8")
    table = SegmentTable.concatenate(
        [measure_segments(p, "entropy", threshold) for p in predictions]
    )
    assert len(table.image) > 3
    (folder / "classifier.json").write_text(fit(table).to_json(), encoding="utf-8")
    return folder, frames, predictions


def detector_of(folder: Path) -> serving.Detector:
    return serving.Detector.load(
        folder / "baseline.safetensors",
        folder / "settings.json",
        folder / "classifier.json",
        "cpu",
    )


def test_the_mask_is_that_of_the_stages(parts):
    folder, frames, predictions = parts
    detector = detector_of(folder)
    threshold = detector.settings.threshold
    for frame, prediction in zip(frames, predictions, strict=True):
        found = detector.detect(serving.read_image(frame.image.read_bytes()))
        expected = SCORES["entropy"](pixel_maps(prediction)) >= np.float32(threshold)
        np.testing.assert_array_equal(found.mask, expected)
        table = measure_segments(prediction, "entropy", threshold)
        np.testing.assert_array_equal(found.table.segment_box, table.segment_box)
        probability = detector.classifier.probability(table)
        np.testing.assert_allclose(found.false_alarm, probability, atol=1e-6)


def test_an_answer_is_plain_and_its_pictures_are_png(parts):
    folder, frames, _ = parts
    found = detector_of(folder).detect(serving.read_image(frames[0].image.read_bytes()))
    answer = serving.answer(found)
    mask = np.array(Image.open(io.BytesIO(base64.b64decode(answer["mask"]))))
    np.testing.assert_array_equal(mask == 255, found.mask)
    classes = np.array(Image.open(io.BytesIO(base64.b64decode(answer["classes"]))))
    np.testing.assert_array_equal(classes, found.classes)
    assert set(serving.answer(found, maps=False)) == {"segments"}
    assert sum(s["size"] for s in answer["segments"]) == int(found.mask.sum())
    without = serving.Detector.load(
        folder / "baseline.safetensors", folder / "settings.json", None, "cpu"
    )
    segments = serving.answer(without.detect(np.zeros((64, 64, 3), np.uint8)))["segments"]
    assert all(s["false_alarm"] is None and s["kept"] for s in segments)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("street.png", "no base64"),
        (base64.b64encode(b"no image at all").decode(), "no image"),
        (np.zeros((64, 64), np.uint8), "expected a PNG"),
        (np.full((64, 64, 3), 0.5), "numbers from 0.5"),
        (np.full((64, 64, 3), 256), "numbers from 256"),
        ([[1, 2], [3]], "expected a PNG"),
        (np.zeros((8, 64, 3), np.uint8), "8 x 64 pixels"),
        (3, "expected a PNG"),
    ],
)
def test_what_is_no_image_is_told_so(given, message):
    with pytest.raises(serving.ImageError, match=message):
        serving.read_image(given)


def test_images_are_found_in_every_form_of_a_request():
    image = np.zeros((32, 32, 3), np.uint8)
    for request, count in (
        ({"image": "a"}, 1),
        ({"image": ["a", "b"]}, 2),
        ({"image": image}, 1),
        ({"image": np.stack([image, image])}, 2),
    ):
        assert len(serving.images_of(request)) == count
    with pytest.raises(serving.ImageError, match="nothing under `image`"):
        serving.images_of({"picture": "a"})


@pytest.mark.filterwarnings("ignore")  # mlflow's own
def test_the_packed_model_answers_and_nothing_is_unpickled(parts, tmp_path):
    import mlflow

    from meta_ood.tracking import champion

    folder, frames, _ = parts
    champion.pack(
        tmp_path / "model",
        {
            "weights": folder / "baseline.safetensors",
            "settings": folder / "settings.json",
            "classifier": folder / "classifier.json",
        },
    )
    assert not [p for p in tmp_path.rglob("*") if p.suffix in (".pkl", ".pickle", ".pt", ".pth")]
    mlflow.pyfunc.load_model(str(tmp_path / "model"))  # imports are done: now watch
    unpickled: list[str] = []
    watching = True

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if watching and event == "pickle.find_class":
            unpickled.append(str(arguments))

    sys.addaudithook(watch)
    model = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    text = base64.b64encode(frames[0].image.read_bytes()).decode()
    (answer,) = model.predict({"image": [text]})
    watching = False
    assert unpickled == []
    expected = detector_of(folder).detect(serving.read_image(frames[0].image.read_bytes()))
    assert answer["mask"] == serving.answer(expected)["mask"]
    with pytest.raises(mlflow.MlflowException, match="expected a PNG or JPEG") as error:
        model.predict({"image": ["hello"]})
    assert error.value.get_http_status_code() == 400


GOOD = {"auprc": 0.6, "fpr95": 0.1, "intervals": {"auprc": [0.55, 0.65], "fpr95": [0.08, 0.12]}}
BAD = {"auprc": 0.4, "fpr95": 0.3, "intervals": {"auprc": [0.35, 0.45], "fpr95": [0.2, 0.4]}}


@pytest.mark.parametrize(
    ("new", "old", "miou", "options", "passes", "said"),
    [
        (GOOD, BAD, 0.80, {}, True, "0.4000 [0.3500, 0.4500] -> 0.6000 [0.5500, 0.6500]"),
        (BAD, GOOD, 0.80, {}, False, "no   AUPRC"),
        (GOOD, BAD, 0.78, {}, False, "no   mIoU on cityscapes_val: 0.8000 -> 0.7800"),
        (GOOD, BAD, 0.795, {}, True, "ok   mIoU"),
        (GOOD, BAD, 0.80, {"auprc_gain": 0.3}, False, "must rise by at least 0.3"),
        (GOOD, BAD, 0.80, {"judge_by": "interval"}, True, "ok   FPR95"),
        (GOOD, GOOD, 0.80, {"judge_by": "interval"}, False, "the intervals overlap"),
        ({"auprc": 0.6, "fpr95": 0.1}, BAD, 0.8, {"judge_by": "interval"}, False, "no confidence"),
        ({"auprc": None, "fpr95": 0.1}, BAD, 0.8, {}, False, "not measured"),
    ],
)
def test_the_gate_says_why(new, old, miou, options, passes, said):
    verdict = gate.judge(new, old, {"miou": miou}, {"miou": 0.80}, GateParams(**options))
    assert verdict.passed is passes
    assert said in "\n".join(verdict.lines)
