"""Stage infer under SIGKILL at random moments."""

import multiprocessing
import random
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from meta_ood import frames, models, storage
from meta_ood.config import load
from meta_ood.context import Machine, log_nothing
from meta_ood.labels import CITYSCAPES
from meta_ood.models import checkpoint
from meta_ood.resume import ROOT
from meta_ood.stages import infer
from training_run import write_frames

PARAMS = load(Path(__file__).parents[2] / "params.yaml")
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
    return tmp_path / "test"


def run(prepared: Path, predictions: Path) -> None:
    torch.set_num_threads(1)
    infer.run(
        PARAMS,
        network="dualgcn_mini",
        variant="baseline",
        dataset="lost_and_found",
        prepared=prepared,
        weights=prepared.parent / "weights.safetensors",
        predictions=predictions,
        log=log_nothing,
        machine=Machine("cpu", 2),
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_twenty_kills_leave_no_trace(prepared: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["meta_ood.stages.infer", "training_run"])

    def start(out: str) -> multiprocessing.process.BaseProcess:
        process = context.Process(target=run, args=(prepared, Path(out)))
        process.start()
        return process

    begin = time.monotonic()
    undisturbed = start("undisturbed")
    undisturbed.join()
    longest = time.monotonic() - begin
    assert undisturbed.exitcode == 0
    expected = contents(Path("undisturbed"))
    assert len(expected) == FRAMES
    chance = random.Random(0)
    kills, partial = 0, set()
    while kills < 20:
        process = start("predictions")
        process.join(chance.uniform(0, longest))
        if process.exitcode is None:
            process.kill()
            process.join()
            assert process.exitcode == -9
            kills += 1
            partial.add(len(list(ROOT.glob("*/*.h5"))))
        else:
            assert process.exitcode == 0
            assert contents(Path("predictions")) == expected
            longest *= 0.8
    assert len(partial) > 2  # some kills came amid the frames
    last = start("predictions")
    last.join()
    assert last.exitcode == 0
    assert contents(Path("predictions")) == expected
    assert not list(ROOT.iterdir())
    for prediction in storage.open_predictions(Path("predictions")):
        assert prediction.label_ids is not None
        assert (prediction.label_ids == int(prediction.image_id)).all()
