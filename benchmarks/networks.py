"""Networks: time, peak memory and share of the device's limit, forward and training step.

    python benchmarks/networks.py                     # the table for this machine, minutes
    python benchmarks/networks.py --only 1024x2048    # rows whose text holds a word
    python benchmarks/networks.py --memory            # peak memory of one full frame, per network

Every row is a process of its own (peak memory is the process's), with warm-up and the median of
several repeats; with OMP_NUM_THREADS=1 "seconds" is processor time. The limit is what a large
matrix product of the same precision reaches here.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace

import torch
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode

from meta_ood import models

PUBLISHED = ("deeplabv3plus_wrn38", "dualgcnnet_r50", "dualgcnnet_r101")
MINIS = ("deeplabv3plus_mini", "dualgcn_mini")


@dataclass(frozen=True)
class Case:
    """One row: what runs, on what, how."""

    network: str
    job: str  # infer | train
    size: tuple[int, int]
    batch: int = 1
    precision: str = "float32"  # float32 | tf32 | bfloat16
    channels_last: bool = False
    compiled: bool = False
    repeats: int = 5

    def __str__(self) -> str:
        """Say it in one line."""
        layout = "channels-last" if self.channels_last else "channels-first"
        mode = "compiled" if self.compiled else "eager"
        size = "x".join(map(str, self.size))
        return (
            f"{self.network:<20} {self.job} {self.batch}x{size:<9} {self.precision:<8} "
            f"{layout:<14} {mode:<8}"
        )


def cases(device: str) -> list[Case]:
    """Return the rows for a device: on a CPU the full networks run few times."""
    rows: list[Case] = []
    for name in MINIS:
        train = Case(name, "train", (128, 128), 8, repeats=5)
        infer = Case(name, "infer", (128, 256), 1, repeats=10)
        rows += [v for base in (train, infer) for v in variants(base, device, compiled=False)]
    for name in PUBLISHED:
        infer = Case(name, "infer", (480, 480), 1 if device == "cpu" else 8, repeats=2)
        rows += variants(infer, device, compiled=name != "dualgcnnet_r101")
        train = Case(name, "train", (480, 480), 2 if device == "cpu" else 8, repeats=1)
        rows += variants(train, device, compiled=False)
        frame = Case(name, "infer", (1024, 2048), 1, repeats=1 if device == "cpu" else 20)
        rows += variants(frame, device, compiled=device != "cpu")
    return rows


def variants(base: Case, device: str, compiled: bool) -> list[Case]:
    """Return `base` in the precisions, layouts and modes that make sense."""
    precisions = ("float32", "bfloat16") if device == "cpu" else ("float32", "tf32", "bfloat16")
    rows = [replace(base, precision=p, channels_last=c) for p in precisions for c in (False, True)]
    if compiled:
        rows += [replace(base, precision=p, channels_last=True, compiled=True) for p in precisions]
    return rows


def measure(case: Case, device: str) -> dict[str, float]:
    """Run one case here; seconds, peak memory and operations a second."""
    torch.manual_seed(0)
    if device == "cuda":
        torch.set_float32_matmul_precision("high" if case.precision == "tf32" else "highest")
        torch.backends.cudnn.allow_tf32 = case.precision == "tf32"
        torch.backends.cudnn.benchmark = True
    network = models.build(case.network, 19).to(device).train(case.job == "train")
    images = torch.rand(case.batch, 3, *case.size, device=device)
    target = torch.randint(19, (case.batch, *case.size), device=device)
    operations = count(case)
    if case.channels_last:
        network = network.to(memory_format=torch.channels_last)
        images = images.to(memory_format=torch.channels_last)
    run = torch.compile(network) if case.compiled else network

    half = case.precision == "bfloat16"

    def autocast():
        return torch.autocast(device, torch.bfloat16) if half else nullcontext()

    def step():
        if case.job == "infer":
            with torch.inference_mode(), autocast():
                run(images)
        else:
            with autocast():
                logits = models.upsample(run(images).float(), case.size, network.align_corners)
            cross_entropy(logits, target).backward()
            network.zero_grad(set_to_none=True)
        if device == "cuda":
            torch.cuda.synchronize()

    if case.repeats > 1 or case.compiled:
        step()
    times, busy = [], []
    for _ in range(case.repeats):
        start, start_busy = time.perf_counter(), time.process_time()
        step()
        times.append(time.perf_counter() - start)
        busy.append(time.process_time() - start_busy)
    wall = statistics.median(times)
    cpu = statistics.median(busy)
    # One thread: its processor time, which others on the machine disturb less.
    seconds = cpu if device == "cpu" and torch.get_num_threads() == 1 else wall
    peak = (
        torch.cuda.max_memory_allocated() / 1e9
        if device == "cuda"
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    )
    return {"seconds": seconds, "wall": wall, "memory": peak, "rate": operations / seconds}


def count(case: Case) -> float:
    """Count the floating point operations of a case on tensors without memory."""
    with torch.device("meta"):
        network = models.build(case.network, 19).to("meta").train(case.job == "train")
        images = torch.empty(case.batch, 3, *case.size)
    with FlopCounterMode(display=False) as counter:
        if case.job == "train":
            network(images).sum().backward()
        else:
            with torch.no_grad():
                network(images)
    return float(counter.get_total_flops())


def limit(precision: str, device: str) -> float:
    """Return the operations a second of a large matrix product, the best of several."""
    if device == "cuda":
        torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    size = 2048 if device == "cpu" else 8192
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    a = torch.rand(size, size, device=device).to(dtype)
    best = float("inf")
    clock = (
        time.process_time if device == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    )
    for _ in range(12):
        start = clock()
        a @ a
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, clock() - start)
    return 2 * size**3 / best


def in_a_process(case: Case, device: str) -> dict[str, float]:
    """Measure a case in a process of its own."""
    command = [sys.executable, __file__, "--device", device, "--case", json.dumps(asdict(case))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"ended with {done.returncode}"]
        raise SystemExit(f"{case}: {lines[-1]}")
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--only", nargs="*", default=[], help="words that a row must hold")
    parser.add_argument("--memory", action="store_true", help="one full frame of every network")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    device = options.device
    if options.case:
        values = json.loads(options.case)
        print(json.dumps(measure(Case(**{**values, "size": tuple(values["size"])}), device)))
        return
    rows = (
        [Case(name, "infer", (1024, 2048), repeats=1) for name in models.MODELS]
        if options.memory
        else cases(device)
    )
    rows = [row for row in rows if all(word in str(row) for word in options.only)]
    limits = {p: limit(p, device) for p in sorted({row.precision for row in rows})}
    print(
        f"{device}, {torch.get_num_threads()} threads, torch {torch.__version__}; limits: ", end=""
    )
    print(", ".join(f"{p} {v / 1e9:,.0f} GFLOP/s" for p, v in limits.items()))
    print(f"{'case':<75} {'seconds':>9} {'x plain':>8} {'peak GB':>8} {'GFLOP/s':>8} {'limit':>6}")
    plain: dict[tuple[object, ...], float] = {}
    for row in rows:
        result = in_a_process(row, device)
        same = (row.network, row.job, row.size, row.batch)
        plain.setdefault(same, result["seconds"])
        print(
            f"{row!s:<75} {result['seconds']:>8.3f} {result['wall']:>8.3f} "
            f"{plain[same] / result['seconds']:>8.2f} {result['memory']:>8.2f} "
            f"{result['rate'] / 1e9:>8.0f} {result['rate'] / limits[row.precision]:>8.0%}",
            flush=True,
        )


if __name__ == "__main__":
    main()
