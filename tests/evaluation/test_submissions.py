import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

from meta_ood import cli
from meta_ood.data.prediction_files import write_prediction
from meta_ood.data.predictions import Prediction
from meta_ood.evaluation import submissions
from meta_ood.scores import SCORES, pixel_maps


@pytest.fixture
def prediction():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 4, (5, 8, 16)).astype(np.float32)
    return Prediction("0007_a", logits, (16, 32), True, np.zeros((16, 32), np.uint8), "")


def test_segment_me_if_you_can_takes_float16_hdf5(prediction, tmp_path):
    path = submissions.submit(prediction, 7, "entropy", "segment_me_if_you_can", tmp_path / "out")
    assert path == tmp_path / "out" / "0007_a.hdf5"
    with h5py.File(path) as file:
        assert list(file) == ["value"]
        value = file["value"][()]
    assert value.dtype == np.float16
    assert np.allclose(value, SCORES["entropy"](prediction), rtol=1e-3, atol=1e-4)
    # logits beyond float16 are clipped
    prediction.logits[0] *= 1e9
    path = submissions.submit(prediction, 7, "max_logit", "segment_me_if_you_can", tmp_path)
    with h5py.File(path) as file:
        assert np.isfinite(file["value"][()]).all()


def fishyscapes_reader(folder, end):
    """List files as Fishyscapes' own evaluation does (hermannsblum/fishyscapes, eval.py)."""
    names = [p.name for p in folder.iterdir() if p.name.lower().endswith(end)]
    return sorted(names, key=lambda name: int(name.split("_")[0]))


def test_fishyscapes_finds_what_is_written(prediction, tmp_path):
    for number in (10, 9, 100):
        submissions.submit(prediction, number, "max_logit", "fishyscapes", tmp_path)
    names = fishyscapes_reader(tmp_path, "_anomaly.npy")
    assert names == ["0009_anomaly.npy", "0010_anomaly.npy", "0100_anomaly.npy"]
    value = np.load(tmp_path / names[0], allow_pickle=False)
    assert value.dtype == np.float32
    assert np.array_equal(value, SCORES["max_logit"](prediction))
    names = fishyscapes_reader(tmp_path, "_segmentation.npy")
    classes = np.load(tmp_path / names[0], allow_pickle=False)
    assert np.array_equal(classes, pixel_maps(prediction, ["arg_max"]).arg_max)
    assert len(list(tmp_path.iterdir())) == 6


def test_unknown_names_list_the_known_ones(prediction, tmp_path):
    with pytest.raises(ValueError, match=r"unknown benchmark 'x'.*known: fishyscapes, segment_me"):
        submissions.submit(prediction, 0, "entropy", "x", tmp_path)
    with pytest.raises(ValueError, match=r"unknown score 'x'.*known: .*entropy"):
        submissions.submit(prediction, 0, "x", "fishyscapes", tmp_path)


def test_the_command_numbers_the_frames(prediction, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(Path(__file__).parents[2] / "params.yaml", "params.yaml")
    cell = ["--network", "dualgcn_mini", "--variant", "baseline", "--dataset", "fishyscapes_static"]
    path = tmp_path / "data/infer/dualgcn_mini/baseline/fishyscapes_static/0007_a.h5"
    path.parent.mkdir(parents=True)
    write_prediction(path, prediction, class_names=list("abcde"), network="n", weights_sha256="0")
    result = CliRunner().invoke(cli.main, ["-q", "submit", "fishyscapes", *cell, "--to", "out"])
    assert result.exit_code == 0, result.output
    assert sorted(p.name for p in Path("out").iterdir()) == ["0007_anomaly.npy", "0007_segmentation.npy"]
    result = CliRunner().invoke(cli.main, ["-q", "submit", "fishyscape", *cell])
    assert result.exit_code == 2
    assert "fishyscapes" in result.output
