"""Training samples: the dataset, the mix of street frames and proxies, the batch loader."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from meta_ood.data.context import progress
from meta_ood.data.frames import Frame
from meta_ood.data.images import read_label_map
from meta_ood.inference.batches import Batch, Sample, read, read_ahead
from meta_ood.training.pasting import OnRoad, Pasting
from meta_ood.training.transforms import paste

Transform = Callable[[Tensor, Tensor, np.random.Generator, float, Pasting | None], tuple[Tensor, Tensor]]
# (n, 2), a row per sample: the frame's index, and the index of the proxy to paste or -1
EpochPlan = npt.NDArray[np.int64]


@dataclass
class SegmentationDataset(Dataset[Sample]):
    """Frames that are decoded when needed and kept in memory as far as they fit."""

    frames: Sequence[Frame]
    transform: Transform | None = None  # applied by `draw`; plain indexing gives the whole frame
    cache: int = 1 << 29  # bytes of decoded frames that are kept
    on_road: OnRoad | None = None  # how objects are pasted into crops; None: by `paste`, into whole frames
    _kept: dict[int, Sample] = field(default_factory=dict, repr=False)
    _used: int = field(default=0, repr=False)

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.frames)

    def __getitem__(self, index: int) -> Sample:
        """Return frame `index` as it is on disk; ValueError if it is damaged."""
        if index in self._kept:
            return self._kept[index]
        sample = read(self.frames[index])
        size = sample.image.numel() + sample.target.numel()
        if self._used + size <= self.cache:
            self._kept[index] = sample
            self._used += size
        return sample

    def draw(self, index: int, pasted: int, seed: Sequence[int]) -> Sample:
        """Return frame `index` with an object of proxy `pasted` (-1: none) in it, augmented by draws from `seed`."""
        sample = self[index]
        image, target, pasting = sample.image, sample.target, None
        generator = np.random.default_rng(seed)
        if self.on_road is not None:
            chosen = self.on_road.choose(pasted, generator)
            target, pasting = self.on_road.prepare(target, [self[proxy] for proxy in chosen])
        elif pasted >= 0:
            proxy = self[pasted]
            image, target = paste(image, target, proxy.image, proxy.target, generator)
        if self.transform is not None:
            image, target = self.transform(image, target, generator, 1.0, pasting)
        return Sample(image, target, sample.image_id)


def mix_proxies(
    streets: int, proxies: int, ratio: float, *, seed: int, epoch: int, redraw: bool = True, style: str = "whole"
) -> EpochPlan:
    """Return the samples of an epoch of OoD training: all street frames and some proxies, shuffled.

    Args:
        streets, proxies: Numbers of frames; in the joined dataset proxies follow the streets.
        ratio: Proxies per street frame (published: 0.1). Above the number of proxies they repeat.
        seed, epoch: The plan depends on these alone.
        redraw: Draw new proxies in each epoch (published), or use those of epoch 0 in all.
        style: ``whole``: proxies are samples (published). ``pasted``, ``on_road``: an object of each proxy is pasted
            into a further street frame, drawn at random.

    Raises:
        ValueError: If proxies are wanted and there are none.
    """
    wanted = round(ratio * streets)
    if wanted and not proxies:
        raise ValueError("OoD training needs proxies, but their dataset has no frame")
    # 1. proxies without replacement, in rounds if more are wanted than there are; the last number
    #    of each seed here keeps the draws of this module independent of each other
    generator = np.random.default_rng((seed, epoch if redraw else 0, 1))
    rounds = [generator.permutation(proxies) for _ in range(-(-wanted // max(proxies, 1)))]
    chosen = streets + np.concatenate([np.empty(0, np.int64), *rounds])[:wanted]
    # 2. all street frames, then the proxies or the street frames to paste them into
    added = (chosen, np.full(wanted, -1))
    if style != "whole":
        added = (generator.integers(0, streets, wanted), chosen)
    plan = np.concatenate([np.stack((np.arange(streets), np.full(streets, -1)), 1), np.stack(added, 1)])
    # 3. a new order in each epoch
    return np.random.default_rng((seed, epoch, 2)).permutation(plan)


def hold_out(frames: Sequence[Frame], fraction: float, *, seed: int) -> tuple[list[Frame], list[Frame]]:
    """Return frames to learn from, at least one, and a random `fraction` of them, rounded down, to validate with."""
    order = np.random.default_rng((seed, 3)).permutation(len(frames))
    held = set(order[: min(int(fraction * len(frames)), len(frames) - 1)].tolist())
    learned = [frame for index, frame in enumerate(frames) if index not in held]
    return learned, [frames[index] for index in sorted(held)]


def count_classes(frames: Sequence[Frame], num_classes: int, workers: int) -> Tensor:
    """Count the pixels of each class, ``(C,) int64``, in the targets of all frames."""
    targets = read_ahead(lambda frame: read_label_map(frame.target), frames, workers, ahead=2 * workers)
    counts = np.zeros(256, np.int64)
    for target in progress(targets, "count classes", len(frames)):
        counts += np.bincount(target.ravel(), minlength=256)
    return torch.from_numpy(counts[:num_classes])


def load_batches(
    dataset: SegmentationDataset,
    plan: EpochPlan,
    batch_size: int,
    *,
    seed: int,
    epoch: int,
    first: int = 0,
    part: tuple[int, int] = (0, 1),
    workers: int = 1,
) -> Iterator[Batch]:
    """Yield the full batches of a plan, read ahead by threads; samples after the last full batch are left out.

    A sample depends on seed, epoch and its place in the plan, not on workers or processes.

    Args:
        dataset, plan: A dataset whose transform gives samples of one size; see :func:`mix_proxies`.
        batch_size: Samples of all processes together.
        seed, epoch: Decide the augmentations.
        first: Number of batches to skip, when training resumes.
        part: (rank, number of processes): each takes its equal share of every batch.
        workers: Number of threads; decoding and augmenting release Python's global lock.
    """
    rank, processes = part
    share = batch_size // processes
    places = [
        place
        for start in range(first * batch_size, len(plan) - batch_size + 1, batch_size)
        for place in range(start + rank * share, start + (rank + 1) * share)
    ]

    def draw(place: int) -> Sample:
        index, pasted = plan[place].tolist()
        return dataset.draw(index, pasted, (seed, epoch, place))

    samples = read_ahead(draw, places, workers, ahead=3 * share)
    while group := list(islice(samples, share)):
        yield Batch.of(group)
