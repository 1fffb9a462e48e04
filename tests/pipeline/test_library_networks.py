"""Networks of transformers, segmentation_models_pytorch and timm: the whole chain, without any network."""

import base64
import itertools
import json
import math
import socket
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from demo_world import REPOSITORY
from meta_ood import cli, config, models
from meta_ood.cli.stages import run_stage
from meta_ood.data.context import Machine
from meta_ood.data.frames import read_frames
from meta_ood.data.labels import OOD
from meta_ood.detector.detector import Detector
from meta_ood.detector.server import Limits, answers
from meta_ood.inference.batches import read, to_unit_range
from meta_ood.models import checkpoint
from meta_ood.pipeline import paths as layout
from meta_ood.pipeline import train
from tiny_networks import write_folder

CPU = Machine("cpu", 1)
NETWORKS = {
    "segformer": "transformers",
    "upernet": "transformers",
    "mask2former": "transformers",
    "eomt": "transformers",
    "smp_deeplab": "smp/DeepLabV3Plus",
    "smp_segformer": "smp/Segformer",
    "timm_vit": "timm/test_vit",
}
OPTIONS = {
    "smp_deeplab": {"encoder_name": "resnet18", "decoder_channels": 16},
    "smp_segformer": {"encoder_name": "mit_b0", "decoder_segmentation_channels": 16},
    "timm_vit": {"frozen": False},
}
OVERRIDES = (
    "synthesize={height: 64, width: 128, cityscapes_train: 8, cityscapes_val: 4, coco: 24, "
    "lost_and_found: 6, fishyscapes: 4}",
    "datasets.coco.options.min_side=64",
    "evaluation_sets=[lost_and_found,cityscapes_val]",
    "meta.train_on=[lost_and_found]",
    "meta.bootstrap=0",
    "operating_point=null",
    "train={loss: entropy_maximization, epochs: 12, batch_size: 4, crop: 64, learning_rate: 0.003, optimizer: adam, "
    "proxy_ratio: 1.0, proxy_style: whole, validate_every: 12}",
    "segments.threshold=0.4",
    "evaluate.scores=[entropy]",
    "evaluate.protocols=[exact]",
    "evaluate.bootstrap=0",
    "evaluate.pictures=0",
)


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("the network was asked for")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def call(*arguments):
    result = CliRunner().invoke(cli.main, [str(a) for a in arguments])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.filterwarnings("default")  # the libraries' own
@pytest.mark.parametrize("name", NETWORKS)
def test_from_import_to_served_answer(name, tmp_path, monkeypatch, no_network):
    architecture = NETWORKS[name]
    pytest.importorskip(models.LIBRARIES[models.library_of(architecture)])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("META_OOD_TRACKING", "off")
    # 1. released weights, a folder or a file: of a network that takes everything for road
    folder = Path("data/weights/released")
    if architecture == "transformers":
        write_folder(folder, name)
    options = OPTIONS.get(name, {"path": str(folder)})
    network = sure_of_road(models.build(architecture, 19, **options))
    if architecture == "transformers":
        network.model.save_pretrained(folder)
        released = folder
    else:
        folder.mkdir(parents=True)
        released = folder / "weights.pth"
        torch.save(network.state_dict(), released)
    stored = f"data/weights/{name}/baseline.safetensors"
    overrides = [*OVERRIDES, f"networks=[{name}]"]
    own = {"architecture": architecture, "options": options, "weights": {"baseline": stored}}
    overrides.append(f"network={json.dumps({name: own})}")
    Path("params.yaml").write_text((REPOSITORY / "params.yaml").read_text())
    changes = [word for change in overrides for word in ("--set", change)]
    said = call("weights", "import", released, "--network", name, "--variant", "baseline", "--no-track", *changes)
    assert "missing     0\nunexpected  0" in said
    # 2. all stages but the report; the training with its curve
    params = config.load(Path("params.yaml"), overrides)
    losses = []
    for stage in list(layout.STAGES)[:-1]:
        for keys in cells(params, stage):
            if stage == "train":
                where = layout.stage_paths(stage, params, name).arguments
                train.run(params, network=name, **where, log=lambda values, step: losses.append(values), machine=CPU)
            else:
                run_stage(
                    stage, keys, params_file=Path("params.yaml"), overrides=overrides, machine=CPU, track=False
                )  # fmt: skip
    # 3. the loss falls, and the entropy of proxies rises
    loss = [values["train/loss"] for values in losses if "train/loss" in values]
    assert loss[-1] < loss[0]
    entropies = [entropy_of_proxies(Path(f"data/networks/{name}/{variant}.safetensors")) for variant in params.variants]
    assert entropies[1] > entropies[0]
    # 4. the detector needs nothing else: it is served from another place, without what was released
    detector = Detector.load(Path(f"data/detectors/{name}/ood_trained").rename("elsewhere"), "cpu")
    folder.rename("gone")
    image = min(Path("data/raw/demo/lost_and_found").rglob("*_leftImg8bit.png"))
    (answer,) = answers(detector, {"image": base64.b64encode(image.read_bytes()).decode()}, Limits())
    assert answer["size"] == [64, 128]
    assert answer["segments"]


def sure_of_road(network):
    torch.manual_seed(0)
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    for _ in range(20):
        loss = -network.train()(torch.rand(2, 3, 64, 64)).log_softmax(1)[:, 0].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network


def cells(params, stage):
    values = {"network": params.networks, "variant": params.variants}
    values["dataset"] = tuple(params.datasets) if stage == "prepare" else params.evaluation_sets
    keys = layout.STAGES[stage]
    return [dict(zip(keys, cell, strict=True)) for cell in itertools.product(*(values[key] for key in keys))]


def entropy_of_proxies(weights):
    """Return the mean normalised entropy of a network at the pixels of all proxies."""
    network, _ = checkpoint.load(weights)
    total = pixels = 0.0
    for frame in read_frames(Path("data/prepare/coco"), Path.cwd()):
        sample = read(frame)
        with torch.inference_mode():
            logits = network.eval()(to_unit_range(sample.image[None]))
        p = models.upsample(logits, sample.target.shape, network.align_corners)[0].softmax(0)
        entropy = -(p * p.clamp_min(1e-30).log()).sum(0) / math.log(19)
        total += float(entropy[sample.target == OOD].sum())
        pixels += int((sample.target == OOD).sum())
    return total / pixels
