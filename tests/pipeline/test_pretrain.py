"""Given weights: taken instead of training, checked, with their origin; or a backbone alone."""

from pathlib import Path

import pytest
import torch

from meta_ood import models
from meta_ood.config import load
from meta_ood.data import frames
from meta_ood.data.context import Machine, no_log
from meta_ood.data.labels import CITYSCAPES
from meta_ood.models import checkpoint, published
from meta_ood.pipeline import pretrain, train
from training_run import write_frames

PARAMS = Path(__file__).parents[2] / "params.yaml"
NAME = "dualgcn_mini"


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "prepared"
    drawn = write_frames(folder, 4)
    frames.write_frames(folder, drawn, tmp_path)
    return folder


def store(path, variant):
    network = models.build(NAME, 19)
    torch.save(network.state_dict(), "released.pth")
    published.import_weights(
        Path("released.pth"),
        path,
        name="another name",
        architecture=NAME,
        options={},
        class_names=CITYSCAPES.names,
        variant=variant,
        origin="a paper",
    )
    return network


def run(stage, params, folder, **paths):
    stage.run(
        params,
        network=NAME,
        training=[folder],
        validation=[folder],
        weights=Path("out.safetensors"),
        metrics=Path("out.json"),
        curves=Path("out.csv"),
        log=no_log,
        machine=Machine("cpu", 1),
        **paths,
    )
    return checkpoint.load(Path("out.safetensors"))


@pytest.mark.parametrize(("stage", "variant"), [(pretrain, "baseline"), (train, "ood_trained")])
def test_given_weights_are_taken_with_their_origin(prepared, stage, variant):
    network = store(Path("given.safetensors"), variant)
    params = load(PARAMS, [f"network.{NAME}.weights={{{variant}: given.safetensors}}"])
    paths = {}
    if stage is train:
        store(Path("baseline.safetensors"), "baseline")
        paths = {"proxies": [prepared], "baseline": Path("baseline.safetensors")}
    loaded, metadata = run(stage, params, prepared, **paths)
    for key, value in network.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[key]), key
    assert (metadata["name"], metadata["variant"]) == (NAME, variant)
    assert metadata["origin"]["source"] == "a paper"
    assert "miou" in Path("out.json").read_text()
    assert Path("out.csv").read_text() == "step,curve,value\n"  # nothing was trained


def test_given_weights_of_the_other_variant_are_refused(prepared):
    store(Path("given.safetensors"), "ood_trained")
    params = load(PARAMS, [f"network.{NAME}.weights={{baseline: given.safetensors}}"])
    with pytest.raises(checkpoint.CheckpointError, match="variant 'ood_trained', but network"):
        run(pretrain, params, prepared)
    assert not Path("out.safetensors").exists()


def test_training_starts_from_a_backbone_if_one_is_given(prepared):
    backbone = models.build(NAME, 19)
    with torch.no_grad():
        backbone.conv1[0].weight.fill_(0.125)
    own = {k: v for k, v in backbone.state_dict().items() if k.startswith(backbone.backbone_prefixes)}
    torch.save(own, "backbone.pth")
    settings = {
        "pretrain.epochs": 1,
        "pretrain.batch_size": 4,
        "pretrain.crop": 24,
        "pretrain.learning_rate": "1.0e-9",
        "pretrain.weight_decay": 0.0,
        f"network.{NAME}.weights": "{backbone: backbone.pth}",
    }
    params = load(PARAMS, [f"{key}={value}" for key, value in settings.items()])
    loaded, metadata = run(pretrain, params, prepared)
    assert (loaded.conv1[0].weight - 0.125).abs().max() < 1e-6
    assert "origin" not in metadata


def test_unknown_kinds_of_weights_are_named():
    with pytest.raises(ValueError, match=rf"network\.{NAME}\.weights\.best: .best. is unknown"):
        load(PARAMS, [f"network.{NAME}.weights={{best: x}}"])
