"""The published networks against reference values (tests/reference), with a weight fill that is computed here."""

import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from meta_ood import models
from meta_ood.models.pixels import IMAGENET_MEAN, IMAGENET_STD

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
