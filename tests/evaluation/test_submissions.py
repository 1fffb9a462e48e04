import h5py
import numpy as np
import pytest

from meta_ood import scores
from meta_ood.data.predictions import Prediction
from meta_ood.evaluation import submissions


@pytest.fixture
def prediction():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 4, (5, 8, 16)).astype(np.float32)
    return Prediction("frame_1", logits, (16, 32), True, np.zeros((16, 32), np.uint8), "")


def test_segment_me_if_you_can_takes_float16_hdf5(prediction, tmp_path):
    path = submissions.submit(prediction, "entropy", "segment_me_if_you_can", tmp_path / "out")
    assert path == tmp_path / "out" / "frame_1.hdf5"
    with h5py.File(path) as file:
        assert list(file) == ["value"]
        value = file["value"][()]
    assert value.dtype == np.float16
    expected = scores.score_maps(prediction, ["entropy"])["entropy"]
    assert np.allclose(value, expected, rtol=1e-3, atol=1e-4)


def test_scores_beyond_float16_are_clipped(tmp_path):
    path = submissions.segment_me_if_you_can(tmp_path / "a", np.array([[-1e9, 1e9]], np.float32))
    with h5py.File(path) as file:
        assert np.isfinite(file["value"][()]).all()


def test_fishyscapes_takes_npy(prediction, tmp_path):
    path = submissions.submit(prediction, "max_logit", "fishyscapes", tmp_path)
    value = np.load(path, allow_pickle=False)
    assert value.dtype == np.float32
    assert np.array_equal(value, scores.score_maps(prediction, ["max_logit"])["max_logit"])
    assert [p.name for p in tmp_path.iterdir()] == ["frame_1.npy"]


def test_unknown_benchmark_lists_the_known_ones(prediction, tmp_path):
    with pytest.raises(ValueError, match="unknown benchmark 'x'; known: fishyscapes, segment_me"):
        submissions.submit(prediction, "entropy", "x", tmp_path)
