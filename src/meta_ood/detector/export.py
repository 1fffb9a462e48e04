"""Networks for other runtimes: ONNX and torch.export programs, checked against the network itself.

Both take one image ``(1, 3, H, W) float32`` in [0, 1] of any size and give the logits at the
network's own stride, as :mod:`meta_ood.data.predictions` has them; scores and segments
follow in NumPy.
"""

from __future__ import annotations

import importlib.util
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from meta_ood.data.frames import Frame
from meta_ood.data.predictions import Prediction
from meta_ood.inference.batches import read, to_unit_range
from meta_ood.scores import score_maps
from meta_ood.segments import measure_segments, predicted_ood

OPSET = 18
"""The ONNX operator set that is written."""

TOLERANCE = 1e-4
"""Largest difference of logits that a check lets pass."""

Floats = npt.NDArray[np.float32]
_TRACED = (128, 256)  # [px]
_CHECKED = ((96, 160), (128, 256), (200, 333))  # [px], most of them not the traced size


class ExportError(ValueError):
    """A network cannot be exported, or the export does not agree with it."""


@dataclass(frozen=True)
class Agreement:
    """How an export and its network agree on real frames.

    Attributes
    ----------
    frames, segments
        How many were compared.
    logits
        Largest difference of logits.
    pixels
        Pixels that are OoD by one and not by the other.
    other
        Ids of the frames whose segments differ in number, box or size.
    """

    frames: int
    segments: int
    logits: float
    pixels: int
    other: tuple[str, ...]


@dataclass(frozen=True)
class Latency:
    """Seconds a frame, medians, of the network and of what was exported."""

    network: float
    exported: float


def export_program(network: nn.Module, path: Path) -> torch.export.ExportedProgram:
    """Write a ``torch.export`` program (``.pt2``) with free height and width, and return it.

    Parameters
    ----------
    network
        ``(N, 3, H, W)`` in [0, 1] to logits.
    path
        Where to.
    """
    program = _program(network)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.export.save(program, path)
    return program


def export_onnx(network: nn.Module, path: Path) -> None:
    """Write an ONNX file with free height and width, operator set :data:`OPSET`.

    Raises
    ------
    ExportError
        If the exporter's packages are not installed.
    """
    if not (importlib.util.find_spec("onnx") and importlib.util.find_spec("onnxscript")):
        raise ExportError("ONNX needs more packages: pip install 'meta-ood[export]'")
    program = _program(network)
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own
        torch.onnx.export(
            program,
            (),
            str(path),
            opset_version=OPSET,
            dynamo=True,
            input_names=["image"],
            output_names=["logits"],
            external_data=False,
            verbose=False,
        )


def _program(network: nn.Module) -> torch.export.ExportedProgram:
    free = torch.export.Dim.AUTO
    example = (torch.rand(1, 3, *_TRACED, generator=torch.Generator().manual_seed(0)),)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shapes = ({2: free, 3: free},)
        return torch.export.export(network.cpu().eval(), example, dynamic_shapes=shapes)


def onnx_runner(path: Path) -> Callable[[Floats], Floats]:
    """Return ``(1, 3, H, W)`` -> logits, computed by onnxruntime on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda image: session.run(None, {"image": image})[0]


def program_runner(path: Path) -> Callable[[Floats], Floats]:
    """Return ``(1, 3, H, W)`` -> logits, computed by a saved program."""
    module: Any = torch.export.load(path).module()

    @torch.inference_mode()
    def run(image: Floats) -> Floats:
        logits: Floats = module(torch.from_numpy(image)).numpy()
        return logits

    return run


def network_runner(network: nn.Module) -> Callable[[Floats], Floats]:
    """Return ``(1, 3, H, W)`` -> logits, computed by the network on the CPU."""
    network = network.cpu().eval()

    @torch.inference_mode()
    def run(image: Floats) -> Floats:
        logits: Floats = network(torch.from_numpy(image)).float().numpy()
        return logits

    return run


def check(network: nn.Module, run: Callable[[Floats], Floats]) -> float:
    """Compare an export with its network on noise of several sizes; return the largest difference.

    Raises
    ------
    ExportError
        If the logits differ in shape or by more than :data:`TOLERANCE`; the size is named.
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
            raise ExportError(
                f"{height} x {width}: logits differ by {difference:g}, at most {TOLERANCE:g}"
            )
        largest = max(largest, difference)
    return largest


def compare(
    network: nn.Module,
    run: Callable[[Floats], Floats],
    frames: Sequence[Frame],
    score: str,
    threshold: float,
) -> Agreement:
    """Compare an export with its network on frames: logits, OoD mask, segments.

    Parameters
    ----------
    network, run
        The network and what was exported from it.
    frames
        Of a prepared dataset, any sizes.
    score, threshold
        Segments are where `score` reaches `threshold`.
    """
    reference = network_runner(network)
    align = bool(getattr(network, "align_corners", True))
    segments = pixels = 0
    largest = 0.0
    other = []
    for frame in frames:
        sample = read(frame)
        image = to_unit_range(sample.image[None]).numpy()
        target = sample.target.numpy()
        size = (target.shape[0], target.shape[1])
        logits = [reference(image)[0], run(image)[0]]
        largest = max(largest, float(np.abs(logits[0] - logits[1]).max()))
        ours, theirs = (Prediction(frame.image_id, own, size, align, target) for own in logits)
        scores = (score_maps(p, [score])[score] for p in (ours, theirs))
        masks = [predicted_ood(one, threshold) for one in scores]
        pixels += int((masks[0] != masks[1]).sum())
        tables = [measure_segments(p, score, threshold) for p in (ours, theirs)]
        segments += len(tables[0].image)
        if not all(
            np.array_equal(getattr(tables[0], name), getattr(tables[1], name))
            for name in ("segment_box", "segment_size")
        ):
            other.append(frame.image_id)
    return Agreement(len(frames), segments, largest, pixels, tuple(other))


def latency(
    network: nn.Module, run: Callable[[Floats], Floats], size: tuple[int, int], times: int = 5
) -> Latency:
    """Measure seconds a frame of `size` [px] on this machine's CPU, one frame at a time."""
    image = np.random.default_rng(0).random((1, 3, *size), np.float32)
    return Latency(
        _median(lambda: network_runner(network)(image), times), _median(lambda: run(image), times)
    )


def _median(call: Callable[[], object], times: int) -> float:
    call()
    seconds = []
    for _ in range(times):
        begin = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds)
