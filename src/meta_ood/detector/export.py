"""Networks for other runtimes: ONNX and torch.export programs, checked against the network itself.

Both take one image ``(1, 3, H, W) float32`` in [0, 1] of any size and return the logits at the network's own stride;
scores and segments follow in NumPy.
"""

from __future__ import annotations

import importlib.util
import statistics
import timeit
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from meta_ood.data import files
from meta_ood.detector.detector import Detector
from meta_ood.evaluation.overlays import Picture

OPSET = 18
"""The ONNX operator set that is written: the oldest that the exporter writes directly."""

TOLERANCE = 1e-4
"""Largest difference of logits that a check accepts: ten times the rounding seen in float32."""

Floats = npt.NDArray[np.float32]
Runner = Callable[[Floats], Floats]
"""From ``(1, 3, H, W)`` images to logits."""

_TRACED = (128, 256)  # [px]
_CHECKED = ((96, 160), (128, 256), (200, 333))  # [px], most of them not the traced size


class ExportError(ValueError):
    """A network cannot be exported, or the export does not agree with it."""


@dataclass(frozen=True)
class Agreement:
    """How an export and its network agree on images.

    Attributes:
        frames, segments: How many were compared.
        logits: Largest difference of logits.
        pixels: Pixels that are OoD by one and not by the other.
        other: Names of the images whose segments differ in number, box, size or decision.
    """

    frames: int
    segments: int
    logits: float
    pixels: int
    other: tuple[str, ...]


def export_program(network: nn.Module, path: Path) -> None:
    """Write a ``torch.export`` program (``.pt2``) with free height and width."""
    with files.replacing(path) as temporary:
        torch.export.save(_program(network), temporary)


def export_onnx(network: nn.Module, path: Path) -> None:
    """Write an ONNX file with free height and width, operator set :data:`OPSET`.

    Raises:
        ExportError: If the exporter's packages are not installed.
    """
    if not (importlib.util.find_spec("onnx") and importlib.util.find_spec("onnxscript")):
        raise ExportError("ONNX needs more packages: pip install 'meta-ood[export]'")
    program = _program(network)
    with files.replacing(path) as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own
        torch.onnx.export(
            program,
            (),
            str(temporary),
            opset_version=OPSET,
            dynamo=True,
            input_names=["image"],
            output_names=["logits"],
            external_data=False,
            verbose=False,
        )


def _program(network: nn.Module) -> torch.export.ExportedProgram:
    """Trace a network on noise, with height and width left free."""
    free = torch.export.Dim.AUTO
    example = (torch.rand(1, 3, *_TRACED, generator=torch.Generator().manual_seed(0)),)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, about its own future
        return torch.export.export(network.cpu().eval(), example, dynamic_shapes=({2: free, 3: free},))


def onnx_runner(path: Path) -> Runner:
    """Return ``(1, 3, H, W)`` -> logits, computed by onnxruntime on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda image: session.run(None, {"image": image})[0]


def program_runner(path: Path) -> Runner:
    """Return ``(1, 3, H, W)`` -> logits, computed by a saved program."""
    return _runner(torch.export.load(path).module())


def network_runner(network: nn.Module) -> Runner:
    """Return ``(1, 3, H, W)`` -> logits, computed by the network on the CPU."""
    return _runner(network.cpu().eval())


def _runner(module: nn.Module) -> Runner:
    @torch.inference_mode()
    def run(images: Floats) -> Floats:
        logits: Floats = module(torch.from_numpy(images)).float().numpy()
        return logits

    return run


def check(network: nn.Module, run: Runner) -> float:
    """Return the largest difference of logits between an export and its network, on noise.

    Raises:
        ExportError: If the logits differ in shape or by more than :data:`TOLERANCE`; the size is named.
    """
    reference = network_runner(network)
    generator = np.random.default_rng(0)
    largest = 0.0
    for height, width in _CHECKED:
        image = generator.random((1, 3, height, width), np.float32)
        expected, got = reference(image), run(image)
        if expected.shape != got.shape:
            raise ExportError(f"{height} x {width}: logits {got.shape}, expected {expected.shape}")
        difference = float(np.abs(expected - got).max())
        if not difference <= TOLERANCE:
            raise ExportError(f"{height} x {width}: logits differ by {difference:g}, at most {TOLERANCE:g}")
        largest = max(largest, difference)
    return largest


class Exported(nn.Module):
    """An export in the place of its network: what a detector calls."""

    def __init__(self, network: nn.Module, run: Runner) -> None:
        super().__init__()
        self.align_corners = getattr(network, "align_corners", True)
        self.output_stride = getattr(network, "output_stride", 1)
        self._run = run

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits of ``(1, 3, H, W)`` images in [0, 1]."""
        return torch.from_numpy(self._run(np.ascontiguousarray(images.numpy())))


def compare(detector: Detector, run: Runner, images: Sequence[tuple[str, Picture]]) -> Agreement:
    """Compare what a detector finds with its network and with what was exported from it.

    Args:
        detector: On the CPU.
        run: What was exported from its network.
        images: Name and ``(H, W, 3) uint8`` RGB of each image, of any sizes.
    """
    other = Detector(Exported(detector.network, run), detector.settings, detector.classifier, "cpu")
    segments = pixels = 0
    largest = 0.0
    different = []
    for name, image in images:
        a, b = detector.predict(image), other.predict(image)
        largest = max(largest, float(np.abs(a.logits - b.logits).max()))
        ours, theirs = detector.judge(a, image), other.judge(b, image)
        pixels += int((ours.mask != theirs.mask).sum())
        segments += len(ours.segments)
        if [(s.box, s.size, s.kept) for s in ours.segments] != [(s.box, s.size, s.kept) for s in theirs.segments]:
            different.append(name)
    return Agreement(len(images), segments, largest, pixels, tuple(different))


def latency(run: Runner, size: tuple[int, int], times: int = 5) -> float:
    """Return the median seconds per image of `size` [px] on this machine's CPU."""
    image = np.random.default_rng(0).random((1, 3, *size), np.float32)
    run(image)  # the first call prepares buffers
    return statistics.median(timeit.repeat(lambda: run(image), number=1, repeat=times))
