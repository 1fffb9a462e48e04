"""Networks for other runtimes: ONNX and torch.export programs, checked against the network itself.

Both take one image ``(1, 3, H, W) float32`` in [0, 1], of any size or of the one that the detector gives its network
(``infer.size``), and return the logits at the network's own stride; scores and segments follow in NumPy.
"""

import importlib.util
import statistics
import timeit
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from meta_ood.data import files
from meta_ood.data.overlays import Picture
from meta_ood.detector.detector import Detector

Floats = npt.NDArray[np.float32]
Runner = Callable[[Floats], Floats]  # from (1, 3, H, W) images to logits


@dataclass(frozen=True)
class Agreement:
    """How an export and its network agree on images."""

    frames: int  # how many images were compared
    segments: int  # how many the network's detector found in them
    logits: float  # largest difference
    pixels: int  # OoD by one and not by the other
    other: tuple[str, ...]  # names of the images whose segments differ in number, box, size or decision


def export(network: nn.Module, path: Path, size: tuple[int, ...] | None = None) -> Runner:
    """Write a network as ONNX (``.onnx``) or as a ``torch.export`` program, for images of `size` or of any (None).

    Puts the network into eval mode on the CPU, and returns what the file computes there, by onnxruntime or torch.
    ValueError if the packages for ONNX are not installed, or the exporter cannot follow the network.
    """
    is_onnx = path.suffix == ".onnx"
    if is_onnx and not all(map(importlib.util.find_spec, ("onnx", "onnxscript", "onnxruntime"))):
        raise ValueError("ONNX needs more packages: pip install 'meta-ood[export]'")
    example = (torch.rand(1, 3, *(size or (128, 256)), generator=torch.Generator().manual_seed(0)),)
    free = None if size else ({2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO},)
    with files.replacing(path) as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporters, about their own future
        try:
            program = torch.export.export(network.cpu().eval(), example, dynamic_shapes=free)
            if is_onnx:
                # operator set 18 is the oldest that the exporter writes directly
                options: dict[str, Any] = {"opset_version": 18, "external_data": False, "verbose": False}
                options |= {"input_names": ["image"], "output_names": ["logits"]}
                torch.onnx.export(program, (), str(temporary), dynamo=True, **options)
            else:
                torch.export.save(program, temporary)
        except OSError:  # a full disk says enough
            raise
        except Exception as error:  # each exporter raises kinds of its own
            raise ValueError(_refusal(network, size, error)) from error
    if is_onnx:
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        return lambda image: session.run(None, {"image": image})[0]
    return network_runner(torch.export.load(path).module())


def _refusal(network: nn.Module, size: tuple[int, ...] | None, error: Exception) -> str:
    """Return one line of why a network cannot be written for a size or any, and what to try."""
    sizes = "x".join(map(str, size)) if size else "any size"
    reason = next(filter(None, map(str.strip, str(error).splitlines())), "no reason given")
    remedy = "" if size else "; infer.size in params.yaml makes detectors of one size, which more networks take"
    return f"{type(network).__name__} cannot be exported for {sizes}: {type(error).__name__}: {reason[:300]}{remedy}"


def network_runner(network: nn.Module) -> Runner:
    """Return a function that calls a network, which is in eval mode on the CPU."""

    @torch.inference_mode()
    def run(images: Floats) -> Floats:
        logits: Floats = network(torch.from_numpy(images)).float().numpy()
        return logits

    return run


def check(network: nn.Module, run: Runner, size: tuple[int, ...] | None = None) -> float:
    """Return the largest difference of logits between an export and its network, on noise of `size`, or of three sizes.

    ValueError if the logits differ in shape or by more than 1e-4; the size is named.
    """
    reference = network_runner(network)
    generator = np.random.default_rng(0)
    largest = 0.0
    # [px] most of the three are not the size of the example
    for height, width in [size] if size else [(96, 160), (128, 256), (200, 333)]:
        image = generator.random((1, 3, height, width), np.float32)
        expected, got = reference(image), run(image)
        if expected.shape != got.shape:
            raise ValueError(f"{height} x {width}: logits {got.shape}, expected {expected.shape}")
        difference = float(np.abs(expected - got).max())
        if not difference <= 1e-4:  # ten times the rounding observed in float32
            raise ValueError(f"{height} x {width}: logits differ by {difference:g}, at most 0.0001")
        largest = max(largest, difference)
    return largest


class Exported(nn.Module):
    """An export as a module, which a detector calls instead of the network."""

    def __init__(self, network: nn.Module, run: Runner) -> None:
        super().__init__()
        self.align_corners = getattr(network, "align_corners", True)
        self.output_stride = getattr(network, "output_stride", 1)
        self.input_size = getattr(network, "input_size", None)
        self._run = run

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits of ``(1, 3, H, W)`` images in [0, 1]."""
        return torch.from_numpy(self._run(np.ascontiguousarray(images.numpy())))


def compare(detector: Detector, run: Runner, images: Sequence[tuple[str, Picture]]) -> Agreement:
    """Compare what a detector on the CPU finds with its network and with what was exported from it.

    `images` are names and ``(H, W, 3) uint8`` RGB, of any sizes.
    """
    if stored := detector.settings.infer.scores:
        raise ValueError(f"an export gives logits alone: detectors with {', '.join(stored)} cannot be compared")
    exported = Detector(Exported(detector.network, run), detector.settings, detector.classifier, "cpu")
    segments = pixels = 0
    largest = 0.0
    different = []
    for name, image in images:
        a, b = detector.predict(image), exported.predict(image)
        largest = max(largest, float(np.abs(a.logits - b.logits).max()))
        ours, theirs = detector.judge(a, image), exported.judge(b, image)
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
