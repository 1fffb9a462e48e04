"""The training loop, on Lightning Fabric, which runs it on a CPU, a GPU, or under torchrun."""

import copy
import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from meta_ood.config import OptimisationParams
from meta_ood.data.context import Log, Machine, progress
from meta_ood.data.files import write_csv
from meta_ood.data.labels import IGNORE, OOD
from meta_ood.inference.batches import Batch, to_unit_range
from meta_ood.inference.processes import end_with_parent
from meta_ood.models import upsample
from meta_ood.models.device import device_of, set_tf32
from meta_ood.training.checkpoints import load_checkpoint, save_checkpoint, stop_requests
from meta_ood.training.loader import EpochPlan, SegmentationDataset, load_batches
from meta_ood.training.losses import Objective, PixelCounts, count
from meta_ood.training.optimisation import learning_rate, make_optimizer, train_mode, update_ema
from meta_ood.training.validation import Validation, validate_all

logger = logging.getLogger(__name__)

CURVES = ("step", "curve", "value")
"""Columns of the curves of a training: steps done, a name such as train/loss, the value then."""


class DivergedError(ValueError):
    """The loss is not a finite number."""


@dataclass
class TrainingState:
    """Position and results of a training; stored in checkpoints as a plain dict."""

    step: int = 0  # steps done
    loss: float = math.nan  # mean over the steps that were logged last
    # of each step since then: loss, its in-distribution term, its OoD term; then, for each dataset that is told apart,
    # the sum of the in-distribution losses of its samples and their number
    recent: list[list[float]] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)  # of the last validation
    best: dict[str, float] = field(default_factory=dict)  # with `selection_metric` and `step`
    stale: int = 0  # validations since the best one
    curves: list[list[Any]] = field(default_factory=list)  # the rows of CURVES


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's generator within the context, and restore its state afterwards."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def fit(
    network: nn.Module,
    dataset: SegmentationDataset,
    plan: Callable[[int], EpochPlan],
    objective: Objective,
    params: OptimisationParams,
    *,
    num_classes: int,
    seed: int,
    machine: Machine,
    log: Log,
    validation: Validation | None = None,
    resume: Path | None = None,
    curves: Path | None = None,
    reset_optimizer: bool = False,
    teacher: nn.Module | None = None,
    apart: Sequence[str] = (),
    what: str = "train",
) -> dict[str, float]:
    """Train a network of C classes in place; it ends on the CPU in eval mode, with the weights to keep.

    Args:
        network, dataset: See :mod:`meta_ood.models`; a dataset whose transform gives crops of one size.
        plan: Epoch -> samples; every epoch has the same length.
        objective, params, num_classes: The loss, the options of the optimisation, C.
        seed: With step and rank it decides every draw, so that a resumed training draws the same.
        machine: Device and loader threads; no effect on the result beyond rounding.
        log: Receives the curves as they grow.
        validation: Validated every ``validate_every`` epochs and at the end.
        resume: Folder for checkpoints; one that is found there is continued at the exact sample. The caller deletes it.
        curves: CSV file for :data:`CURVES`, written at the end: the whole training, also of one that was resumed.
        reset_optimizer: Reset the optimizer's state at the start of every epoch, as published.
        teacher: A network that is not changed; the objective gets its logits of the same pixels.
        apart: Datasets whose in-distribution loss is logged by itself, too.
        what: Title of the progress bar.

    Returns:
        ``steps``, ``loss`` (mean of the last steps), and ``step``, ``miou``, ``proxy_auroc`` of the weights to keep.

    Raises:
        DivergedError: If the loss is not finite; names the step, the images and the last checkpoint.
        ValueError: If an epoch has fewer frames than a step.
    """
    fabric = _launch(machine, params.precision)
    epoch_steps = _epoch_steps(params, len(plan(0)), fabric.world_size, what)
    trainer = _Trainer(fabric, network, params, epoch_steps * params.epochs, resume, what, teacher, apart)
    batches: Iterator[Batch] = iter(())
    first = trainer.state.step
    bar = progress(range(first, trainer.steps), what, unit="step")
    clock = time.perf_counter()
    with stop_requests() as stop:
        for step in bar:
            # 1. samples of this step; a resumed training begins within an epoch
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
            group = [next(batches) for _ in range(params.accumulate)]
            # 2. a step of the optimizer on them
            if position == 0 and reset_optimizer:
                trainer.optimizer.state.clear()
            # dropout: a seed of its own for each step and process
            torch.manual_seed(int(np.random.SeedSequence((seed, step, fabric.global_rank)).generate_state(1)[0]))
            stopping = trainer.take_step(group, objective, num_classes, stop.signal != 0)
            # every 10 steps: curves stay readable and logging costs nothing
            if len(trainer.state.recent) == 10 or trainer.state.step == trainer.steps:
                seconds, clock = time.perf_counter() - clock, time.perf_counter()
                trainer.log_recent(log, bar, seconds)
            # 3. validate at the end of an epoch
            is_due = (epoch + 1) % params.validate_every == 0 or epoch + 1 == params.epochs
            if validation and position + 1 == epoch_steps and is_due:
                trainer.validate(validation, num_classes, log)
                clock = time.perf_counter()
            # 4. save a checkpoint; end if asked to, or if nothing gets better
            if stopping or trainer.state.step % params.checkpoint_every == 0:
                trainer.save_checkpoint()
            if stopping:
                # The first process writes: if another left before, torchrun would kill it.
                fabric.barrier()
                stop.exit_gracefully()
            if params.patience and trainer.state.stale >= params.patience:
                logger.info("%s: not better for %d validations", what, trainer.state.stale)
                break
    if curves and fabric.is_global_zero:
        write_csv(curves, CURVES, trainer.state.curves)
    return trainer.finish()


class _Trainer:
    """Network, optimizer and state of one training."""

    def __init__(
        self,
        fabric: Fabric,
        network: nn.Module,
        params: OptimisationParams,
        steps: int,
        resume: Path | None,
        what: str,
        teacher: nn.Module | None,
        apart: Sequence[str],
    ) -> None:
        self.fabric, self.params, self.steps = fabric, params, steps
        self.resume, self.what, self.apart = resume, what, apart
        if teacher is not None:
            teacher = teacher.eval().to(fabric.device).to(memory_format=torch.channels_last)
        self.teacher = teacher
        network = network.to(fabric.device)
        if fabric.world_size > 1 and fabric.device.type == "cuda":
            convert: Callable[[nn.Module], nn.Module] = nn.SyncBatchNorm.convert_sync_batchnorm
            network = convert(network)
        self.network = network.to(memory_format=torch.channels_last)
        self.optimizer = make_optimizer(network, params)
        self.ema = copy.deepcopy(network) if params.ema else None
        self.state = TrainingState()
        self.kept: dict[str, Tensor] | None = None  # weights of the best validation
        if resume and (saved := load_checkpoint(resume)):
            network.load_state_dict(saved["network"])
            self.optimizer.load_state_dict(saved["optimizer"])
            if self.ema is not None:
                self.ema.load_state_dict(saved["ema"])
            self.state, self.kept = TrainingState(**saved["state"]), saved["kept"]
            logger.info("%s: resuming after step %d of %d", what, self.state.step, steps)
        # After loading: Fabric and torch.compile wrap the same parameters.
        module = torch.compile(network) if params.compile else network
        self.wrapped, self.stepper = fabric.setup(cast(nn.Module, module), self.optimizer)

    def take_step(self, group: list[Batch], objective: Objective, num_classes: int, stop: bool) -> bool:
        """Update the weights with one group of batches; return whether a process has to stop."""
        done = self.state.step / self.steps
        for options in self.optimizer.param_groups:
            options["lr"] = learning_rate(self.params, self.state.step, self.steps)
        # 1. the pixels that the loss is a mean over, those of all batches and processes; and whether a process was
        #    asked to stop
        own = count(torch.cat([batch.targets for batch in group]), num_classes)
        sums = torch.tensor([own.pixels, own.inside, own.ood, own.unlabelled, float(stop)], dtype=torch.float64)
        if self.fabric.world_size > 1:
            sums = _sum(self.fabric, sums.to(self.fabric.device))
        *numbers, stopping = sums.tolist()
        counts = PixelCounts(*numbers)
        # 2. gradients, summed over the batches
        train_mode(self.network, self.params.batch_norm)
        self.stepper.zero_grad()
        # the loss, its in-distribution term, and of each dataset that is told apart, see TrainingState
        terms = torch.zeros(2 + 2 * len(self.apart), device=self.fabric.device)
        for number, batch in enumerate(group, start=1):
            images = to_unit_range(batch.images.to(self.fabric.device)).contiguous(memory_format=torch.channels_last)
            targets = batch.targets.to(self.fabric.device)  # (N, H, W)
            # processes exchange gradients once, after the last batch
            with self.fabric.no_backward_sync(self.wrapped, enabled=number < len(group)):
                logits = self.wrapped(images)
                logits = upsample(logits, targets.shape[1:], bool(self.network.align_corners))
                taught = self._teach(images, targets)
                share = objective(logits, targets, counts, done, *taught)
                self.fabric.backward(share * self.fabric.world_size)  # DDP takes the mean
            with torch.no_grad():
                known = targets.masked_fill(targets == OOD, IGNORE)
                inside = objective(logits, known, counts, done, *taught) if counts.ood else share
                terms[:2] += torch.stack([share.detach(), inside])
                for place, name in enumerate(self.apart, start=1):
                    rows = [row for row, dataset in enumerate(batch.datasets) if dataset == name]
                    if rows:
                        of_rows, soft = count(known[rows], num_classes), [every[rows] for every in taught]
                        mean = float(objective(logits[rows], known[rows], of_rows, done, *soft))
                        terms[2 * place : 2 * place + 2] += terms.new_tensor([len(rows) * mean, len(rows)])
        # 3. no step with a loss that is not finite: the last checkpoint stays good
        loss, inside, *of_sets = _sum(self.fabric, terms).tolist()
        if not math.isfinite(loss):
            names = ", ".join(name for batch in group for name in batch.image_ids)
            where = f"; last good state: {self.resume}" if self.resume else ""
            raise DivergedError(
                f"{self.what}: the loss is {loss} at step {self.state.step + 1}; images: {names}{where}; "
                "try a lower learning_rate, or gradient_clip"
            )
        # 4. the step
        if self.params.gradient_clip:
            self.fabric.clip_gradients(self.wrapped, self.stepper, max_norm=self.params.gradient_clip)
        self.stepper.step()
        if self.ema is not None:
            update_ema(self.ema, self.network, self.params.ema)
        self.state.step += 1
        self.state.recent.append([loss, inside, loss - inside, *of_sets])
        return bool(stopping > 0)

    @torch.no_grad()
    def _teach(self, images: Tensor, targets: Tensor) -> list[Tensor]:
        """Return the teacher's logits at full size; nothing without a teacher."""
        if self.teacher is None:
            return []
        with self.fabric.autocast():
            logits = self.teacher(images).float()
        return [upsample(logits, targets.shape[1:], bool(self.teacher.align_corners))]

    def validate(self, validation: Validation, num_classes: int, log: Log) -> None:
        """Validate the weights that would be kept now; remember them if they are the best."""
        network = self.network if self.ema is None else self.ema
        metrics = validate_all(
            network,
            validation,
            num_classes,
            device=self.fabric.device,
            part=(self.fabric.global_rank, self.fabric.world_size),
            add_up=partial(_sum, self.fabric),
        )
        self._log(log, "validation", metrics)
        self.state.metrics = metrics
        whole = [value for name, value in metrics.items() if "/" not in name]  # without those of each set
        selection_metric = sum(whole) / len(whole)
        if not self.state.best or selection_metric > self.state.best["selection_metric"]:
            self.state.best = {**metrics, "selection_metric": selection_metric, "step": self.state.step}
            self.state.stale = 0
            if self.params.keep == "best":
                self.kept = copy.deepcopy(network.state_dict())
        else:
            self.state.stale += 1

    def log_recent(self, log: Log, bar: Any, seconds: float) -> None:
        """Write the means of the last steps to the log and to the progress bar."""
        recent, self.state.recent = self.state.recent, []
        loss, inside, ood, *of_sets = (sum(values) / len(recent) for values in zip(*recent, strict=True))
        self.state.loss = loss
        rate = self.optimizer.param_groups[0]["lr"]
        speed = len(recent) * self.params.batch_size * self.params.accumulate / seconds
        bar.set_postfix({"loss": f"{loss:.4f}", "lr": f"{rate:.1e}", "img_s": f"{speed:.1f}"}, refresh=False)
        curves = {"loss": loss, "learning_rate": rate, "images_per_second": speed}
        if ood:
            curves |= {"loss_in": inside, "loss_ood": ood}
        for name, total, samples in zip(self.apart, of_sets[::2], of_sets[1::2], strict=True):
            if samples:
                curves[f"loss_in/{name}"] = total / samples
        self._log(log, "train", curves)

    def _log(self, log: Log, group: str, values: Mapping[str, float]) -> None:
        """Log values at this step, and keep them but for the speed, which is another on every machine."""
        step, named = self.state.step, {f"{group}/{name}": value for name, value in values.items()}
        if self.fabric.is_global_zero:
            log(named, step)
        self.state.curves += [
            [step, name, f"{value:.6g}"] for name, value in named.items() if name != "train/images_per_second"
        ]

    def save_checkpoint(self) -> None:
        """Write everything that is needed to continue; only the first process writes."""
        if self.resume and self.fabric.is_global_zero:
            state = {
                "network": self.network.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "ema": {} if self.ema is None else self.ema.state_dict(),
                "kept": self.kept,
                "state": asdict(self.state),
            }
            save_checkpoint(self.resume, state)

    def finish(self) -> dict[str, float]:
        """Leave the weights to keep in the network, on the CPU; return the metrics."""
        found = {**self.state.metrics, "step": self.state.step}
        if self.kept is not None:
            self.network.load_state_dict(self.kept)
            found = self.state.best
        elif self.ema is not None:
            self.network.load_state_dict(self.ema.state_dict())
        self.network.cpu().eval()
        self.fabric.barrier()
        metrics = {"loss": self.state.loss, "steps": float(self.state.step), **found}
        return {name: round(value, 6) for name, value in metrics.items()}


def _launch(machine: Machine, precision: str) -> Fabric:
    """Return Fabric on this machine's device; under torchrun on all of its processes."""
    processes, local = (int(os.environ.get(name, "1")) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    fabric = Fabric(
        accelerator=device_of(machine).type,
        devices=local,
        num_nodes=processes // local,
        # unused parameters: those of auxiliary heads
        strategy="ddp_find_unused_parameters_true" if processes > 1 else "auto",
        precision="bf16-mixed" if precision == "bfloat16" else "32-true",
    )
    fabric.launch()
    end_with_parent()
    set_tf32(precision, fabric.device)
    return fabric


def _epoch_steps(params: OptimisationParams, frames: int, processes: int, what: str) -> int:
    if params.batch_size % processes:
        raise ValueError(f"{what}: batch_size {params.batch_size} is not divisible by {processes} processes")
    together = params.batch_size * params.accumulate
    if frames < together:
        raise ValueError(
            f"{what}: an epoch has {frames} frames, fewer than one step takes: {together} (batch_size x accumulate)"
        )
    return frames // together


def _sum(fabric: Fabric, values: Tensor) -> Tensor:
    """Add up over the processes."""
    total = fabric.all_reduce(values, reduce_op="sum")
    assert isinstance(total, Tensor)
    return total
