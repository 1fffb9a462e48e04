"""Encodings of a stored prediction: bytes, times, and what each does to entropy and segments.

    PYTHONPATH=src python benchmarks/storage.py [--frames 5]

The first table takes one made-up frame of 1024 x 2048 with 19 classes for each network; times are medians of warm
calls, processor time in brackets. Rounding errors come from the demo's networks on all of its evaluation frames, so run
the demo first. "ours" is what meta_ood.data.storage writes.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import torch
from scipy import ndimage
from sklearn.metrics import roc_auc_score

from meta_ood import config
from meta_ood.data.context import Machine
from meta_ood.data.frames import read_frames
from meta_ood.data.labels import IGNORE, IN, OOD
from meta_ood.data.prediction_files import read_prediction, write_prediction
from meta_ood.data.predictions import Prediction
from meta_ood.inference import predict
from meta_ood.models import checkpoint
from meta_ood.scores.maps import pixel_maps
from segments import CASES, NAMES, STRIDES, made_up, seconds

Array = np.ndarray
PUBLISHED = 178_266_128  # [bytes] a frame: the full-size softmax in float32
LIMIT = {"DeepLabv3+": 20e6, "DualGCNNet": 1.3e6}


def fixed(values: Array, axes: tuple[int, ...]) -> tuple[Array, Array, Array]:
    """Return 16-bit integers with the scale and offset of each slice along the other axes."""
    low = values.min(axes, keepdims=True).astype(np.float64)
    scale = (values.max(axes, keepdims=True) - low) / 65535
    scale[scale == 0] = 1
    return (np.rint((values - low) / scale) - 32768).astype(np.int16), scale, low + 32768 * scale


def rounded(axes: tuple[int, ...]) -> Callable[[Array], Array]:
    """Return the function that rounds to fixed point and back."""

    def there_and_back(values: Array) -> Array:
        integers, scale, offset = fixed(values, axes)
        return (integers * scale + offset).astype(np.float32)

    return there_and_back


ROUNDED: dict[str, Callable[[Array], Array]] = {
    "half floats": lambda values: values.astype(np.float16).astype(np.float32),
    "half floats below the maximum": lambda v: (v - v.max(0)).astype(np.float16).astype(np.float32),
    "fixed point a frame": rounded((0, 1, 2)),
    "fixed point a class (ours)": rounded((1, 2)),
    "fixed point a class and row": rounded((2,)),
}
FILTERS: dict[str, dict[str, object]] = {
    "": {},
    ", checksum": {"fletcher32": True},
    ", lzf": {"compression": "lzf", "shuffle": True},
    ", gzip 1": {"compression": "gzip", "compression_opts": 1, "shuffle": True},
}


def files(frame: Prediction) -> Iterator[tuple[str, Callable[[Path], None], Callable[[Path], Array]]]:
    """Yield name, writer and reader of every encoding; readers return float32 logits."""

    def ours(path: Path) -> None:
        write_prediction(path, frame, class_names=NAMES, network="", weights_sha256="")

    yield "ours", ours, lambda path: read_prediction(path).logits

    for kind in ("float32", "float16", "int16"):
        for name, options in FILTERS.items():

            def write(path: Path, kind: str = kind, options: dict[str, object] = options) -> None:
                values = frame.logits.astype(kind) if kind != "int16" else fixed(frame.logits, (1, 2))[0]
                if options:
                    options = {**options, "chunks": (1, *values.shape[1:])}
                with h5py.File(path, "w") as file:
                    file.create_dataset("logits", data=values, **options)
                    file.create_dataset("target", data=frame.target, compression="gzip", chunks=True)

            def read(path: Path, kind: str = kind) -> Array:
                with h5py.File(path) as file:
                    file["target"][()]
                    return file["logits"][()].astype(np.float32)

            yield f"{kind}{name}", write, read


def sizes_and_times(repeats: int) -> None:
    """Print the first table."""
    print(f"{'encoding':34} {'bytes':>11} {'published':>9} {'aim':>9} {'write s':>15} {'read s':>15}")
    with tempfile.TemporaryDirectory() as folder:
        for network, stride in STRIDES.items():
            frame = made_up(*CASES["dense"][:2], stride)
            for name, write, read in files(frame):
                path = Path(folder, f"{network}.h5")
                written = seconds(lambda w=write, p=path: w(p), 1 if "gzip" in name else repeats)
                taken = seconds(lambda r=read, p=path: r(p), repeats)
                size = path.stat().st_size
                print(f"{network + ' ' + name:34} {size:11d} {PUBLISHED / size:8.1f}x "
                      f"{LIMIT[network]:9.2g} {written[0]:6.3f} ({written[1]:6.3f}) "
                      f"{taken[0]:6.3f} ({taken[1]:6.3f})", flush=True)  # fmt: skip


def demo_frames(network: str, params: config.Params) -> list[Prediction]:
    """Return the demo network's float32 predictions of all evaluation frames."""
    net, _ = checkpoint.load(Path("data/networks", network, "ood_trained.safetensors"))
    frames = [
        frame for dataset in params.evaluation_sets for frame in read_frames(Path("data/prepare", dataset), Path.cwd())
    ]
    return list(predict(net, frames, params.infer, Machine("cpu", 1)))


def changed_segments(before: Array, after: Array) -> int:
    """Count segments of either mask that are not one to one with a segment of the other."""
    first, one = ndimage.label(before, np.ones((3, 3)))
    second, other = ndimage.label(after, np.ones((3, 3)))
    pairs = set(zip(first[before & after], second[before & after], strict=True))
    lost, new = one - len({i for i, _ in pairs}), other - len({j for _, j in pairs})
    return int(lost + new + 2 * len(pairs) - len({i for i, _ in pairs}) - len({j for _, j in pairs}))


def errors() -> None:
    """Print the second table."""
    torch.set_num_threads(1)
    params = config.load(Path("params.yaml"))
    threshold = np.float32(params.segments.threshold)
    print(f"\n{'rounding':48} {'frames':>6} {'max |dH|':>9} {'mean |dH|':>9} {'dAUROC':>9} "
          f"{'pixels':>6} {'segments':>14}")  # fmt: skip
    for network in params.networks:
        frames = demo_frames(network, params)
        for name, there_and_back in ROUNDED.items():
            largest, mean, flipped, changed, segments = 0.0, [], 0, 0, 0
            truth, scores = [], ([], [])
            for frame in frames:
                target = frame.target
                again = Prediction("", there_and_back(frame.logits), frame.size,
                                   frame.align_corners, target)  # fmt: skip
                old, new = (pixel_maps(p, ["entropy"]).entropy for p in (frame, again))
                largest = max(largest, float(np.abs(old - new).max()))
                mean.append(np.abs(old - new).mean())
                masks = [(m >= threshold) & (target != IGNORE) for m in (old, new)]
                flipped += int((masks[0] != masks[1]).sum())
                changed += changed_segments(*masks)
                segments += ndimage.label(masks[0], np.ones((3, 3)))[1]
                counted = (target == OOD) | (target == IN)
                truth.append(target[counted] == OOD)
                for values, m in zip(scores, (old, new), strict=True):
                    values.append(m[counted])
            area = [roc_auc_score(np.concatenate(truth), np.concatenate(v)) for v in scores]
            what = f"{network} {name}"
            counts = f"{flipped:6} {changed:5} of {segments:5}"
            print(f"{what:48} {len(frames):6} {largest:9.1e} {np.mean(mean):9.1e} "
                  f"{area[1] - area[0]:9.1e} {counts}", flush=True)  # fmt: skip


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=5, help="calls behind a median")
    sizes_and_times(parser.parse_args().frames)
    errors()


if __name__ == "__main__":
    main()
