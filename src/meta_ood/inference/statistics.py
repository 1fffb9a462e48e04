"""Statistics of training frames that scores need, in one pass: :class:`Fitting` adds up, frame by frame.

They are a safetensors file: the tensors of :meth:`Fitting.result` by name, none where no score needs any.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn.functional import interpolate

from meta_ood.config import InferParams
from meta_ood.data.context import Machine, progress
from meta_ood.data.files import readable, write_bytes
from meta_ood.data.frames import Frame
from meta_ood.inference.batches import equal_sizes, read, read_ahead
from meta_ood.inference.features import FeatureSums, Tap
from meta_ood.inference.prediction import average_logits
from meta_ood.inference.stored_scores import Scorer, sources
from meta_ood.models.device import device_of
from meta_ood.scores import FEATURES

SAVED_EVERY = 50  # frames: at most so many are added again after a kill


class Fitting:
    """Sums over pixels of training frames, in float64; their memory does not depend on the number of frames."""

    def __init__(self, classes: int, frames: int = 1, tap: Tap | None = None, seed: int = 0) -> None:
        """Start from nothing; with a tap, `frames` with features follow, of each of which `seed` draws some pixels."""
        self.classes, self.tap = classes, tap
        self.features = FeatureSums(classes, frames, seed)
        self.labels = torch.zeros(classes, dtype=torch.float64)  # pixels of each class in the targets
        self.powers = torch.zeros(3, classes, dtype=torch.float64)  # of the largest logit, by predicted class

    def add(self, logits: Tensor, target: Tensor) -> None:
        """Add frames: logits ``(N, C, h, w)``, targets ``(N, H, W) uint8``; pixels without a train id are left out."""
        labels = at_size(target, logits.shape[2:]).flatten()
        is_known = labels < self.classes
        self.labels += torch.bincount(labels[is_known], minlength=self.classes).cpu()
        largest, predicted = (values.flatten()[is_known] for values in logits.max(1))
        largest = largest.double()
        for power, sums in enumerate(self.powers):
            sums += torch.bincount(predicted, largest**power, self.classes).cpu()
        if self.tap:
            for features, own in zip(self.tap.features, target, strict=True):
                self.features.add(features, at_size(own[None], features.shape[1:])[0])

    def state(self, frames: int) -> dict[str, Tensor]:
        """Return what :meth:`restore` goes on from, after so many frames."""
        own = {"frames": torch.tensor(frames), "labels": self.labels, "powers": self.powers}
        return own | (self.features.state() if self.tap else {})

    def restore(self, state: Mapping[str, Tensor], device: torch.device) -> int:
        """Go on from a :meth:`state`; return the number of its frames."""
        self.labels, self.powers = state["labels"], state["powers"]
        if self.tap:
            self.features.restore(state, device)
        return int(state["frames"])

    def result(self) -> dict[str, Tensor]:
        """Return the statistics of all frames that were added, ``(C,)`` each, and those of features.

        ``prior``: share of each class in the targets, where each class counts a pixel more than it has, so that none is
        0; ``mean``, ``deviation``: of the largest logit where the class is predicted, 0 and 1 where it is nowhere.
        """
        count, first, second = self.powers
        mean = first / count.clamp(min=1)
        variance = (second / count.clamp(min=1) - mean**2).clamp(min=0)
        counts = self.labels + 1
        deviation = torch.where(variance > 0, variance.sqrt(), torch.ones_like(variance))
        found = {"prior": counts / counts.sum(), "mean": mean, "deviation": deviation}
        return found | (self.features.result(self.tap, first.sum() / count.sum()) if self.tap else {})


def at_size(target: Tensor, size: Sequence[int]) -> Tensor:
    """Return targets ``(N, H, W) uint8`` at the pixels nearest to the centres of a grid: ``(N, h, w) int64``."""
    return interpolate(target[:, None].float(), tuple(size), mode="nearest-exact")[:, 0].long()


def fit(
    network: nn.Module,
    frames: Sequence[Frame],
    params: InferParams,
    machine: Machine,
    classes: int,
    seed: int = 0,
    state: Path | None = None,
) -> dict[str, Tensor]:
    """Return the statistics of training frames, see :meth:`Fitting.result`.

    The network sees a frame as in :func:`meta_ood.inference.predict`, but once and whole, without flips, scales and
    tiles. `seed` draws the sample of features. Sums are kept in the file `state` now and then: a fit that finds it goes
    on from there, with the same result to the bit.

    Raises:
        ValueError: If no pixel has a label.
    """
    device = device_of(machine)
    network = network.to(device).eval()
    once = params.model_copy(update={"flip": False, "scales": (1.0,), "tile": 0})
    tap = Tap(network) if FEATURES in sources(params.scores) else None
    fitting = Fitting(classes, len(frames), tap, seed)
    runner = Scorer(network, tap=tap)
    done = fitting.restore(read_statistics(state), device) if state and state.is_file() else 0
    samples = read_ahead(partial(read), frames[done:], machine.workers, ahead=2)
    for number, batch in enumerate(progress(equal_sizes(samples, 1), "statistics", len(frames) - done), start=done + 1):
        logits = average_logits(runner, batch.images.to(device), once).float()
        fitting.add(logits, batch.targets.to(device))
        if state and number % SAVED_EVERY == 0:
            write_statistics(state, fitting.state(number))
    if not fitting.labels.any():
        raise ValueError("roles.training: no pixel has a label, from which alone `statistics` learns")
    return fitting.result()


def write_statistics(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write statistics atomically."""
    write_bytes(path, save({name: value.contiguous() for name, value in tensors.items()}))


def read_statistics(path: Path) -> dict[str, Tensor]:
    """Read what :func:`write_statistics` wrote; FileNotFoundError, or ValueError with the path if it is damaged."""
    with readable(path, "not a file of statistics, or damaged"):
        return load_file(path)
