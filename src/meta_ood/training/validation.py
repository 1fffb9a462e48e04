"""Quality of a network while it trains: mIoU of the known classes, AUROC of held-out proxies."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from meta_ood.data.context import Machine, progress
from meta_ood.data.labels import OOD
from meta_ood.inference.batches import equal_sizes, to_unit_range
from meta_ood.metrics.semantic import mean_iou
from meta_ood.models import upsample
from meta_ood.models.device import device_of
from meta_ood.training.loader import SegmentationDataset

BINS = 1000  # of the entropy in [0, 1]: fine enough to choose weights by, and small on a GPU


@dataclass(frozen=True)
class Validation:
    """The whole frames that a training is validated with: streets, then held-out proxies if there are any."""

    dataset: SegmentationDataset
    proxies: bool = False  # whether there are any

    def parts(self) -> Iterator[tuple[str, range]]:
        """Yield the frames of each street set with its name, where there are several; all others without a name."""
        sets = self.dataset.sets[:-1] if self.proxies else self.dataset.sets
        begin = 0
        for own in sets if len(sets) > 1 else ():
            yield own.name, range(begin, begin := begin + len(own.frames))
        yield "", range(begin, len(self.dataset))


def validation_metrics(confusion: Tensor, entropies: Tensor | None) -> dict[str, float]:
    """Return ``miou``, and ``proxy_auroc`` if there are OoD pixels, from the counts of :func:`validate`.

    Examples:
        >>> entropies = torch.tensor([[0, 1, 3], [2, 2, 0]])
        >>> validation_metrics(torch.tensor([[3, 1, 0], [0, 4, 0], [0, 0, 0]]), entropies)
        {'miou': 0.775, 'proxy_auroc': 0.9375}
    """
    miou = mean_iou(confusion.cpu().numpy())
    metrics = {"miou": 0.0 if np.isnan(miou) else round(miou, 6)}
    if entropies is not None and bool(entropies.any(1).all()):
        counts = entropies.cpu().numpy()
        # the score of a pixel is its bin, and pixels of one bin are ties
        scores, is_ood = np.tile(np.arange(counts.shape[1]), 2), np.repeat([1, 0], counts.shape[1])
        auroc = roc_auc_score(is_ood, scores, sample_weight=counts.ravel())
        metrics["proxy_auroc"] = round(float(auroc), 6)
    return metrics


@torch.inference_mode()
def validate(
    network: nn.Module,
    dataset: SegmentationDataset,
    indices: Sequence[int],
    num_classes: int,
    *,
    device: torch.device,
    batch_size: int = 2,  # more of them are slower on a CPU: fresh memory for maps of all classes costs page faults
) -> tuple[Tensor, Tensor]:
    """Run a network in eval mode over whole frames, `batch_size` of one size together, and count pixels.

    Returns:
        Confusion ``(C, C)`` (row: target, column: prediction) and entropy histograms ``(2, BINS)`` of OoD and of known
        pixels, int64, on `device`. Both add up over frames and processes.
    """
    training = network.training
    network.eval()
    confusion = torch.zeros(num_classes * num_classes, dtype=torch.int64, device=device)
    entropies = torch.zeros(2, BINS, dtype=torch.int64, device=device)
    for batch in equal_sizes((dataset[i] for i in progress(indices, "validate")), batch_size):
        # 1. logits at full size
        targets = batch.targets.to(device)  # (N, H, W)
        logits = network(to_unit_range(batch.images.to(device)))
        logits = upsample(logits.float(), targets.shape[1:], bool(network.align_corners))
        # 2. pairs of target and predicted class at the known pixels
        known = targets < num_classes
        pairs = targets[known].long() * num_classes + logits.argmax(1)[known]
        confusion += torch.bincount(pairs, minlength=len(confusion))
        # 3. the entropy's bin at OoD and at known pixels
        log_p = torch.log_softmax(logits, 1)
        entropy = -(log_p.exp() * log_p).sum(1) / torch.log(torch.tensor(float(num_classes)))  # of [0, 1]
        bins = (entropy * BINS).long().clamp_(0, BINS - 1)
        for row, chosen in zip(entropies, (targets == OOD, known), strict=True):
            row += torch.bincount(bins[chosen], minlength=BINS)
    network.train(training)
    return confusion.reshape(num_classes, num_classes), entropies


def validate_all(
    network: nn.Module,
    validation: Validation,
    num_classes: int,
    *,
    device: torch.device,
    part: tuple[int, int] = (0, 1),
    add_up: Callable[[Tensor], Tensor] = lambda counts: counts,
) -> dict[str, float]:
    """Return :func:`validation_metrics` of all frames, and ``miou/NAME`` of each street set where there are several.

    `part` is (rank, number of processes): each takes its share of the frames, and `add_up` sums over the processes.
    """
    rank, processes = part
    whole, apart = [], {}
    for name, frames in validation.parts():
        own = [index for index in frames if index % processes == rank]
        counts = [add_up(c) for c in validate(network, validation.dataset, own, num_classes, device=device)]
        whole.append(counts)
        if name:
            apart[f"miou/{name}"] = validation_metrics(counts[0], None)["miou"]
    confusion, entropies = (torch.stack(counts).sum(0) for counts in zip(*whole, strict=True))
    return validation_metrics(confusion, entropies if validation.proxies else None) | apart


def evaluate_once(network: nn.Module, validation: Validation, num_classes: int, machine: Machine) -> dict[str, float]:
    """Return the metrics of a network that is not trained further; it ends on the CPU."""
    device = device_of(machine)
    metrics = validate_all(network.to(device), validation, num_classes, device=device)
    network.cpu()
    return metrics
