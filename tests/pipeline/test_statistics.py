"""Scores that need training frames, from the stage statistics to stored maps, segments and a detector."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from meta_ood import Detector, SegmentTable, fit, models
from meta_ood.config import load
from meta_ood.config.schema import REPEATED_SCORES
from meta_ood.data import frames
from meta_ood.data.context import Machine, no_log
from meta_ood.data.images import read_image
from meta_ood.data.labels import CITYSCAPES, IN
from meta_ood.data.prediction_files import open_predictions
from meta_ood.detector.folder import Settings, write_folder
from meta_ood.inference.statistics import read_statistics
from meta_ood.models import checkpoint
from meta_ood.pipeline import infer, statistics
from meta_ood.scores import score_maps
from meta_ood.segments import measure_segments
from training_run import write_frames

PARAMS = Path(__file__).parents[2] / "params.yaml"
NAMES = ("kl_to_prior", "smoothed_standardised_max_logit", "mahalanobis", "relative_mahalanobis", "knn", "vim")
NAMES += ("prototype_cosine", "react", "ash", "scale", *REPEATED_SCORES)


def test_stored_scores_from_training_frames_to_a_detector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    drawn = write_frames(tmp_path / "test", 3, 10)
    frames.write_frames(tmp_path / "test", drawn, tmp_path)
    torch.manual_seed(0)
    weights, fitted = tmp_path / "weights.safetensors", tmp_path / "statistics.safetensors"
    about = {"name": "deeplabv3plus_mini", "architecture": "deeplabv3plus_mini", "options": {}, "variant": "baseline"}
    net = models.build("deeplabv3plus_mini", 19)
    checkpoint.save(weights, net, num_classes=19, class_names=CITYSCAPES.names, **about)
    given = {"network": "deeplabv3plus_mini", "variant": "baseline", "weights": weights, "statistics": fitted}
    given |= {"log": no_log, "machine": Machine("cpu", 1)}
    # 1. without such scores nothing is fitted, and no file is needed
    infer.run(load(PARAMS), dataset="d", prepared=tmp_path / "test", predictions=tmp_path / "predictions", **given)
    write_folder(tmp_path / "detector", weights, None, Settings(score="entropy", threshold=0.5), fitted)
    assert Detector.load(tmp_path / "detector", "cpu").predict(read_image(drawn[0].image)).stored == {}
    statistics.run(load(PARAMS), training=[tmp_path / "test"], **given)
    assert read_statistics(fitted) == {}
    # 2. with them
    member = Path("deeplabv3plus_mini-baseline-1.safetensors")
    checkpoint.save(
        member, models.build("deeplabv3plus_mini", 19), num_classes=19, class_names=CITYSCAPES.names, **about
    )
    scores = [f"infer.scores=[{', '.join(NAMES)}]", "segments.features=[vim, max_logit]"]
    scores += ["infer.repetition={dropout: 2, weights: ['{network}-{variant}-1.safetensors']}"]
    params = load(PARAMS, [*scores, "segments.score=knn", "segments.threshold=0.05"])
    statistics.run(params, training=[tmp_path / "test"], **given)
    infer.run(params, dataset="d", prepared=tmp_path / "test", predictions=tmp_path / "predictions", **given)
    settings = Settings(score="knn", threshold=0.05, infer=params.infer)
    write_folder(tmp_path / "detector", weights, None, settings, fitted, [member])
    detector = Detector.load(tmp_path / "detector", "cpu")
    for prediction, frame in zip(open_predictions(tmp_path / "predictions"), drawn, strict=True):
        assert tuple(prediction.stored) == tuple(sorted(NAMES))
        maps = score_maps(prediction, NAMES)
        assert all(values.shape == prediction.size and np.ptp(values) > 0 for values in maps.values())
        assert len(measure_segments(prediction, "knn", 0.05).image) > 0
        # 3. a detector computes the same, to the bit
        found = detector.predict(read_image(frame.image)).stored
        for name in NAMES:
            np.testing.assert_array_equal(found[name], prediction.stored[name])
    # 4. and judges segments by the features that its meta classifier was fitted on
    predictions = list(open_predictions(tmp_path / "predictions"))
    tables = [measure_segments(own, "knn", 0.05, features=params.segments.features) for own in predictions]
    table = SegmentTable.concatenate(tables)
    false = np.arange(len(table.image)) % 2
    classifier = replace(fit(replace(table, iou=1.0 - false)), class_names=CITYSCAPES.names)
    (tmp_path / "meta").mkdir()
    classifier.write(tmp_path / "meta" / "classifier.json")
    write_folder(tmp_path / "detector", weights, tmp_path / "meta", settings, fitted, [member])
    segments = Detector.load(tmp_path / "detector", "cpu")(drawn[0].image).segments
    # nothing of a new image is void
    ordinary = replace(predictions[0], target=np.full(predictions[0].size, IN, np.uint8))
    expected = measure_segments(ordinary, "knn", 0.05, features=params.segments.features)
    assert [own.false_alarm for own in segments] == classifier.probability(expected).tolist()
    told = {reason["feature"] for own in segments for reason in own.reasons}
    assert any(name.startswith(("vim", "max_logit")) for name in told)
    without = settings.model_copy(update={"infer": params.infer.model_copy(update={"scores": ("knn",)})})
    with pytest.raises(ValueError, match=r"meta classifier takes features of vim: add vim to infer\.scores"):
        write_folder(tmp_path / "detector", weights, tmp_path / "meta", without, fitted)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("segments.score=knn", r"segments.score: knn must be computed by `infer`: add it to infer.scores"),
        ("evaluate.scores=[energy, vim, ash]", r"evaluate.scores: vim, ash must be computed by `infer`"),
        ("segments.features=[vim]", r"segments.features: vim must be computed by `infer`"),
        ("segments.features=[entropy]", r"segments.features.0: 'entropy' is unknown"),
        ("meta.features=[dispersion, scores]", r"meta.features: .* name them in segments.features"),
        ("meta.features=[scores]", r"meta.features: got \['scores'\], expected \[dispersion\] or"),
        ("infer.scores=[knm]", r"infer.scores.0: 'knm' is unknown; .* did you mean knn"),
    ],
)
def test_scores_that_infer_does_not_compute_are_named(override: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(PARAMS, [override])
