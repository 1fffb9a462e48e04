"""From file to finished table at 1024 x 2048, C = 19: ours, NumPy / SciPy, published, the limit.

    PYTHONPATH=src python benchmarks/segments.py [--frames 9] [--only DeepLabv3+]

Medians of warm calls, wall clock and, in brackets, processor time of all threads: on a busy machine the latter is the
fairer figure. Frames are made up: sure everywhere but in round blobs, which are the segments; some of them lie on true
components. "published" is what the authors' code took on a machine of the same kind: mask, components and
true components, from HDF5.
"""

from __future__ import annotations

import argparse
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from scipy import ndimage

from meta_ood.data.labels import IGNORE, OOD
from meta_ood.data.prediction_files import read_prediction, write_prediction
from meta_ood.data.predictions import Prediction
from meta_ood.scores import _kernel
from meta_ood.scores.maps import Workspace, pixel_maps
from meta_ood.segments import measure_segments

SIZE, CLASSES = (1024, 2048), 19
CASES = {"sparse": (20, 0.01, 6.7), "dense": (500, 0.10, 8.1)}
STRIDES = {"DeepLabv3+": 2, "DualGCNNet": 8}
LIMIT = {1: 0.10, 2: 0.06}  # [s] what a frame may take on so many cores
NAMES = [str(c) for c in range(CLASSES)]


def made_up(blobs: int, share: float, stride: int, seed: int = 0) -> Prediction:
    """Return a frame with about so many segments on about that share of its pixels."""
    rng = np.random.default_rng(seed)
    height, width = SIZE[0] // stride, SIZE[1] // stride
    regions = rng.integers(0, CLASSES, (16, 32)).repeat(height // 16, 0).repeat(width // 32, 1)
    logits = rng.standard_normal((CLASSES, height, width)).astype(np.float32)
    np.put_along_axis(logits, regions[None], 12, axis=0)
    target, label_ids = np.zeros(SIZE, np.uint8), np.ones(SIZE, np.uint8)
    target[:40] = IGNORE
    across = math.ceil(math.sqrt(2 * blobs))
    down = math.ceil(blobs / across)
    radius = math.sqrt(share * SIZE[0] * SIZE[1] / blobs / math.pi) / stride
    rows, columns = np.ogrid[:height, :width]
    for index in range(blobs):
        row = (index // across + 0.5 + 0.1 * rng.uniform(-1, 1)) * height / down
        column = (index % across + 0.5 + 0.1 * rng.uniform(-1, 1)) * width / across
        part = (
            slice(max(int(row - radius) - 1, 0), int(row + radius) + 2),
            slice(max(int(column - radius) - 1, 0), int(column + radius) + 2),
        )
        inside = (rows[part[0]] - row) ** 2 + (columns[:, part[1]] - column) ** 2 < radius**2
        logits[:, *part][:, inside] *= 0.05
        if index % 3 == 0:
            r, c, size = int(row * stride), int(column * stride), int(radius * stride)
            target[r : r + size, c : c + size] = OOD
            label_ids[r : r + size, c : c + size] = 2 + index % 42
    return Prediction(f"frame_{seed}", logits, SIZE, True, target, "scene", label_ids=label_ids)


def numpy_scipy(prediction: Prediction) -> tuple[np.ndarray, np.ndarray]:
    """Do the same in clear NumPy and SciPy: features and adjusted IoU of the segments."""
    low, high, weight = _between(prediction.logits.shape[1], SIZE[0])
    rows = prediction.logits[:, low] * (1 - weight)[:, None]
    rows += prediction.logits[:, high] * weight[:, None]
    low, high, weight = _between(prediction.logits.shape[2], SIZE[1])
    p = rows[..., low] * (1 - weight) + rows[..., high] * weight
    p -= p.max(0)
    np.exp(p, out=p)
    p /= p.sum(0)
    two = np.partition(p, CLASSES - 2, axis=0)[-2:]
    arg_max = p.argmax(0)
    entropy = -(p * np.log(p + np.float32(2**-23))).sum(0) / np.log(CLASSES)
    heats = {"E": entropy, "D": 1 - two[1] + two[0], "V": 1 - two[1]}
    predicted = (entropy >= 0.7) & (prediction.target != IGNORE)
    true = prediction.target == OOD
    cross = np.ones((3, 3))
    inner = ndimage.binary_erosion(predicted, cross, border_value=1)
    labels, count = ndimage.label(predicted, cross)
    index = np.arange(1, count + 1)

    def sums(values: np.ndarray, where: np.ndarray | bool = True) -> np.ndarray:
        return np.bincount(labels[predicted & where], values[predicted & where], count + 1)[1:]

    ones = np.ones(SIZE)
    size, inside = sums(ones), sums(ones, inner)
    bound = np.maximum(size - inside, 1)
    columns = [size, inside, size - inside, size / bound, inside / bound]
    columns += [sums(coordinate) / size for coordinate in np.indices(SIZE, float)]
    for heat in heats.values():
        heat = heat.astype(float)
        parts = []
        for where, n in ((True, size), (inner, inside), (~inner, size - inside)):
            mean = sums(heat, where) / np.maximum(n, 1)
            parts.append((mean, sums(heat * heat, where) / np.maximum(n, 1) - mean**2))
        columns += [value for pair in parts for value in pair]
        columns += [parts[i][j] * columns[3 + i] for i in (0, 1) for j in (0, 1)]
    columns += [sums(p[c]) / size for c in range(CLASSES)]
    pairs = np.zeros((count + 1, CLASSES))
    padded, outside = np.pad(labels, 1), np.pad(~predicted, 1)
    classes = np.pad(arg_max, 1)
    here = padded[1:-1, 1:-1]
    for dy in (0, 1, 2):
        for dx in (0, 1, 2):
            view = np.s_[dy : dy + SIZE[0], dx : dx + SIZE[1]]
            touch = (here > 0) & outside[view]
            np.add.at(pairs, (here[touch], classes[view][touch]), 1)
    columns += list((pairs[1:] / np.maximum(pairs[1:].sum(1, keepdims=True), 1)).T)
    rest, rest_count = ndimage.label(true & ~predicted, cross)
    rest_size = np.bincount(rest.ravel(), minlength=rest_count + 1)
    common = sums(true.astype(float))
    union = size.copy()
    for k, box in zip(index, ndimage.find_objects(labels), strict=True):
        if common[k - 1]:
            box = tuple(slice(max(s.start - 1, 0), s.stop + 1) for s in box)
            around = ndimage.binary_dilation(labels[box] == k, cross)
            union[k - 1] += rest_size[np.setdiff1d(rest[box][around], [0])].sum()
    return np.stack(columns, 1), common / union


def _between(small: int, large: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    position = np.arange(large, dtype=np.float32) * np.float32((small - 1) / (large - 1))
    low = np.minimum(position.astype(int), small - 1)
    return low, np.minimum(low + 1, small - 1), (position - low).astype(np.float32)


_memory = Workspace()


def file_to_table(path: Path, threads: int = 1, workspace: Workspace | None = None) -> int:
    """Measure one stored frame; return the number of segments."""
    workspace = workspace or _memory
    prediction = read_prediction(path, workspace.allocator("logits"))
    return len(measure_segments(prediction, workspace=workspace, threads=threads).image)


def seconds(function: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Return the median wall and processor time [s] of warm calls."""
    function()
    wall, processor = [], []
    for _ in range(repeats):
        start, busy = time.perf_counter(), time.process_time()
        function()
        processor.append(time.process_time() - busy)
        wall.append(time.perf_counter() - start)
    return statistics.median(wall), statistics.median(processor)


def frames_on(paths: list[Path], repeats: int, kind: str) -> tuple[float, float]:
    """Return the time a frame of two workers, `kind` threads or processes."""
    if kind == "threads":
        spaces = [Workspace(), Workspace()]

        def half(index: int) -> None:
            for path in paths[index::2]:
                file_to_table(path, 1, spaces[index])

        with ThreadPoolExecutor(2) as pool:
            wall, busy = seconds(lambda: list(pool.map(half, (0, 1))), repeats)
        return wall / len(paths), busy / len(paths)
    with ProcessPoolExecutor(2) as processes:
        wall, _ = seconds(lambda: list(processes.map(file_to_table, paths)), repeats)
    return wall / len(paths), math.nan


def peak_memory(path: Path) -> float:
    """Return the peak resident memory [MB] of a process that measures a frame five times."""
    code = (
        "import sys; from pathlib import Path; from meta_ood.scores.maps import Workspace;"
        "from meta_ood.data.prediction_files import read_prediction;"
        "from meta_ood.segments import measure_segments; w = Workspace();"
        "read = lambda: read_prediction(Path(sys.argv[1]), w.allocator('logits'));"
        "[measure_segments(read(), workspace=w) for _ in range(5)];"
        "print(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])"
    )
    out = subprocess.run([sys.executable, "-c", code, path], capture_output=True, check=True)
    return int(out.stdout) / 1024


def limits(repeats: int) -> tuple[float, float, float]:
    """Return this core's limits.

    Exponentials a second of np.exp and of the kernel, statistics included, on a block that stays in the cache and needs
    no up-sampling; bytes a second of a copy (read + written).
    """
    small = np.random.default_rng(0).uniform(-20, 0, 16384).astype(np.float32)
    result = np.empty_like(small)
    many = seconds(lambda: [np.exp(small, out=result) for _ in range(200)], repeats)[1]
    logits = np.random.default_rng(0).standard_normal((CLASSES, 64, 256), np.float32)
    block = Prediction("block", logits, (64, 256), True, np.zeros((64, 256), np.uint8))
    wanted, memory = ("entropy", "arg_max"), Workspace()
    own = seconds(lambda: [pixel_maps(block, wanted, memory) for _ in range(50)], repeats)[1]
    large = np.ones(2**24, np.float32)
    copy = np.empty_like(large)
    copied = 2 * large.nbytes / seconds(lambda: np.copyto(copy, large), 5)[1]
    return 200 * small.size / many, 50 * logits.size / own, copied


def row(what: str, ours: tuple[float, float], reference: float = math.nan, limit: float = math.nan) -> None:
    """Print one line of the table."""
    ratio = reference / ours[0]
    texts = [" " * 8 if math.isnan(v) else f"{v:8.3f}" for v in (reference, limit)]
    times = "" if math.isnan(ratio) else f"{ratio:.0f}x"
    busy = "" if math.isnan(ours[1]) else f"({ours[1]:.3f})"
    print(f"{what:42} {ours[0]:7.3f} {busy:>8} {texts[0]} {times:>6} {texts[1]}", flush=True)


def report(paths: list[Path], published: float, repeats: int, exps: float, copied: float) -> None:
    """Measure everything about one kind of frame."""
    prediction, memory = read_prediction(paths[0]), Workspace()
    table = measure_segments(prediction)
    pixels = SIZE[0] * SIZE[1]
    print(
        f"{len(table.image)} segments on {table.segment_size.sum() / pixels:.1%} of the pixels, "
        f"{len(table.component_image)} components, {paths[0].stat().st_size} bytes"
    )
    wanted = ("entropy", "arg_max")
    limit = CLASSES * pixels / exps + (prediction.logits.nbytes + 5 * pixels) / copied
    row(
        "read (limit: copy)",
        seconds(lambda: read_prediction(paths[0], memory.allocator("logits")), repeats),
        limit=1.5 * prediction.logits.nbytes / copied,
    )
    row(
        "pixels, 1 thread (limit: exp and copy)",
        seconds(lambda: pixel_maps(prediction, wanted, memory), repeats),
        limit=limit,
    )
    row("pixels, all maps", seconds(lambda: pixel_maps(prediction, workspace=memory), repeats))
    row("pixels, 2 threads", seconds(lambda: pixel_maps(prediction, wanted, memory, 2), repeats), limit=limit / 2)
    start = time.perf_counter()
    numpy_scipy(prediction)
    slow = time.perf_counter() - start
    row(
        "measure (reference: NumPy and SciPy)",
        seconds(lambda: measure_segments(prediction, workspace=memory), repeats),
        slow,
    )

    def five_thresholds() -> None:
        maps = pixel_maps(prediction, wanted, memory)
        for threshold in (0.5, 0.6, 0.7, 0.8, 0.9):
            measure_segments(prediction, "entropy", threshold, memory, maps=maps)

    row("measure at five thresholds", seconds(five_thresholds, repeats))
    row(
        "file to table, 1 core (ref.: published)",
        seconds(lambda: file_to_table(paths[0]), repeats),
        published,
        LIMIT[1],
    )
    row(
        "file to table, one frame on 2 threads",
        seconds(lambda: file_to_table(paths[0], 2), repeats),
        published,
        LIMIT[2],
    )
    for kind in ("threads", "processes"):
        row(f"file to table, frames on 2 {kind}", frames_on(paths, max(repeats // 3, 3), kind), published, LIMIT[2])
    print(f"{'peak memory of a worker [MB]':42} {peak_memory(paths[0]):7.0f} {'':25} {250:8}\n")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=9, help="calls behind a median")
    parser.add_argument("--only", choices=list(STRIDES), help="one network")
    options = parser.parse_args()
    exps, own, copied = limits(options.frames)
    print(
        f"instruction set {_kernel.instruction_set()}; one core: np.exp {exps / 1e9:.2f} G/s, "
        f"kernel in the cache {own / 1e9:.2f} G/s, copy {copied / 1e9:.1f} GB/s\n"
        f"{'[s]':42} {'wall':>7} {'(cpu)':>8} {'ref.':>8} {'ratio':>6} {'limit':>8}"
    )
    with tempfile.TemporaryDirectory() as folder:
        for network, stride in STRIDES.items():
            for case, (blobs, share, published) in CASES.items():
                if options.only in (None, network):
                    print(f"-- {network}, {case}: ", end="")
                    paths = [Path(folder, f"{network}_{case}_{seed}.h5") for seed in range(4)]
                    for seed, path in enumerate(paths):
                        frame = made_up(blobs, share, stride, seed)
                        write_prediction(path, frame, class_names=NAMES, network=network, weights_sha256="")
                    report(paths, published, options.frames, max(exps, own), copied)


if __name__ == "__main__":
    main()
