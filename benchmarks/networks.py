"""Networks: time, peak memory and share of the device's limit, forward and training step.

    python benchmarks/networks.py --results rows.jsonl       # the table for this machine
    python benchmarks/networks.py --only dualgcnnet 480x480  # rows whose text holds every word
    python benchmarks/networks.py --memory                   # peak memory of one full frame

Every row is a process of its own (peak memory is the process's): a first step, which compiles where that is asked for,
then the median of several; eager steps of the full networks on a CPU take long, and those of training and of full
frames are the first. With OMP_NUM_THREADS=1 "seconds" is processor time, which others on the machine disturb less. The
limit is what a large matrix product of the same precision reaches here. No row is left out: one that takes longer than
``--limit`` or needs more memory than there is says so. With ``--results`` a table that was interrupted goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode

from meta_ood import models
from meta_ood.models.catalogue import FRAME

PUBLISHED = ("deeplabv3plus_wrn38", "dualgcnnet_r50", "dualgcnnet_r101")
MINIS = ("deeplabv3plus_mini", "dualgcn_mini")
BATCH_OF_ONE = 2
"""Crops of the smallest training step: image pooling leaves BatchNorm one value of one crop."""
TORCH = 0.4e9
"""What a process holds that has done no more than import torch [bytes]."""


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
        return f"{self.network:<20} {self.job} {self.batch}x{size:<9} {self.precision:<8} {layout:<14} {mode:<8}"

    @property
    def plain(self) -> Case:
        """The same in float32, channels-first, eager."""
        return replace(self, precision="float32", channels_last=False, compiled=False)


def cases(device: str) -> list[Case]:
    """Return the rows for a device: on a CPU the full networks run few times."""
    cpu = device == "cpu"
    rows: list[Case] = []
    for name in MINIS:
        rows += variants(Case(name, "infer", (128, 256), repeats=10), device)
        rows += variants(Case(name, "train", (128, 128), 8), device)
    for name in PUBLISHED:
        crops = BATCH_OF_ONE if cpu else 8
        rows += variants(Case(name, "infer", (480, 480), 1 if cpu else 8, repeats=1), device)
        rows += variants(Case(name, "train", (480, 480), crops, repeats=0 if cpu else 5), device)
        rows += variants(Case(name, "infer", FRAME, repeats=0 if cpu else 20), device)
        one = BATCH_OF_ONE if name.startswith("deeplab") else 1
        rows += variants(Case(name, "train", FRAME, one, repeats=0 if cpu else 5), device)
    return rows


def variants(base: Case, device: str) -> list[Case]:
    """Return `base` in the precisions, layouts and modes that make sense."""
    precisions = ("float32", "bfloat16") if device == "cpu" else ("float32", "tf32", "bfloat16")
    ways = ((False, False), (True, False), (True, True))
    return [
        replace(base, precision=p, channels_last=last, compiled=compiled) for p in precisions for last, compiled in ways
    ]


def autocast(case: Case, device: str) -> Any:
    """Return the context that a case runs in."""
    half = case.precision == "bfloat16"
    return torch.autocast(device, torch.bfloat16) if half else nullcontext()


def loss(network: Any, case: Case, images: Tensor, target: Tensor, device: str) -> Tensor:
    """Return the loss of a training step."""
    with autocast(case, device):
        logits = network(images)
    logits = models.upsample(logits.float(), case.size, network.align_corners)
    return cross_entropy(logits, target)


def measure(case: Case, device: str, limit: float) -> None:
    """Run one case here; print seconds and peak memory after every step."""
    torch.manual_seed(0)
    if device == "cuda":
        set_products(case.precision)
        torch.backends.cudnn.benchmark = True
    network = models.build(case.network, 19).to(device).train(case.job == "train")
    images = torch.rand(case.batch, 3, *case.size, device=device)
    target = torch.randint(19, (case.batch, *case.size), device=device)
    if case.channels_last:
        network = network.to(memory_format=torch.channels_last)
        images = images.to(memory_format=torch.channels_last)
    run = torch.compile(network) if case.compiled else network
    if case.compiled and case.repeats == 0:  # the first step compiles
        case = replace(case, repeats=1)

    def step() -> None:
        if case.job == "infer":
            with torch.inference_mode(), autocast(case, device):
                run(images)
        else:
            loss(run, case, images, target, device).backward()
            network.zero_grad(set_to_none=True)
        if device == "cuda":
            torch.cuda.synchronize()

    times: list[tuple[float, float]] = []
    for _ in range(1 + case.repeats):
        start, start_busy = time.perf_counter(), time.process_time()
        step()
        times.append((time.perf_counter() - start, time.process_time() - start_busy))
        walls, busy = zip(*(times[1:] or times), strict=True)
        wall = statistics.median(walls)
        seconds = statistics.median(busy) if one_thread(device) else wall
        found = {"seconds": seconds, "wall": wall, "first": times[0][0], "memory": peak(device)}
        print(json.dumps(found), flush=True)
        if time.process_time() + times[-1][1] > limit * torch.get_num_threads():
            break


def set_products(precision: str) -> None:
    """Let a GPU round the operands of products to TF32, or not."""
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision == "tf32"


def one_thread(device: str) -> bool:
    """Tell whether processor time says how long a step takes."""
    return device == "cpu" and torch.get_num_threads() == 1


def peak(device: str) -> float:
    """Return the peak memory of the GPU, or of this process, GB."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    status = Path("/proc/self/status")  # since exec; ru_maxrss would count the parent's
    if status.exists():
        lines = [v for v in status.read_text().splitlines() if v.startswith("VmHWM")]
        return int(lines[0].split()[1]) * 1024 / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def predicted(case: Case) -> dict[str, float]:
    """Count operations and, for a training step, bytes, on tensors without memory.

    A training step holds weights, gradients, whatever autograd keeps for the way back, and the gradient of the logits
    at full size. Inference keeps too little to be in the way.
    """
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage.nbytes()
        alive.append(tensor)  # a freed storage's number may be given again
        return tensor

    alive: list[Tensor] = []
    with FakeTensorMode(), FlopCounterMode(display=False) as counter:
        network = models.build(case.network, 19).train(case.job == "train")
        images = torch.empty(case.batch, 3, *case.size)
        if case.job == "infer":
            with torch.no_grad():
                network(images)
            return {"operations": counter.get_total_flops(), "bytes": 0}
        target = torch.empty(case.batch, *case.size, dtype=torch.int64)
        own = {p.untyped_storage()._cdata: p.numel() * 4 for p in network.parameters()}
        with saved_tensors_hooks(note, lambda tensor: tensor):
            value = loss(network, case, images, target, "cpu")
        value.backward()
    activations = sum(size for key, size in kept.items() if key not in own)
    logits = 19 * 4 * case.batch * case.size[0] * case.size[1]
    total = TORCH + 2 * sum(own.values()) + activations + logits
    return {"operations": counter.get_total_flops(), "bytes": total}


def limit_of(precision: str, device: str) -> float:
    """Return the operations a second of a large matrix product, the best of several."""
    if device == "cuda":
        set_products(precision)
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    clock: Callable[[], float] = time.process_time if one_thread(device) else time.perf_counter
    best, begin = 0.0, clock()
    for size in (2048,) * 12 if device == "cpu" else (8192,) * 12:
        a = torch.rand(size, size, device=device).to(dtype)
        start = clock()
        a @ a
        if device == "cuda":
            torch.cuda.synchronize()
        best = max(best, 2 * size**3 / (clock() - start))
        if clock() - begin > 20:
            break
    return best


def available() -> float:
    """Return the bytes of memory that are free now, infinity where that is not known."""
    about = Path("/proc/meminfo")
    if not about.exists():
        return float("inf")
    fields = dict(line.split(":") for line in about.read_text().splitlines())
    return float(fields["MemAvailable"].split()[0]) * 1024


def in_a_process(
    case: Case, device: str, limit: float, known: dict[str, Any], counts: dict[str, float]
) -> dict[str, Any]:
    """Measure a case in a process of its own, or say why not."""
    operations, needs = counts["operations"], counts["bytes"]
    if device == "cpu" and needs > 0.8 * available():
        return {"needs": needs / 1e9}
    rate, at = rate_of_a_smaller_one(case, known)
    if rate and operations / rate > limit:
        return {"about": operations / rate, "at": at}
    command = [sys.executable, __file__, "--device", device, "--limit", str(limit)]
    command += ["--case", json.dumps(asdict(case))]
    free = available()

    def guard() -> None:
        seconds = int(limit * torch.get_num_threads()) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
        if device == "cpu" and free < float("inf"):
            resource.setrlimit(resource.RLIMIT_DATA, (int(free), int(free)))

    alone = {**os.environ, "TORCHINDUCTOR_COMPILE_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=guard, env=alone)
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"seconds"')]
    if lines:
        return {**json.loads(lines[-1]), "operations": operations}
    if done.returncode < 0:
        return {"over": limit}
    if "allocate memory" in done.stderr or "out of memory" in done.stderr:
        return {"needs": max(needs, free) / 1e9}
    errors = done.stderr.strip().splitlines() or [f"ended with {done.returncode}"]
    raise SystemExit(f"{case}: {errors[-1]}")


def rate_of_a_smaller_one(case: Case, known: dict[str, Any]) -> tuple[float, str]:
    """Return operations a second of the same network and way at 480 crops, and their size."""
    for other in cases("cpu"):
        found = known.get(str(other), {})
        same = replace(other, size=case.size, batch=case.batch, repeats=case.repeats) == case
        if same and other.size != case.size and "seconds" in found:
            return found["operations"] / found["seconds"], "x".join(map(str, other.size))
    return 0.0, ""


def line(row: Case, found: dict[str, Any], plain: dict[str, Any], limit: float) -> str:
    """Say what was found of a row."""
    if "needs" in found:
        return f"{row!s:<75} does not fit: needs about {found['needs']:.0f} GB"
    if "about" in found:
        return f"{row!s:<75} not run: about {found['about']:.0f} s at the rate of {found['at']}"
    if "over" in found:
        return f"{row!s:<75} > {found['over']:.0f} s"
    rate = found["operations"] / found["seconds"]
    ratio = f"{plain['seconds'] / found['seconds']:.2f}" if "seconds" in plain else "-"
    return (
        f"{row!s:<75} {found['seconds']:>9.3f} {found['wall']:>8.3f} {found['first']:>8.2f} "
        f"{ratio:>8} {found['memory']:>8.2f} {rate / 1e9:>8.0f} {rate / limit:>6.0%}"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--only", nargs="*", default=[], help="words that a row must hold")
    parser.add_argument("--memory", action="store_true", help="one full frame of every network")
    parser.add_argument("--limit", type=float, default=600, help="processor seconds of a row")
    parser.add_argument("--results", type=Path, help="JSON lines: read if there, added to")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    device, results = options.device, options.results
    if options.case:
        values = json.loads(options.case)
        measure(Case(**{**values, "size": tuple(values["size"])}), device, options.limit)
        return
    known: dict[str, Any] = {}

    def found(row: str, value: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        if results and results.exists():  # another run may add to it
            lines = map(json.loads, results.read_text().splitlines())
            known.update({v.pop("row"): v for v in lines})
        if row not in known:
            known[row] = value()
            if results:
                with results.open("a") as file:
                    file.write(json.dumps({"row": row, **known[row]}) + "\n")
        return known[row]

    frames = [Case(n, "infer", FRAME, channels_last=True, repeats=0) for n in models.MODELS]
    rows = frames if options.memory else cases(device)
    rows = [row for row in rows if all(word in str(row) for word in options.only)]
    limits = {
        p: found(f"limit {p}", lambda p=p: {"rate": limit_of(p, device)})["rate"]
        for p in sorted({row.precision for row in rows})
    }
    print(f"{device}, {torch.get_num_threads()} threads, torch {torch.__version__}; limits: ")
    print(", ".join(f"{p} {v / 1e9:,.1f} GFLOP/s" for p, v in limits.items()))
    print(
        f"{'case':<75} {'seconds':>9} {'wall':>8} {'first':>8} {'x plain':>8} {'peak GB':>8} "
        f"{'GFLOP/s':>8} {'limit':>6}"
    )
    for row in rows:
        job = row if row.job == "train" else row.plain
        job = replace(job, channels_last=False, compiled=False)
        counts = found(f"count {job}", lambda job=job: predicted(job))
        value = found(str(row), lambda row=row, counts=counts: in_a_process(row, device, options.limit, known, counts))
        print(line(row, value, known.get(str(row.plain), {}), limits[row.precision]), flush=True)


if __name__ == "__main__":
    main()
