"""Time the hot paths of training: the loss, the loader, a step; on a GPU the whole recipe.

    python benchmarks/training.py loss loader step    # any machine
    python benchmarks/training.py gpu                 # DeepLabv3+ WRN38, crop 480, batch 8

Each line: what, ours, the published way, their ratio, the limit. Times are medians in seconds.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from meta_ood import models
from meta_ood.config import OptimisationParams
from meta_ood.data.frames import Frame
from meta_ood.data.labels import OOD
from meta_ood.inference.batches import Batch, to_unit_range
from meta_ood.training.loader import SegmentationDataset, load_batches, mix_proxies
from meta_ood.training.losses import PixelCounts, count, entropy_maximization
from meta_ood.training.optimisation import make_optimizer
from meta_ood.training.transforms import Augmentation

SHAPE = (8, 19, 480, 480)


def line(what: str, ours: float, other: float | None = None, limit: str = "", unit: str = "s") -> None:
    """Print one line of the table."""
    reference = "" if other is None else f"{other:9.3f}"
    ratio = "" if other is None else f"{other / ours:8.1f}x"
    print(f"{what:52s} {ours:9.3f} {reference:>9s} {ratio:>9s}  {limit:>10s} {unit}")


def median(run: Callable[[], object], times: int) -> float:
    """Return the median seconds of a call, after one to warm up."""
    run()
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


# --- loss ----------------------------------------------------------------------------------------


def one_hot_loss(logits: Tensor, target: Tensor, weight: float) -> Tensor:
    """Return the loss as published: dense float64 targets built on the CPU, cast to float32."""
    classes = logits.shape[1]
    rows = np.concatenate([(1 - weight) * np.eye(classes), np.zeros((2, classes))])
    rows[classes] = weight / classes
    labels = target.clone()
    labels[target == OOD] = classes
    labels[target > OOD] = classes + 1
    dense = torch.from_numpy(rows[labels.numpy()]).permute(0, 3, 1, 2)
    dense = dense.to(logits.device, torch.float32)
    return -(dense * torch.log_softmax(logits, 1)).mean()


def loss_pixels() -> tuple[Tensor, Tensor]:
    """Draw logits and a target: an eighth OoD, a twelfth void."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(SHAPE, generator=generator).requires_grad_()
    target = torch.randint(0, 19, (SHAPE[0], *SHAPE[2:]), generator=generator, dtype=torch.uint8)
    target[:, :60], target[:, 440:] = OOD, 255
    return logits, target


def loss_once(which: str) -> Callable[[], None]:
    """Return a call of loss forward and backward."""
    logits, target = loss_pixels()
    loss = entropy_maximization if which == "ours" else one_hot_loss

    def run() -> None:
        logits.grad = None
        loss(logits, target, 0.9).backward()

    return run


def memory_of(which: str) -> float:
    """Return what the loss adds to the peak of a process of its own [GB]."""
    command = [sys.executable, __file__, f"memory-{which}"]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def print_memory(which: str) -> None:
    """Print what one call adds to the peak of this process [GB]."""
    torch.set_num_threads(1)
    run = loss_once(which)
    before = peak_memory()
    run()
    print(peak_memory() - before)


def peak_memory() -> float:
    """Return this program's peak so far [GB]; that of getrusage would hold its parent's too."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1e6


def loss() -> None:
    """Time the loss against dense targets."""
    torch.set_num_threads(1)
    ours, published = median(loss_once("ours"), 7), median(loss_once("published"), 3)
    line("loss forward + backward, 8x19x480x480, one core", ours, published, "<= 0.25")
    line("  peak memory beside the logits", memory_of("ours"), memory_of("published"), "", "GB")


# --- loader --------------------------------------------------------------------------------------


def written(folder: Path, number: int, height: int, width: int) -> list[Frame]:
    """Write random frames whose PNG files have a usual size."""
    rng = np.random.default_rng(0)
    frames = []
    for index in range(number):
        small = rng.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
        image = np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))
        image = (image // 2 + rng.integers(0, 8, image.shape)).astype(np.uint8)
        frame = Frame(str(index), folder / f"{index}.png", "", folder / f"{index}_t.png", "")
        Image.fromarray(image).save(frame.image)
        Image.fromarray(small[..., 0] % 19).resize((width, height), 0).save(frame.target)
        frames.append(frame)
    return frames


def samples_per_second(dataset: SegmentationDataset, rounds: int, workers: int) -> float:
    """Drain the loader."""
    plan = np.concatenate([mix_proxies(len(dataset), 0, 0, seed=0, epoch=epoch) for epoch in range(rounds)])
    start = time.perf_counter()
    seen = sum(len(batch.image_ids) for batch in load_batches(dataset, plan, 8, seed=0, epoch=0, workers=workers))
    return seen / (time.perf_counter() - start)


def loader() -> None:
    """Time decoding and augmenting."""
    with tempfile.TemporaryDirectory() as folder:
        large = written(Path(folder), 16, 1024, 2048)
        for workers in (1, 2, 4):
            dataset = SegmentationDataset(large, Augmentation(480, 0.25, 0.2), cache=0)
            speed = samples_per_second(dataset, 2, workers)
            line(f"loader, 1024x2048 PNG, crop 480, {workers} threads", speed, unit="img/s")
        dataset = SegmentationDataset(large, Augmentation(480, 0.25, 0.2))
        samples_per_second(dataset, 1, 1)
        line("  the same from memory, 1 thread", samples_per_second(dataset, 4, 1), unit="img/s")
    with tempfile.TemporaryDirectory() as folder:
        small = SegmentationDataset(written(Path(folder), 64, 128, 256), Augmentation(128, 0.25, 0.2))
        samples_per_second(small, 1, 1)
        line("loader, demo (128x256, crop 128, from memory)", samples_per_second(small, 8, 1), unit="img/s")


# --- step ----------------------------------------------------------------------------------------


def random_batches(crop: int, size: int) -> Iterator[Batch]:
    """Draw batches as the loader gives them, from frames in memory."""
    with tempfile.TemporaryDirectory() as folder:
        frames = written(Path(folder), 4 * size, crop, 2 * crop)
        dataset = SegmentationDataset(frames, Augmentation(crop, 0.25, 0.2))
        for index in range(len(frames)):
            dataset[index]
        for epoch in range(1000):
            plan = mix_proxies(len(frames), 0, 0, seed=0, epoch=epoch)
            yield from load_batches(dataset, plan, size, seed=0, epoch=epoch)


def step() -> None:
    """Time full steps of the demo networks, and say where the time goes."""
    params = OptimisationParams(epochs=1, batch_size=8, crop=128, learning_rate=1e-3)
    for name in ("deeplabv3plus_mini", "dualgcn_mini"):
        network = models.build(name, 19).train().to(memory_format=torch.channels_last)
        optimizer = make_optimizer(network, params)
        batches = random_batches(128, 8)
        parts: list[list[float]] = []
        for _ in range(12):
            marks = [time.perf_counter()]
            batch = next(batches)
            images = to_unit_range(batch.images).contiguous(memory_format=torch.channels_last)
            marks.append(time.perf_counter())
            logits = models.upsample(network(images), (128, 128), bool(network.align_corners))
            value = entropy_maximization(logits, batch.targets, 0.5, normalisation="pixels")
            marks.append(time.perf_counter())
            value.backward()
            marks.append(time.perf_counter())
            optimizer.step()
            optimizer.zero_grad()
            marks.append(time.perf_counter())
            parts.append(np.diff(marks).tolist())
        medians = np.median(parts[2:], axis=0)
        line(f"step, {name}, crop 128, batch 8, {torch.get_num_threads()} threads", medians.sum())
        names = ("data", "forward + loss", "backward", "optimizer")
        shares = ", ".join(f"{what} {share:.0%}" for what, share in zip(names, medians / medians.sum(), strict=True))
        print(f"  {shares}")
        batches.close()  # type: ignore[attr-defined]


# --- GPU -----------------------------------------------------------------------------------------


def gpu_steps(name: str, crop: int, size: int, published: bool, device: str) -> tuple[float, float]:
    """Return images per second and peak memory [GB] of full training steps."""
    torch.manual_seed(0)
    network = models.build(name, 19).train().to(device)
    if not published:
        network = network.to(memory_format=torch.channels_last)
    if published:
        optimizer: torch.optim.Optimizer = torch.optim.Adam(network.parameters(), 1e-5)
    else:
        optimizer = make_optimizer(
            network, OptimisationParams(epochs=1, batch_size=size, crop=crop, learning_rate=1e-5)
        )
    module = network if published else torch.compile(network)
    batches = random_batches(crop, size)
    cuda = device == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    for _ in range(12):
        batch = next(batches)
        start = time.perf_counter()
        images = to_unit_range(batch.images.to(device))
        with torch.autocast(device, torch.bfloat16, enabled=not published):
            logits = models.upsample(module(images), (crop, crop), bool(network.align_corners))
        if published:
            value = one_hot_loss(logits, batch.targets, 0.9)
        else:
            counts: PixelCounts = count(batch.targets, 19)
            value = entropy_maximization(logits, batch.targets.to(device), 0.9, counts)
        value.backward()
        optimizer.step()
        optimizer.zero_grad()
        if cuda:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    peak = torch.cuda.max_memory_allocated() / 1e9 if cuda else 0.0
    return size / statistics.median(seconds[4:]), peak


def gpu(name: str = "deeplabv3plus_wrn38", crop: int = 480, size: int = 8) -> None:
    """Compare full steps with the published recipe."""
    from torch.utils.flop_counter import FlopCounterMode

    device = "cuda" if torch.cuda.is_available() else "cpu"
    published, ours = (gpu_steps(name, crop, size, way, device) for way in (True, False))
    line(f"{name}, crop {crop}, batch {size}, {device}", ours[0], unit="img/s, limit >= 5x published")
    line("  published recipe (float32, eager, one-hot on the CPU)", published[0], unit="img/s")
    line("  ours / published", ours[0] / published[0], None, ">= 5", unit="x")
    if device == "cuda":
        line("  peak memory", ours[1], published[1], unit="GB")
    network = models.build(name, 19).to(device)
    with FlopCounterMode(display=False) as flops:
        network(torch.rand(2, 3, crop, crop, device=device)).sum().backward()
    rate = flops.get_total_flops() / 2 * ours[0] / 1e12
    line("  arithmetic", rate, unit="TFLOP/s in bfloat16; divide by the device's peak")


if __name__ == "__main__":
    torch.manual_seed(0)
    wanted = sys.argv[1:] or ["loss", "loader", "step"]
    if wanted[0].startswith("memory-"):
        print_memory(wanted[0].removeprefix("memory-"))
        sys.exit()
    print(f"{'what':52s} {'ours':>9s} {'published':>9s} {'ratio':>9s}  {'limit':>10s}")
    for part in wanted:
        {"loss": loss, "loader": loader, "step": step, "gpu": gpu}[part]()
