"""Numerics of reduced precision: the same frames in float32 and in bfloat16 (on a GPU also TF32).

    python benchmarks/precision.py data/prepare/lost_and_found data/networks/*/*.safetensors

For every weights file: the change of the entropy, of AUROC, AUPRC and FPR95, and of the segments.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from meta_ood.frames import read_frames
from meta_ood.loading import read
from meta_ood.metrics.pixel import ScoreHistogram, pixel_metrics
from meta_ood.models import checkpoint
from meta_ood.predictions import Prediction
from meta_ood.scores import score_maps
from meta_ood.segments.measure import measure_segments

THRESHOLD = 0.7


def predict(network, image, target, precision: str, device: str) -> Prediction:
    """Infer one frame."""
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    with (
        torch.inference_mode(),
        torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16"),
    ):
        logits = network(image[None].to(device).float() / 255)[0].float().cpu().numpy()
    return Prediction("frame", logits, target.shape, network.align_corners, target)


def figures(predictions: list[Prediction]) -> dict[str, float]:
    """Return pixel metrics and segment counts over all frames."""
    histogram = ScoreHistogram()
    segments = false = found = components = 0
    for prediction in predictions:
        histogram += ScoreHistogram.of(
            score_maps(prediction, ["entropy"])["entropy"], prediction.target
        )
        table = measure_segments(prediction, "entropy", THRESHOLD)
        segments += len(table.iou)
        false += int((table.iou == 0).sum())
        components += len(table.component_size)
        found += len(set(table.overlaps[:, 1].tolist()))
    pixels = pixel_metrics(histogram)
    return {
        "AUROC": pixels.auroc,
        "AUPRC": pixels.auprc,
        "FPR95": pixels.fpr95,
        "segments": segments,
        "FP": false,
        "FN": components - found,
    }


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("prepared", type=Path)
    parser.add_argument("weights", type=Path, nargs="+")
    parser.add_argument("--root", type=Path, default=Path.cwd(), help="of the frames' paths")
    parser.add_argument("--frames", type=int, default=1000)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    samples = [read(frame) for frame in read_frames(options.prepared, options.root)]
    samples = samples[: options.frames]
    reduced = ("bfloat16",) if options.device == "cpu" else ("tf32", "bfloat16")
    for path in options.weights:
        network, about = checkpoint.load(path)
        network = network.eval().to(options.device, memory_format=torch.channels_last)
        results = {}
        for precision in ("float32", *reduced):
            results[precision] = [
                predict(network, s.image, s.target.numpy(), precision, options.device)
                for s in samples
            ]
        plain = [score_maps(p, ["entropy"])["entropy"] for p in results["float32"]]
        print(f"\n{about['name']} {about['variant']}, {len(samples)} frames, {options.device}")
        for precision, predictions in results.items():
            change = np.concatenate([
                np.abs(score_maps(p, ["entropy"])["entropy"] - q).ravel()
                for p, q in zip(predictions, plain, strict=True)
            ])  # fmt: skip
            classes = np.mean([
                (p.logits.argmax(0) != q.logits.argmax(0)).mean()
                for p, q in zip(predictions, results["float32"], strict=True)
            ])  # fmt: skip
            crossed = np.mean([
                ((score_maps(p, ["entropy"])["entropy"] >= THRESHOLD) != (q >= THRESHOLD)).mean()
                for p, q in zip(predictions, plain, strict=True)
            ])  # fmt: skip
            numbers = ", ".join(
                f"{k} {v:.5f}" if isinstance(v, float) else f"{k} {v}"
                for k, v in figures(predictions).items()
            )
            print(
                f"  {precision:<9} entropy change: mean {change.mean():.1e} "
                f"99.9% {np.quantile(change, 0.999):.1e} largest {change.max():.1e}; "
                f"other class {classes:.2%}, across {THRESHOLD} {crossed:.3%}\n"
                f"            {numbers}"
            )


if __name__ == "__main__":
    main()
