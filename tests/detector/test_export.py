"""Exports against the network: logits, sizes other than the traced one, and what is found."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from meta_ood.data.images import read_image
from meta_ood.detector import export
from meta_ood.detector.detector import Detector
from meta_ood.detector.folder import Settings
from meta_ood.models import build


class Surer(torch.nn.Module):
    """An untrained network whose logits are far enough apart for its entropy to vary."""

    align_corners, output_stride = True, 8

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, image):
        return 60 * self.network(image)


def clear_threshold(network, images):
    """Return a threshold with segments above it and no pixel near it: rounding cannot matter."""
    detector = Detector(network, Settings(score="entropy", threshold=0.5), None, "cpu")
    ordered = np.sort(np.concatenate([detector(image).score.ravel() for _, image in images]))
    ordered = ordered[int(0.7 * len(ordered)) : int(0.95 * len(ordered))]
    widest = np.diff(ordered).argmax()
    return float(ordered[widest : widest + 2].mean())


@pytest.mark.filterwarnings("ignore")  # of torch.export and the exporter
@pytest.mark.parametrize("kind", ["onnx", "pt2"])
def test_an_export_finds_the_same_segments(detector, parts, tmp_path, kind):
    network = Surer(detector.network)
    # sizes other than the traced one
    images = [(f.image_id, read_image(f.image)) for f in parts.frames]
    images.append(("wide", np.tile(images[0][1], (1, 2, 1))[:, :200]))
    run = export.export(network, tmp_path / f"network.{kind}")
    assert export.check(network, run) < 1e-4
    settings = Settings(score="entropy", threshold=clear_threshold(network, images))
    ours = Detector(network, settings, None, "cpu")
    found = export.compare(ours, run, images)
    assert found.frames == 4
    assert found.segments > 3
    assert found.logits < 1e-4
    assert (found.pixels, found.other) == (0, ())

    reference = export.network_runner(network)

    def wrong(image):
        logits = reference(image)
        return logits + 50 * (np.arange(logits.shape[1]) == 3)[:, None, None].astype(np.float32)

    found = export.compare(ours, wrong, images[:1])
    assert found.other == ("0",)
    assert found.pixels > 0
    assert found.logits == pytest.approx(50, rel=1e-3)


@pytest.mark.filterwarnings("ignore")  # of torch.export and the exporter
@pytest.mark.parametrize("architecture", ["erfnet", "espnetv2"])
def test_networks_that_round_sizes_are_exported_for_one(architecture, tmp_path):
    torch.manual_seed(0)
    network, size = build(architecture, 19, void_output=True).eval(), (64, 128)
    run = export.export(network, tmp_path / "network.onnx", size)
    assert export.check(network, run, size) < 1e-4


class Branching(torch.nn.Module):
    """A network that looks at its values to choose what it does: no exporter follows that."""

    def forward(self, image):
        return image if image.mean() > 0.5 else -image


@pytest.mark.filterwarnings("ignore")  # of torch.export
def test_a_network_that_exporters_cannot_follow_is_refused_in_one_line(tmp_path):
    for size, message in ((None, r"for any size: .*; infer\.size"), ((64, 128), "for 64x128: ")):
        with pytest.raises(ValueError, match=f"^Branching cannot be exported {message}") as error:
            export.export(Branching(), tmp_path / "network.onnx", size)
        assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_difference_is_found(detector):
    reference = export.network_runner(detector.network)
    with pytest.raises(ValueError, match="96 x 160: logits differ by"):
        export.check(detector.network, lambda image: reference(image) + np.float32(0.01))
    with pytest.raises(ValueError, match="expected"):
        export.check(detector.network, lambda image: reference(image)[..., :-1])


def test_latency_is_measured(detector):
    assert export.latency(export.network_runner(detector.network), (64, 64), times=1) > 0


@pytest.mark.filterwarnings("ignore")  # of torch.export and the exporter
def test_eight_bits_are_near_and_know_their_weights(detector, parts, tmp_path, capsys):
    path, target = tmp_path / "network.onnx", tmp_path / "network-int8.onnx"
    weights = detector.settings.files["weights.safetensors"]
    exact = export.export(detector.network, path, weights=weights)
    images = [read_image(frame.image) for frame in parts.frames]
    run = export.quantise(detector, path, target, images)
    assert target.stat().st_size < 0.5 * path.stat().st_size
    given = np.stack([images[0].transpose(2, 0, 1)]).astype(np.float32) / 255
    expected, got = exact(given), run(given)
    # rounding to 256 steps of each layer, not another network
    assert 0 < np.abs(got - expected).mean() < 0.2 * expected.std()
    np.testing.assert_array_equal(export.with_onnx(detector, target).predict(images[0]).size, images[0].shape[:2])
    assert capsys.readouterr().out == ""
    assert sorted(file.name for file in tmp_path.iterdir()) == ["network-int8.onnx", "network.onnx"]
