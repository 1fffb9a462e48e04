"""How good a network is while it trains: mIoU of the known classes, separation of the proxies."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from meta_ood.data.context import Machine
from meta_ood.data.labels import OOD
from meta_ood.inference.batches import Batch, Sample, to_unit_range
from meta_ood.models import upsample
from meta_ood.models.device import device_of
from meta_ood.training.loader import SegmentationDataset

_BINS = 1000


@dataclass(frozen=True)
class Validation:
    """What is looked at during training.

    Attributes:
        dataset: Whole frames: streets, then held-out proxies if there are any.
    """

    dataset: SegmentationDataset
    proxies: bool = False


def mean_iou(confusion: Tensor) -> float:
    """Return the mean IoU over the classes that occur in target or prediction.

    Args:
        confusion: ``(C, C)`` pixel counts, rows: target, columns: prediction.

    Examples:
        >>> mean_iou(torch.tensor([[3, 1, 0], [0, 4, 0], [0, 0, 0]]))
        0.775
    """
    counts = confusion.double()
    hits = counts.diagonal()
    union = counts.sum(0) + counts.sum(1) - hits
    occurs = union > 0
    return round(float((hits[occurs] / union[occurs]).mean()), 6) if bool(occurs.any()) else 0.0


def separation(outside: Tensor, inside: Tensor) -> float:
    """Return the AUROC of OoD pixels against known ones from two histograms of a score.

    Args:
        outside, inside: ``(bins,)`` counts, ascending scores; pixels of one bin count as ties.

    Examples:
        >>> separation(torch.tensor([0, 1, 3]), torch.tensor([2, 2, 0]))
        0.9375
    """
    out, known = outside.double(), inside.double()
    below = known.cumsum(0) - known
    pairs = float(out.sum() * known.sum())
    return round(float((out * (below + known / 2)).sum()) / pairs, 6) if pairs else float("nan")


@torch.inference_mode()
def validate(
    network: nn.Module,
    dataset: SegmentationDataset,
    indices: Sequence[int],
    num_classes: int,
    *,
    device: torch.device,
    batch_size: int = 8,
) -> tuple[Tensor, Tensor]:
    """Run a network over whole frames and count.

    Args:
        network: Called in eval mode and left in the mode that it came in.
        dataset, indices: Which frames.
        num_classes: C.
        device: Where the network is.
        batch_size: Frames of one size that go through together.

    Returns:
        Confusion ``(C, C)`` and entropy histograms ``(2, bins)`` of OoD and of known pixels, int64, on `device`:
        additive over frames and processes.
    """
    training = network.training
    network.eval()
    confusion = torch.zeros(num_classes * num_classes, dtype=torch.int64, device=device)
    histograms = torch.zeros(2, _BINS, dtype=torch.int64, device=device)
    align: bool = getattr(network, "align_corners", True)
    for batch in _equal_sizes((dataset[i] for i in indices), batch_size):
        targets = batch.targets.to(device)
        logits = network(to_unit_range(batch.images.to(device)))
        logits = upsample(logits.float(), (targets.shape[1], targets.shape[2]), align)
        known = targets < num_classes
        pairs = targets[known].long() * num_classes + logits.argmax(1)[known]
        confusion += torch.bincount(pairs, minlength=len(confusion))
        bins = (_entropy(logits) * _BINS).long().clamp_(0, _BINS - 1)
        for row, chosen in enumerate((targets == OOD, known)):
            histograms[row] += torch.bincount(bins[chosen], minlength=_BINS)
    network.train(training)
    return confusion.reshape(num_classes, num_classes), histograms


def evaluate_once(network: nn.Module, validation: Validation, num_classes: int, machine: Machine) -> dict[str, float]:
    """Return the figures of a network that is not trained here."""
    device = device_of(machine)
    confusion, _ = validate(
        network.to(device), validation.dataset, range(len(validation.dataset)), num_classes, device=device
    )
    network.cpu()
    return {"miou": mean_iou(confusion)}


def write_metrics(path: Path, values: Mapping[str, float]) -> None:
    """Write figures as sorted JSON, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")  # one a process
    temporary.write_text(json.dumps(dict(values), indent=2, sort_keys=True) + "\n", "utf-8")
    temporary.replace(path)


def _entropy(logits: Tensor) -> Tensor:
    log_p = torch.log_softmax(logits, 1)
    return -(log_p.exp() * log_p).sum(1) / torch.log(torch.tensor(float(logits.shape[1])))


def _equal_sizes(samples: Iterator[Sample], most: int) -> Iterator[Batch]:
    """Group neighbours of one size."""
    group: list[Sample] = []
    for sample in samples:
        if group and (len(group) == most or group[0].image.shape != sample.image.shape):
            yield Batch.of(group)
            group = []
        group.append(sample)
    if group:
        yield Batch.of(group)
