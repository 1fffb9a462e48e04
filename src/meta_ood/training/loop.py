"""The training loop, in plain sight, on Lightning Fabric."""

from __future__ import annotations

import copy
import logging
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from meta_ood.config import OptimisationParams
from meta_ood.data.context import Log, Machine, progress
from meta_ood.inference.batches import Batch, to_unit_range
from meta_ood.models import upsample
from meta_ood.models.device import device_of, set_tf32
from meta_ood.training.checkpoints import load_state, save_state, stop_requests
from meta_ood.training.loader import Plan, SegmentationDataset, load_batches
from meta_ood.training.losses import Counts, Objective, count
from meta_ood.training.optimisation import follow, learning_rate, make_optimizer, train_mode
from meta_ood.training.validation import Validation, mean_iou, separation, validate

logger = logging.getLogger(__name__)

_LOG_EVERY = 10  # steps


class DivergedError(ValueError):
    """The loss is no finite number."""


@dataclass
class State:
    """Where training stands; goes to disk as a plain dict.

    Attributes:
        step: Steps done.
        loss: Mean of the last steps that were logged.
        recent: Losses since then.
        looks: What validation saw last.
        best: What it saw when it was best.
        stale: How often it has looked since then.
    """

    step: int = 0
    loss: float = math.nan
    recent: list[float] = field(default_factory=list)
    looks: dict[str, float] = field(default_factory=dict)
    best: dict[str, float] = field(default_factory=dict)
    stale: int = 0


def launch(machine: Machine, precision: str = "float32") -> Fabric:
    """Return Fabric on this machine's device; under torchrun on all of its processes."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    fabric = Fabric(
        accelerator=device_of(machine).type,
        devices=local,
        num_nodes=processes // local,
        strategy="ddp_find_unused_parameters_true" if processes > 1 else "auto",
        precision="bf16-mixed" if precision == "bfloat16" else "32-true",
    )
    fabric.launch()
    set_tf32(precision, fabric.device)
    return fabric


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw fresh weights from `seed`, and leave torch's generator as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def fit(
    network: nn.Module,
    dataset: SegmentationDataset,
    plan: Callable[[int], Plan],
    objective: Objective,
    params: OptimisationParams,
    *,
    num_classes: int,
    seed: int,
    machine: Machine,
    log: Log,
    validation: Validation | None = None,
    resume: Path | None = None,
    reset_optimizer: bool = False,
    what: str = "train",
) -> dict[str, float]:
    """Train a network in place.

    Args:
        network: See :mod:`meta_ood.models`; ends on the CPU in eval mode, with the weights to keep.
        dataset: With a transform that gives crops of one size.
        plan: Epoch -> indices into `dataset`; every epoch has the same length.
        objective: The loss.
        params: Optimisation.
        num_classes: C.
        seed: With step and rank it decides every draw, so that a resumed run draws the same.
        machine: Device and loader threads; no effect on the result beyond rounding.
        log: Takes the curves.
        validation: Looked at every ``validate_every`` epochs and at the end.
        resume: Folder for states; a state in it is continued at the exact sample. Who calls forgets it once the weights
            are safe.
        reset_optimizer: Forget the optimizer's moments at the start of every epoch, as published.
        what: The progress bar's title.

    Returns:
        ``steps``, ``loss`` (mean of the last steps), and of the weights that were kept ``step``, ``miou`` and
        ``separation``; no times, so that equal runs give equal figures.

    Raises:
        DivergedError: If the loss is not finite; names the step, the images and the last state.
        ValueError: If an epoch has fewer frames than a batch.
    """
    fabric = launch(machine, params.precision)
    epoch_steps = _epoch_steps(params, len(plan(0)), fabric.world_size)
    run = _Run(fabric, network, params, epoch_steps * params.epochs, resume, what)
    batches: Iterator[Batch] = iter(())
    first = run.state.step
    bar = progress(range(first, run.steps), what, unit="step")
    clock = time.perf_counter()
    with stop_requests() as stop:
        for step in bar:
            epoch, position = divmod(step, epoch_steps)
            if position == 0 or step == first:
                batches = load_batches(
                    dataset,
                    plan(epoch),
                    params.batch_size,
                    seed=seed,
                    epoch=epoch,
                    first=position * params.accumulate,
                    part=(fabric.global_rank, fabric.world_size),
                    workers=machine.workers,
                )
            if position == 0 and reset_optimizer:
                run.optimizer.state.clear()
            group = [next(batches) for _ in range(params.accumulate)]
            torch.manual_seed(_mix(seed, step, fabric.global_rank))  # dropout
            stopping = run.take_step(group, objective, num_classes, bool(stop))
            if len(run.state.recent) == _LOG_EVERY or run.state.step == run.steps:
                seconds, clock = time.perf_counter() - clock, time.perf_counter()
                _report(run, log, bar, params, seconds)
            if validation and position + 1 == epoch_steps and _due(params, epoch):
                run.look(validation, num_classes)
                if fabric.is_global_zero:
                    log({f"validation/{k}": v for k, v in run.state.looks.items()}, run.state.step)
                clock = time.perf_counter()
            if stopping or run.state.step % params.checkpoint_every == 0:
                run.remember()
            if stopping:
                stop.leave()
            if params.patience and run.state.stale >= params.patience:
                logger.info("%s: no better for %d looks; done", what, run.state.stale)
                break
    return run.finish()


class _Run:
    """Network, optimizer and state of one training, and what a step does to them."""

    def __init__(
        self, fabric: Fabric, network: nn.Module, params: OptimisationParams, steps: int, resume: Path | None, what: str
    ) -> None:
        self.fabric, self.params, self.steps = fabric, params, steps
        self.resume, self.what = resume, what
        network = network.to(fabric.device)
        if fabric.world_size > 1 and fabric.device.type == "cuda":
            convert: Callable[[nn.Module], nn.Module] = nn.SyncBatchNorm.convert_sync_batchnorm
            network = convert(network)
        network.to(memory_format=torch.channels_last)
        self.network = network
        self.optimizer = make_optimizer(self.network, params)
        self.average = copy.deepcopy(network) if params.ema else None
        self.state = State()
        self.kept: dict[str, Tensor] | None = None
        if resume and (saved := load_state(resume)):
            self.network.load_state_dict(saved["network"])
            self.optimizer.load_state_dict(saved["optimizer"])
            if self.average is not None:
                self.average.load_state_dict(saved["average"])
            self.state, self.kept = State(**saved["state"]), saved["kept"]
            logger.info("%s: resuming after step %d of %d", what, self.state.step, steps)
        module = torch.compile(network) if params.compile else network
        self.wrapped, self.stepper = fabric.setup(cast(nn.Module, module), self.optimizer)

    def take_step(self, group: list[Batch], objective: Objective, num_classes: int, stop: bool) -> bool:
        """Learn from one group of batches; return whether any process was asked to stop."""
        rate = learning_rate(self.params, self.state.step, self.steps)
        for options in self.optimizer.param_groups:
            options["lr"] = rate
        counts, stopping = _counts(self.fabric, group, num_classes, stop)
        train_mode(self.network, self.params.batch_norm)
        self.stepper.zero_grad()
        loss = torch.zeros((), device=self.fabric.device)
        for number, batch in enumerate(group, start=1):
            images = to_unit_range(batch.images.to(self.fabric.device))
            targets = batch.targets.to(self.fabric.device)
            images = images.contiguous(memory_format=torch.channels_last)
            with self.fabric.no_backward_sync(self.wrapped, enabled=number < len(group)):
                logits = self.wrapped(images)
                size = (targets.shape[1], targets.shape[2])
                logits = upsample(logits, size, bool(self.network.align_corners))
                share = objective(logits, targets, counts, self.state.step / self.steps)
                self.fabric.backward(share * self.fabric.world_size)  # DDP takes the mean
            loss += share.detach()
        value = float(_sum(self.fabric, loss))
        if not math.isfinite(value):
            names = ", ".join(name for batch in group for name in batch.image_ids)
            where = f"; last good state: {self.resume}" if self.resume else ""
            raise DivergedError(
                f"{self.what}: the loss is {value} at step {self.state.step + 1}; images: {names}{where}"
            )
        if self.params.gradient_clip:
            self.fabric.clip_gradients(self.wrapped, self.stepper, max_norm=self.params.gradient_clip)
        self.stepper.step()
        if self.average is not None:
            follow(self.average, self.network, self.params.ema)
        self.state.step += 1
        self.state.recent.append(value)
        return stopping

    def look(self, validation: Validation, num_classes: int) -> None:
        """Validate the weights as they would be kept now; keep them if they are the best."""
        network = self.network if self.average is None else self.average
        frames = range(self.fabric.global_rank, len(validation.dataset), self.fabric.world_size)
        confusion, histograms = validate(network, validation.dataset, frames, num_classes, device=self.fabric.device)
        confusion = _sum(self.fabric, confusion)
        histograms = _sum(self.fabric, histograms)
        looks = {"miou": mean_iou(confusion)}
        if validation.proxies and int(histograms[0].sum()):
            looks["separation"] = separation(histograms[0], histograms[1])
        self.state.looks = looks
        merit = sum(looks.values()) / len(looks)
        if not self.state.best or merit > self.state.best["merit"]:
            self.state.best = {**looks, "merit": merit, "step": self.state.step}
            self.state.stale = 0
            if self.params.keep == "best":
                self.kept = copy.deepcopy(network.state_dict())
        else:
            self.state.stale += 1

    def remember(self) -> None:
        """Write everything to disk, to be continued."""
        if self.resume and self.fabric.is_global_zero:
            average = {} if self.average is None else self.average.state_dict()
            save_state(
                self.resume,
                {
                    "network": self.network.state_dict(),
                    "optimizer": self.optimizer.state_dict(),
                    "average": average,
                    "kept": self.kept,
                    "state": asdict(self.state),
                },
            )

    def finish(self) -> dict[str, float]:
        """Leave the weights to keep in the network, on the CPU; return the figures."""
        if self.kept is not None:
            self.network.load_state_dict(self.kept)
        elif self.average is not None:
            self.network.load_state_dict(self.average.state_dict())
        self.network.cpu().eval()
        self.fabric.barrier()
        last = {**self.state.looks, "step": self.state.step}
        looks = self.state.best if self.kept is not None else last
        figures = {"loss": self.state.loss, "steps": float(self.state.step), **looks}
        return {name: round(value, 6) for name, value in figures.items()}


def _epoch_steps(params: OptimisationParams, frames: int, processes: int) -> int:
    if params.batch_size % processes:
        raise ValueError(f"batch_size {params.batch_size} is not divisible by {processes} processes")
    together = params.batch_size * params.accumulate
    if frames < together:
        raise ValueError(
            f"an epoch has {frames} frames, fewer than one step takes: {together} (batch_size x accumulate)"
        )
    return frames // together


def _mix(seed: int, step: int, rank: int) -> int:
    """Return a seed of their own for each step and process."""
    return int(np.random.SeedSequence((seed, step, rank)).generate_state(1)[0])


def _due(params: OptimisationParams, epoch: int) -> bool:
    return (epoch + 1) % params.validate_every == 0 or epoch + 1 == params.epochs


def _counts(fabric: Fabric, group: list[Batch], num_classes: int, stop: bool) -> tuple[Counts, bool]:
    """Count the pixels of a step over all of its batches and processes; share the wish to stop."""
    parts = [count(batch.targets, num_classes) for batch in group]
    sums = torch.tensor(
        [sum(p.pixels for p in parts), sum(p.inside for p in parts), sum(p.ood for p in parts), float(stop)],
        dtype=torch.float64,
    )
    if fabric.world_size > 1:
        sums = _sum(fabric, sums.to(fabric.device)).cpu()
    pixels, inside, ood, stopping = sums.tolist()
    return Counts(pixels, inside, ood), stopping > 0


def _sum(fabric: Fabric, values: Tensor) -> Tensor:
    """Add up over the processes."""
    total = fabric.all_reduce(values, reduce_op="sum")
    assert isinstance(total, Tensor)
    return total


def _report(run: _Run, log: Log, bar: Any, params: OptimisationParams, seconds: float) -> None:
    """Write the mean of the last steps to the log and to the progress bar."""
    recent, run.state.recent = run.state.recent, []
    run.state.loss = sum(recent) / len(recent)
    rate = learning_rate(params, run.state.step - 1, run.steps)
    speed = len(recent) * params.batch_size * params.accumulate / seconds
    said = {"loss": f"{run.state.loss:.4f}", "lr": f"{rate:.1e}", "img_s": f"{speed:.1f}"}
    bar.set_postfix(said, refresh=False)
    if run.fabric.is_global_zero:
        log(
            {"train/loss": run.state.loss, "train/learning_rate": rate, "train/images_per_second": speed},
            run.state.step,
        )
