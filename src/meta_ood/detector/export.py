"""Networks for other runtimes: ONNX and torch.export programs, checked against the network itself.

Both take one image ``(1, 3, H, W) float32`` in [0, 1], of any size or of the one that the detector gives its network
(``infer.size``), and return the logits at the network's own stride; scores and segments follow in NumPy.
"""

import contextlib
import importlib.util
import io
import logging
import statistics
import timeit
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from meta_ood.data import files
from meta_ood.data.images import read_image
from meta_ood.data.overlays import Picture
from meta_ood.detector.detector import Detector
from meta_ood.detector.folder import WEIGHTS
from meta_ood.detector.images import find_images

Floats = npt.NDArray[np.float32]
Runner = Callable[[Floats], Floats]  # from (1, 3, H, W) images to logits
WEIGHTS_PROPERTY = "meta_ood.weights"  # of an ONNX file: SHA-256 of the weights file
CALIBRATION = 8  # photos, at most, that ranges of 8 bits are taken from
PACKAGES = "ONNX needs more packages: pip install 'meta-ood[export]'"


@dataclass(frozen=True)
class Agreement:
    """How an export and its network agree on images."""

    frames: int  # how many images were compared
    segments: int  # how many the network's detector found in them
    logits: float  # largest difference
    pixels: int  # OoD by one and not by the other
    other: tuple[str, ...]  # names of the images whose segments differ in number, box, size or decision


def export(network: nn.Module, path: Path, size: tuple[int, ...] | None = None, weights: str = "") -> Runner:
    """Write a network as ONNX (``.onnx``) or as a ``torch.export`` program, for images of `size` or of any (None).

    An ONNX file also holds `weights`, the hash of the network's file, by which :func:`with_onnx` knows it again. The
    network goes into eval mode on the CPU. Returns what the file computes there, by onnxruntime or torch.

    ValueError if the packages for ONNX are not installed, or the exporter cannot follow the network.
    """
    is_onnx = path.suffix == ".onnx"
    if is_onnx and not all(map(importlib.util.find_spec, ("onnx", "onnxscript", "onnxruntime"))):
        raise ValueError(PACKAGES)
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
                _describe(temporary, {WEIGHTS_PROPERTY: weights})
            else:
                torch.export.save(program, temporary)
        except OSError:  # a full disk says enough
            raise
        except Exception as error:  # each exporter raises kinds of its own
            raise ValueError(_refusal(network, size, error)) from error
    return onnx_runner(path)[0] if is_onnx else network_runner(torch.export.load(path).module())


def _describe(path: Path, properties: dict[str, str]) -> None:
    """Write properties into an ONNX file."""
    import onnx

    model = onnx.load(path)
    onnx.helper.set_model_props(model, properties)
    onnx.save(model, path)


def onnx_runner(path: Path, threads: int = 0) -> tuple[Runner, dict[str, str]]:
    """Return what an ONNX file computes on the CPU, by this number of threads (0: all cores), and its properties.

    ValueError if onnxruntime is not installed, or cannot read the file, which is named.
    """
    try:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except ImportError as error:
        raise ValueError(PACKAGES) from error
    except Exception as error:  # onnxruntime's own kinds
        raise ValueError(f"{path}: not an ONNX file that onnxruntime can run: {error}") from error
    return lambda image: session.run(None, {"image": image})[0], session.get_modelmeta().custom_metadata_map


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


def calibration_images(folder: Path) -> Iterator[Picture]:
    """Yield at most :data:`CALIBRATION` of the images below a folder, spread over them, as RGB."""
    found = find_images([folder])
    yield from (read_image(file) for _, file in found[:: -(-len(found) // CALIBRATION)])


def quantise(detector: Detector, path: Path, target: Path, images: Iterable[Picture]) -> Runner:
    """Write an ONNX file of :func:`export` again, with weights and activations of 8 bits; return what that computes.

    Static quantisation: the range of an activation is that of all but the outermost 0.001 % of its values (percentile
    of onnxruntime) in what the network of `detector` sees of `images`, ``(H, W, 3) uint8`` RGB; that of weights is
    found for each channel. What was tried and what it costs: docs/results/speed.md.
    """
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    # 1. what the network sees
    reference = network_runner(detector.network)
    seen: list[Floats] = []

    def run(image: Floats) -> Floats:
        seen.append(image)
        return reference(image)

    watched = exported(detector, run)
    for image in images:
        watched.predict(image)
    given = iter(seen)

    class Images(quantization.CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, Floats] | None:
            image = next(given, None)
            return None if image is None else {"image": image}

    # 2. the ranges of that, one image in memory at a time; onnxruntime prints how it goes
    kinds = quantization.QuantType
    with files.replacing(target) as temporary, contextlib.redirect_stdout(io.StringIO()), _quiet():
        prepared = temporary.with_suffix(".prepared")
        try:
            quant_pre_process(str(path), str(prepared), skip_symbolic_shape=True)  # it needs fixed sizes
            quantization.quantize_static(
                *(str(prepared), str(temporary), Images()),
                activation_type=kinds.QUInt8,
                weight_type=kinds.QInt8,
                per_channel=True,
                calibrate_method=quantization.CalibrationMethod.Percentile,
                extra_options={"CalibMaxIntermediateOutputs": 1},
            )
        finally:
            prepared.unlink(missing_ok=True)
        _describe(temporary, onnx_runner(path)[1])
    return onnx_runner(target)[0]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep onnxruntime's advice about its preparation out of the output."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def check(network: nn.Module, run: Runner, size: tuple[int, ...] | None = None) -> float:
    """Return the largest difference of logits between an export and its network, on noise of `size`, or of three sizes.

    ValueError if the logits differ in shape or by more than 1e-4 of the largest (of 1, if that is less); the size is
    named.
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
        most = 1e-4 * max(1.0, float(np.abs(expected).max()))  # ten times the rounding observed in float32
        if not difference <= most:
            raise ValueError(f"{height} x {width}: logits differ by {difference:g}, at most {most:g}")
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
        """Return the logits of ``(N, 3, H, W)`` images in [0, 1], which go through one by one."""
        given = np.ascontiguousarray(images.numpy())
        return torch.from_numpy(np.concatenate([self._run(given[place : place + 1]) for place in range(len(given))]))


def exported(detector: Detector, run: Runner, embed: bool = False) -> Detector:
    """Return a detector on the CPU that computes its network by an export, `embed` as in :meth:`Detector.load`.

    ValueError if it needs more than logits, or would show an export of one size others.
    """
    infer = detector.settings.infer
    if infer.scores:
        raise ValueError(f"an export gives logits alone: detectors with {', '.join(infer.scores)} need the network")
    if infer.size and (infer.tile or infer.scales != (1.0,)):
        raise ValueError(
            "an export takes images of infer.size alone: detectors with infer.scales or infer.tile need more"
        )
    return Detector(Exported(detector.network, run), detector.settings, detector.classifier, "cpu", embed=embed)


def with_onnx(detector: Detector, path: Path, embed: bool = False) -> Detector:
    """Return a detector that computes its network by an ONNX file of :func:`export`, on the CPU and one thread.

    ValueError as by :func:`exported`, or if the file is none, or that of other weights.
    """
    run, properties = onnx_runner(path, threads=1)
    if properties.get(WEIGHTS_PROPERTY) != detector.settings.files[WEIGHTS]:
        raise ValueError(f"{path} holds other weights than the detector: make it of this one by `meta-ood export`")
    return exported(detector, run, embed)


def compare(detector: Detector, run: Runner, images: Sequence[tuple[str, Picture]]) -> Agreement:
    """Compare what a detector on the CPU finds with its network and with what was exported from it.

    `images` are names and ``(H, W, 3) uint8`` RGB, of any sizes.
    """
    other = exported(detector, run)
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
