"""Scores that need training frames, from the stage statistics to stored maps, segments and a detector."""

from pathlib import Path

import numpy as np
import pytest
import torch

from meta_ood import Detector, models
from meta_ood.config import load
from meta_ood.data import frames
from meta_ood.data.context import Machine, no_log
from meta_ood.data.images import read_image
from meta_ood.data.labels import CITYSCAPES
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
NAMES += ("prototype_cosine", "react", "ash", "scale")


def test_stored_scores_from_training_frames_to_a_detector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    drawn = write_frames(tmp_path / "test", 3, 10)
    frames.write_frames(tmp_path / "test", drawn, tmp_path)
    torch.manual_seed(0)
    weights, fitted = tmp_path / "weights.safetensors", tmp_path / "statistics.safetensors"
    about = {"name": "dualgcn_mini", "architecture": "dualgcn_mini", "options": {}, "variant": "baseline"}
    net = models.build("dualgcn_mini", 19)
    checkpoint.save(weights, net, num_classes=19, class_names=CITYSCAPES.names, **about)
    given = {"network": "dualgcn_mini", "variant": "baseline", "weights": weights, "statistics": fitted}
    given |= {"log": no_log, "machine": Machine("cpu", 1)}
    # 1. without such scores nothing is fitted, and no file is needed
    infer.run(load(PARAMS), dataset="d", prepared=tmp_path / "test", predictions=tmp_path / "predictions", **given)
    write_folder(tmp_path / "detector", weights, None, Settings(score="entropy", threshold=0.5), fitted)
    assert Detector.load(tmp_path / "detector", "cpu").predict(read_image(drawn[0].image)).stored == {}
    statistics.run(load(PARAMS), training=[tmp_path / "test"], **given)
    assert read_statistics(fitted) == {}
    # 2. with them
    params = load(PARAMS, [f"infer.scores=[{', '.join(NAMES)}]", "segments.score=knn", "segments.threshold=0.05"])
    statistics.run(params, training=[tmp_path / "test"], **given)
    infer.run(params, dataset="d", prepared=tmp_path / "test", predictions=tmp_path / "predictions", **given)
    settings = Settings(score="knn", threshold=0.05, infer=params.infer)
    write_folder(tmp_path / "detector", weights, None, settings, fitted)
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


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("segments.score=knn", r"segments.score: knn must be computed by `infer`: add it to infer.scores"),
        ("evaluate.scores=[energy, vim, ash]", r"evaluate.scores: vim, ash must be computed by `infer`"),
        ("infer.scores=[knm]", r"infer.scores.0: 'knm' is unknown; .* did you mean knn"),
    ],
)
def test_scores_that_infer_does_not_compute_are_named(override: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(PARAMS, [override])
