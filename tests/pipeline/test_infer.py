"""Stage infer under SIGKILL at random moments."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from children import kill_eight_times, start
from meta_ood import models
from meta_ood.data import frames, prediction_files
from meta_ood.data.context import Machine
from meta_ood.data.files import ROOT
from meta_ood.data.labels import CITYSCAPES
from meta_ood.inference.statistics import write_statistics
from meta_ood.models import checkpoint
from stage_runs import infer_frames
from training_run import write_frames

FRAMES = 30


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    drawn = []
    for index, frame in enumerate(write_frames(tmp_path / "test", FRAMES, 10)):
        label_ids = tmp_path / "test" / f"{index}_ids.png"
        Image.fromarray(np.full((24, 32), index, np.uint8)).save(label_ids)
        drawn.append(replace(frame, label_ids=label_ids))
    frames.write_frames(tmp_path / "test", drawn, tmp_path)
    torch.manual_seed(0)
    checkpoint.save(
        tmp_path / "weights.safetensors",
        models.build("dualgcn_mini", 19),
        name="dualgcn_mini",
        architecture="dualgcn_mini",
        options={},
        num_classes=19,
        class_names=CITYSCAPES.names,
        variant="baseline",
    )
    write_statistics(tmp_path / "statistics.safetensors", {})
    return tmp_path / "test"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_eight_kills_leave_no_trace(prepared: Path) -> None:
    infer_frames(prepared, Path("undisturbed"))
    expected = contents(Path("undisturbed"))
    assert len(expected) == FRAMES
    for prediction in prediction_files.open_predictions(Path("undisturbed")):
        assert prediction.label_ids is not None
        assert (prediction.label_ids == int(prediction.image_id)).all()
    out = Path("predictions")

    def check() -> None:
        assert contents(out) == expected
        assert not list(ROOT.iterdir())
        shutil.rmtree(out)

    seen = kill_eight_times(
        lambda: start(infer_frames, prepared, out), lambda: len(list(ROOT.glob("*/*.h5"))), FRAMES, check
    )
    assert len(seen) > 2


def test_ray_does_not_change_a_byte(prepared: Path) -> None:
    pytest.importorskip("ray")
    infer_frames(prepared, Path("here"))
    infer_frames(prepared, Path("there"), Machine("cpu", 2, "ray"))
    assert contents(Path("here")) == contents(Path("there"))
