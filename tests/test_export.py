"""Exports against the network: logits, sizes other than the traced one, and the final mask."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from meta_ood import export
from meta_ood.labels import CITYSCAPES
from meta_ood.models import build
from meta_ood.predictions import Prediction
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
