"""Numerics of reduced precision: the same frames in float32, TF32 and bfloat16.

    python benchmarks/precision.py data/prepare/lost_and_found data/networks/*/*.safetensors
    python benchmarks/precision.py data/prepare/lost_and_found --filled dualgcnnet_r50 --frames 8

For every weights file: the change of the entropy, of AUROC, AUPRC and FPR95, and of the segments. ``--filled`` takes
published architectures at their full size with random weights, see `fill`: their AUROC says nothing, but its change
does. Their logits are spread to a standard deviation of 3, about that of trained networks, lest
every pixel have the same entropy; the threshold of the segments is the entropy that a tenth of the pixels reach.

A CPU has no TF32 and may have no bfloat16. They are then emulated: every convolution and matrix product gets operands
rounded to nearest as the tensor cores do (10 or 7 bits of mantissa) and sums in float32; what bfloat16 stores between
the products is bfloat16, as under autocast.
"""

from __future__ import annotations

import argparse
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from meta_ood import models
from meta_ood.data.frames import read_frames
from meta_ood.data.predictions import Prediction
from meta_ood.inference.batches import Sample, read
from meta_ood.metrics.pixel import ScoreHistogram, pixel_metrics
from meta_ood.models import checkpoint
from meta_ood.models.device import set_tf32
from meta_ood.scores import score_maps
from meta_ood.segments.measure import label_map, measure_segments

THRESHOLD = 0.7
SPREAD = 3.0
"""Standard deviation that the logits of filled networks are brought to."""
PRODUCTS = ("convolution", "mm", "bmm", "addmm", "baddbmm")


class Emulated(TorchDispatchMode):
    """Products of operands as the tensor cores take them, summed in float32."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        """Round operands to TF32 and bfloat16 results to bfloat16; other operations as they are."""
        if func.overloadpacket.__name__ not in PRODUCTS:
            return func(*args, **(kwargs or {}))
        tensors = [a for a in args if isinstance(a, Tensor)]
        half = any(a.dtype == torch.bfloat16 for a in tensors)
        rounded = [(a.float() if half else round_to_tf32(a)) if isinstance(a, Tensor) else a for a in args]
        result = func(*rounded, **(kwargs or {}))
        return result.bfloat16() if half else result


def round_to_tf32(values: Tensor) -> Tensor:
    """Round float32 to 10 bits of mantissa, to nearest, ties away from zero."""
    bits = values.contiguous().view(torch.int32)
    return ((bits + 0x1000) & ~0x1FFF).view(torch.float32)


@contextmanager
def computing(precision: str, device: str) -> Iterator[None]:
    """Compute in a precision; `` emulated`` after it asks for the emulation."""
    name, _, emulated = precision.partition(" ")
    set_tf32(name, torch.device(device))
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())  # in inference mode no product would be seen
        stack.enter_context(torch.autocast(device, torch.bfloat16, enabled=name == "bfloat16"))
        if emulated:
            stack.enter_context(Emulated())
        yield


def predict(network: nn.Module, sample: Sample, precision: str, device: str, scale: float = 1.0) -> Prediction:
    """Infer one frame; the logits are multiplied by `scale`."""
    image = sample.image[None].to(device, memory_format=torch.channels_last).float() / 255
    with computing(precision, device):
        logits = network(image)[0].float().cpu().numpy() * np.float32(scale)
    target = sample.target.numpy()
    return Prediction("frame", logits, target.shape, bool(network.align_corners), target)


def figures(predictions: list[Prediction], threshold: float) -> dict[str, float]:
    """Return pixel metrics and segment counts over all frames."""
    histogram = ScoreHistogram()
    counts = dict.fromkeys(("segments", "FP", "FN"), 0)
    for prediction in predictions:
        histogram += ScoreHistogram.of(entropy(prediction), prediction.target)
        table = measure_segments(prediction, "entropy", threshold)
        counts["segments"] += len(table.iou)
        counts["FP"] += int(table.is_false.sum())
        counts["FN"] += int(table.is_missed.sum())
    pixels = pixel_metrics(histogram)
    return {"AUROC": pixels.auroc, "AUPRC": pixels.auprc, "FPR95": pixels.fpr95, **counts}


def entropy(prediction: Prediction) -> np.ndarray:
    """Return the entropy at full size."""
    return score_maps(prediction, ["entropy"])["entropy"]


def share_kept(plain: list[np.ndarray], other: list[np.ndarray], threshold: float) -> float:
    """Return the share of the float32 segments that the other has too, with an IoU above 0.9."""
    kept = number = 0
    for a, b in zip(plain, other, strict=True):
        first, second = label_map(a >= threshold), label_map(b >= threshold)
        both = (first > 0) & (second > 0)
        pairs, common = np.unique(np.stack([first[both], second[both]]), axis=1, return_counts=True)
        sizes, others = np.bincount(first.ravel()), np.bincount(second.ravel())
        union = sizes[pairs[0]] + others[pairs[1]] - common
        kept += int((common / union > 0.9).sum())
        number += int(first.max())
    return kept / max(number, 1)


def filled(architecture: str) -> nn.Module:
    """Build a published network with the random weights of :func:`fill`."""
    with torch.device("meta"):
        network = models.build(architecture, 19)
    network.load_state_dict(
        {key: fill(key, tuple(value.shape)) for key, value in network.state_dict().items()}, assign=True
    )
    return network


def fill(key: str, shape: tuple[int, ...]) -> Tensor:
    """Return the documented weights of one entry of a state dict."""
    last = key.rsplit(".", 1)[-1]
    if last == "num_batches_tracked":
        return torch.tensor(0)
    n = np.random.RandomState(zlib.crc32(key.encode())).standard_normal(shape)
    if last == "running_var":
        n = 1 + 0.1 * np.abs(n)
    elif last == "weight":
        n = n * np.sqrt(1 / np.prod(shape[1:])) if n.ndim > 1 else 1 + 0.1 * n
    else:
        n *= 0.1
    if key == "head.dualgcn.bn3.weight":  # its input grows with the number of pixels
        n *= 1e-4
    return torch.from_numpy(n.astype(np.float32))


def compare(network: nn.Module, samples: list[Sample], precisions: Sequence[str], device: str, random: bool) -> None:
    """Print what each precision changes against float32."""
    network = network.eval().to(device, memory_format=torch.channels_last)
    scale = 1.0
    if random:
        scale = SPREAD / float(predict(network, samples[0], "float32", device).logits.std())
    exact = [predict(network, s, "float32", device, scale) for s in samples]
    plain = [entropy(p) for p in exact]
    threshold = float(np.quantile(np.stack(plain), 0.9)) if random else THRESHOLD
    for precision in ("float32", *precisions):
        predictions = exact
        if precision != "float32":
            predictions = [predict(network, s, precision, device, scale) for s in samples]
        maps = [entropy(p) for p in predictions]
        change = np.abs(np.stack(maps) - np.stack(plain))
        crossed = (np.stack(maps) >= threshold) != (np.stack(plain) >= threshold)
        classes = np.mean([
            (p.logits.argmax(0) != q.logits.argmax(0)).mean()
            for p, q in zip(predictions, exact, strict=True)
        ])  # fmt: skip
        numbers = ", ".join(
            f"{k} {v:.5f}" if isinstance(v, float) else f"{k} {v}" for k, v in figures(predictions, threshold).items()
        )
        print(
            f"  {precision:<17} entropy change: mean {change.mean():.1e} "
            f"99.9% {np.quantile(change, 0.999):.1e} largest {change.max():.1e}; "
            f"other class {classes:.3%}, across {threshold:.3f} {crossed.mean():.3%}, "
            f"segments kept {share_kept(plain, maps, threshold):.2%}\n"
            f"                    {numbers}",
            flush=True,
        )


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("prepared", type=Path)
    parser.add_argument("weights", type=Path, nargs="*")
    parser.add_argument("--filled", nargs="*", default=[], help="published architectures")
    parser.add_argument("--root", type=Path, default=Path.cwd(), help="of the frames' paths")
    parser.add_argument("--frames", type=int, default=1000)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    device = options.device
    frames = list(read_frames(options.prepared, options.root))
    samples = [read(frame) for frame in frames[:: max(len(frames) // options.frames, 1)]]
    samples = samples[: options.frames]
    emulated = ("tf32 emulated", "bfloat16 emulated")
    own = ("bfloat16",) if device == "cpu" else ("tf32", "bfloat16")
    networks: list[tuple[str, Callable[[], nn.Module], tuple[str, ...], bool]] = []
    for path in options.weights:
        about = checkpoint.read_metadata(path)
        name = f"{about['name']} {about['variant']}"
        networks.append((name, lambda path=path: checkpoint.load(path)[0], emulated + own, False))
    for name in options.filled:
        ways = emulated if device == "cpu" else own
        networks.append((f"{name}, filled", lambda name=name: filled(name), ways, True))
    for name, make, precisions, random in networks:
        print(f"\n{name}, {len(samples)} frames of {tuple(samples[0].target.shape)}, {device}")
        compare(make(), samples, precisions, device, random)


if __name__ == "__main__":
    main()
