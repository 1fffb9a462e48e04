"""The published networks against reference values (tests/reference), with a weight fill that is computed here."""

import hashlib
import json
import os
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from meta_ood import models
from meta_ood.models.pixels import IMAGENET_MEAN, IMAGENET_STD
from meta_ood.models.published import import_published

REFERENCE = Path(__file__).parents[1] / "reference"
SIZES = ("128x256", "97x193")
NETWORKS = {
    "deeplabv3plus_wrn38": "DeepWV3Plus",
    "dualgcnnet_r50": "DualSeg_res50",
    "dualgcnnet_r101": "DualSeg_res101",
}


def fill(key: str, shape: tuple[int, ...]) -> torch.Tensor:
    last = key.rsplit(".", 1)[-1]
    if last == "num_batches_tracked":
        return torch.tensor(0)
    n = np.random.RandomState(zlib.crc32(key.encode())).standard_normal(shape)
    if last == "running_var":
        n = 1 + 0.1 * np.abs(n)
    elif last == "weight" and n.ndim > 1:
        n *= np.sqrt(1 / np.prod(shape[1:]))
    elif last == "weight":
        n = 1 + 0.1 * n
    else:
        n *= 0.1
    if key == "head.dualgcn.bn3.weight":
        n *= 1e-4
    return torch.from_numpy(n.astype(np.float32))


@pytest.fixture(scope="module", params=NETWORKS)
def filled(request):
    with torch.device("meta"):
        network = models.build(request.param, 19)
    state = {key: fill(key, tuple(value.shape)) for key, value in network.state_dict().items()}
    network.load_state_dict(state, assign=True)
    return NETWORKS[request.param], network.eval()


def test_logits_are_the_published_ones(filled):
    reference, network = filled
    for size in SIZES:
        with np.load(REFERENCE / f"g3_{reference}_{size}.npz") as file:
            values = dict(file)
        # The reference's input is what comes after normalisation.
        mean, std = (np.reshape(v, (3, 1, 1)) for v in (IMAGENET_MEAN, IMAGENET_STD))
        image = torch.from_numpy((values["input"] * std + mean).astype(np.float32))
        height, width = image.shape[2:]
        with torch.inference_mode():
            small = network(image)
            logits = models.upsample(small, (height, width), network.align_corners).numpy()
        assert abs(small.shape[3] - width / network.output_stride) < 1.5
        assert logits.shape == tuple(values["out_shape"])
        tolerance = 1e-4 * values["ch_std"].mean()
        np.testing.assert_allclose(logits[:, :, ::4, ::4], values["sub"], 0, tolerance)
        np.testing.assert_allclose(logits[:, values["ch"]], values["full_ch"], 0, tolerance)
        np.testing.assert_allclose(logits.mean((0, 2, 3)), values["ch_mean"], 0, tolerance)
        np.testing.assert_allclose(logits.std((0, 2, 3)), values["ch_std"], 0, tolerance)
        second, first = np.sort(logits, 1)[:, -2:].swapaxes(0, 1)
        clear = first - second > tolerance
        assert clear.mean() > 0.99
        assert (logits.argmax(1) == values["argmax"])[clear].all()


def test_the_auxiliary_head_is_not_run(filled):
    reference, network = filled
    if reference == "DeepWV3Plus":
        assert not hasattr(network, "dsn")
        return
    calls = []
    hook = network.dsn.register_forward_hook(lambda *_: calls.append(1))
    with torch.inference_mode():
        network(torch.rand(1, 3, 65, 65))
    hook.remove()
    assert not calls
    assert not any(p.requires_grad for p in network.dsn.parameters())


# Two networks whose files of released weights are not in this repository. The real files and the published code's
# logits are compared where they lie; without them, values that this code had when it agreed with those logits.
REAL = Path(os.environ.get("META_OOD_REAL_DATA", Path(__file__).parents[2].parent / "shared" / "real")) / "weights"
# name -> file of weights; digest of its entries' names, shapes and order; number of parameters
RELEASED = {
    "erfnet": ("erfnet", "2247ed6218683c7d8d9fd00086e3bd888ab7cee5d73eb81e52c23b94a0ca350d", 2_066_836),
    "espnetv2": ("espnetv2_s2.0", "88b5e125c812be98472fb15266523bd74fb3bcba609f98a06801bb362fee3c6f", 789_242),
}


@pytest.mark.parametrize("name", RELEASED)
def test_entries_are_those_of_the_released_file(name):
    network = models.build(name, 19, void_output=True)
    entries = json.dumps([[key, list(value.shape)] for key, value in network.state_dict().items()])
    _, digest, parameters = RELEASED[name]
    assert hashlib.sha256(entries.encode()).hexdigest() == digest
    assert sum(p.numel() for p in network.parameters()) == parameters


@pytest.mark.parametrize("name", RELEASED)
def test_logits_stay_the_released_ones(name):
    network = models.build(name, 19, void_output=True).eval()
    network.load_state_dict({key: fill(key, tuple(value.shape)) for key, value in network.state_dict().items()})
    with np.load(REFERENCE / f"{name}.npz") as file:
        values = dict(file)
    for size in ((64, 96), (57, 83)):  # the second is no multiple of the stride
        image = np.random.RandomState(0).random_sample((1, 3, *size)).astype(np.float32)
        with torch.inference_mode():
            logits = network(torch.from_numpy(image))
        expected = values["x".join(map(str, size))]
        assert logits.shape[2:] == tuple(-(-side // network.output_stride) for side in size)
        np.testing.assert_allclose(logits[:, :, ::4, ::4], expected, 0, 1e-4 * expected.std())


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("name", RELEASED)
def test_released_weights_give_the_published_logits(name, prefix, tmp_path):
    path = REAL / f"{RELEASED[name][0]}_cityscapes.pth"
    if not path.is_file():
        pytest.skip(f"no {path.name}: set META_OOD_REAL_DATA")
    state = torch.load(path, map_location="cpu", weights_only=True)
    torch.save({prefix + key.removeprefix("module."): value for key, value in state.items()}, tmp_path / "file.pth")
    network, report = import_published(tmp_path / "file.pth", name, 19, {"void_output": True})
    assert (report.prefix, len(report.matched)) == (prefix, len(state))
    with np.load(REAL / f"{RELEASED[name][0]}_reference.npz") as values:
        for which in "ab":
            image = torch.from_numpy(values[f"image_{which}"]).permute(2, 0, 1)[None] / 255
            expected = values[f"logits_{which}"]
            with torch.inference_mode():
                small = network.eval()(image)
            logits = models.upsample(small, expected.shape[1:], network.align_corners)[0].numpy()
            assert expected.shape[0] == 20  # the last one is void, which the network leaves out
            np.testing.assert_allclose(logits, expected[:19], 0, 1e-4 * expected.std())
