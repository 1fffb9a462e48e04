"""Exports against the network: logits, sizes other than the traced one, and the final mask."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from meta_ood.data.frames import Frame
from meta_ood.data.labels import CITYSCAPES, IGNORE
from meta_ood.data.predictions import Prediction
from meta_ood.detector import export
from meta_ood.models import build
from meta_ood.scores import score_maps
from meta_ood.segments import measure_segments


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return build("deeplabv3plus_mini", len(CITYSCAPES.names)).eval()


@pytest.mark.filterwarnings("ignore")  # of torch.export and the exporter
@pytest.mark.parametrize("kind", ["onnx", "torch"])
def test_an_export_gives_the_same_segments(network, tmp_path, kind):
    path = tmp_path / "network"
    if kind == "onnx":
        export.export_onnx(network, path)
        run = export.onnx_runner(path)
    else:
        export.export_program(network, path)
        run = export.program_runner(path)
    assert export.check(network, run) < 1e-4
    image = np.random.default_rng(1).random((1, 3, 72, 200), np.float32)
    tables = [
        measure_segments(
            Prediction("a", logits[0], (72, 200), True, np.zeros((72, 200), np.uint8)), "entropy"
        )
        for logits in (run(image), export.network_runner(network)(image))
    ]
    np.testing.assert_array_equal(tables[0].segment_box, tables[1].segment_box)
    np.testing.assert_array_equal(tables[0].segment_size, tables[1].segment_size)


@pytest.fixture
def frames(tmp_path):
    """Three frames of two sizes, neither the traced one, with void at the foot."""
    generator = np.random.default_rng(2)
    made = []
    for k, (height, width) in enumerate(((80, 144), (80, 144), (104, 200))):
        small = Image.fromarray(generator.integers(0, 256, (8, 16, 3), np.uint8))
        small.resize((width, height), Image.Resampling.BICUBIC).save(tmp_path / f"{k}.png")
        target = np.zeros((height, width), np.uint8)
        target[-8:] = IGNORE
        Image.fromarray(target).save(tmp_path / f"{k}_target.png")
        images = (tmp_path / f"{k}.png", tmp_path / f"{k}_target.png")
        made.append(Frame(str(k), images[0], "", images[1], "scene"))
    return made


class Surer(torch.nn.Module):
    """An untrained network whose logits are far enough apart for its entropy to vary."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, image):
        return 60 * self.network(image)


def clear_threshold(network, frames):
    """Return a threshold with segments above it and no pixel near it: rounding cannot matter."""
    run, scores = export.network_runner(network), []
    for frame in frames:
        image = np.asarray(Image.open(frame.image), np.float32).transpose(2, 0, 1)[None] / 255
        target = np.zeros(image.shape[2:], np.uint8)
        prediction = Prediction("a", run(image)[0], target.shape, True, target)
        scores.append(score_maps(prediction, ["entropy"])["entropy"].ravel())
    ordered = np.sort(np.concatenate(scores))
    ordered = ordered[int(0.7 * len(ordered)) : int(0.95 * len(ordered))]
    widest = np.diff(ordered).argmax()
    return float(ordered[widest : widest + 2].mean())


@pytest.mark.filterwarnings("ignore")  # of torch.export and the exporter
def test_frames_have_the_same_mask_and_segments(network, frames, tmp_path):
    path = tmp_path / "network.onnx"
    network = Surer(network)
    export.export_onnx(network, path)
    threshold = clear_threshold(network, frames)
    found = export.compare(network, export.onnx_runner(path), frames, "entropy", threshold)
    assert found.frames == 3
    assert found.segments > 3
    assert found.logits < 1e-4
    assert (found.pixels, found.other) == (0, ())

    reference = export.network_runner(network)

    def wrong(image):
        logits = reference(image)
        return logits + 50 * (np.arange(logits.shape[1]) == 3)[:, None, None].astype(np.float32)

    found = export.compare(network, wrong, frames, "entropy", threshold)
    assert found.other == ("0", "1", "2")
    assert found.pixels > 0
    assert found.logits == pytest.approx(50, rel=1e-4)


def test_a_difference_is_found(network):
    reference = export.network_runner(network)
    with pytest.raises(export.ExportError, match="96 x 160: logits differ by"):
        export.check(network, lambda image: reference(image) + np.float32(0.01))
    with pytest.raises(export.ExportError, match="expected"):
        export.check(network, lambda image: reference(image)[..., :-1])


def test_latency_is_measured(network):
    measured = export.latency(network, export.network_runner(network), (64, 64), times=1)
    assert measured.network > 0
    assert measured.exported > 0
