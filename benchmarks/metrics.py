"""Benchmark of the pixel metrics: counting, memory, merging; prints ours, reference, ratio, limit.

    python benchmarks/metrics.py [--frames 1203]

Times are CPU seconds of one process: other load on the machine changes them little. Ours is the mean over frames,
because several are counted together and cells are rebuilt now and then; merging is wall clock. Memory is the peak of a
process that does nothing but count.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from meta_ood.data.labels import IGNORE, IN, OOD
from meta_ood.metrics.pixel import ScoreHistogram, merge, pixel_metrics

SIZE = (1024, 2048)


def frames(count: int, start: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Make frames with 0.9 % OoD and 10 % void; independent pixels are the worst case."""
    bases = []
    for seed in range(3):
        r = np.random.default_rng(seed)
        score = r.beta(0.3, 5, SIZE).astype(np.float32)
        target = np.full(SIZE, IN, np.uint8)
        target[:100], target[500:560, 600:900] = IGNORE, OOD
        score[500:560, 600:900] = r.beta(3, 1, (60, 300))
        bases.append((score, target))
    for index in range(start, start + count):
        score, target = bases[index % 3]
        yield score * np.float32(1 - 1e-5 * index), target


def count_all(count: int) -> None:
    """Count all frames and print time, memory and the figures with their error bounds."""
    histogram, times = ScoreHistogram(), []
    for score, target in frames(count):
        begin = time.process_time()
        histogram.add(score, target)
        times.append(time.process_time() - begin)
    begin = time.process_time()
    m = pixel_metrics(histogram)
    finish = time.process_time() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{peak} {np.mean(times)} {finish}")
    print(
        f"AUROC {m.auroc:.8f} ± {m.auroc_error:.1e}, AUPRC {m.auprc:.8f} ± {m.auprc_error:.1e}, "
        f"FPR95 {m.fpr95:.8f} ± {m.fpr95_error:.1e}; {m.pixels} pixels, {m.positives} positives"
    )


def by_numpy() -> float:
    """Return seconds a frame of numpy.histogram with 100 bins, both classes."""
    times = []
    for score, target in frames(9):
        begin = time.process_time()
        np.histogram(score[target == IN], 100, (0, 1))
        np.histogram(score[target == OOD], 100, (0, 1))
        times.append(time.process_time() - begin)
    return float(np.median(times))


def by_sklearn(count: int = 3) -> tuple[float, float]:
    """Return seconds a frame of scikit-learn's three figures, and how far ours are from them."""
    from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

    maps = list(frames(count))
    histogram = merge(ScoreHistogram.of(*one) for one in maps)
    begin = time.process_time()
    score = np.concatenate([s[t != IGNORE] for s, t in maps])
    positive = np.concatenate([t[t != IGNORE] == OOD for _, t in maps])
    fpr, tpr, _ = roc_curve(positive, score, drop_intermediate=False)
    expected = np.array(
        [roc_auc_score(positive, score), average_precision_score(positive, score), fpr[np.argmax(tpr >= 0.95)]]
    )
    seconds = (time.process_time() - begin) / count
    m = pixel_metrics(histogram)
    return seconds, float(np.abs(expected - [m.auroc, m.auprc, m.fpr95]).max())


def merging(shards: int = 64, repeats: int = 5) -> float:
    """Return seconds to add up shards, median; eight different ones, each eight times."""
    parts = []
    for start in range(8):
        part = ScoreHistogram()
        for one in frames(6, 19 * start):
            part.add(*one)
        part.counts()
        parts.append(part)
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        merge(parts[i % 8] for i in range(shards)).counts()
        times.append(time.perf_counter() - begin)
    return float(np.median(times))


def same_bits(count: int = 14) -> bool:
    """Return whether 1, 2 and 7 workers and shuffled frames give one histogram."""
    maps = list(frames(count))
    results = []
    for workers in (1, 2, 7):
        with ThreadPoolExecutor(workers) as pool:
            chunks = [maps[i::workers] for i in range(workers)]
            parts = pool.map(lambda chunk: merge(ScoreHistogram.of(*m) for m in chunk), chunks)
            results.append(merge(parts))
    order = np.random.default_rng(0).permutation(count)
    results.append(merge(ScoreHistogram.of(*maps[i]) for i in order))
    return all(result == results[0] for result in results)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--frames", type=int, default=1203)
    parser.add_argument("--count", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.count:
        count_all(options.frames)
        return
    command = [sys.executable, __file__, "--count", "--frames", str(options.frames)]
    numbers, figures = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    peak, mean, finish = map(float, numbers.split())
    print(f"{options.frames} frames of {SIZE[0]} x {SIZE[1]}: {figures}")
    print(f"{'':<40}{'ours':>10}{'reference':>11}{'ratio':>8}  limit")

    def row(name: str, ours: float, reference: float, limit: str = "") -> None:
        ratio = ours / reference
        print(f"{name:<40}{ours:>10.2f}{reference:>11.2f}{ratio:>8.2f}  {limit}", flush=True)

    numpy_seconds = by_numpy()
    row("count a frame [ms] / numpy 100 bins", 1e3 * mean, 1e3 * numpy_seconds, "< reference")
    row("figures at the end [ms]", 1e3 * finish, float("nan"))
    row("peak memory [MB]", peak, 512.0, "512")
    row("merge 64 shards [s]", merging(), 1.0, "1")
    sklearn_seconds, difference = by_sklearn()
    row("count a frame [ms] / scikit-learn", 1e3 * mean, 1e3 * sklearn_seconds)
    print(f"largest difference from scikit-learn on 3 frames: {difference:.1e} (limit 1e-6)")
    print(f"same bits for 1, 2, 7 workers and shuffled frames: {same_bits()}")


if __name__ == "__main__":
    main()
