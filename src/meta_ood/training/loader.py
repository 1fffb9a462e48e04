"""Training samples: the dataset, the mix of street frames and proxies, the batch loader."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import Self

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

# (image, target, source of draws, scale of its dataset, what pastes objects) -> image, target
Transform = Callable[[Tensor, Tensor, np.random.Generator, float, Pasting | None], tuple[Tensor, Tensor]]
# (n, 2), a row per sample: the frame's index, and the index of the proxy to paste or -1
EpochPlan = npt.NDArray[np.int64]
# sets that are drawn from separately: the number of frames of each, and its weight
Pool = Sequence[tuple[int, float]]


@dataclass(frozen=True)
class FrameSet:
    """The frames that one dataset brings into a role of training."""

    name: str
    frames: Sequence[Frame]
    weight: float | None = None  # its share of the samples, among the weights of the role; None: frames count alike
    scale: float = 1.0  # by which its frames are enlarged further


def pool_of(sets: Sequence[FrameSet]) -> Pool:
    """Return what is drawn from separately: each set, or with no weights all frames as one."""
    pool = [(len(own.frames), own.weight) for own in sets if own.weight is not None]
    return pool or [(sum(len(own.frames) for own in sets), 1.0)]


@dataclass
class SegmentationDataset(Dataset[Sample]):
    """Frames that are decoded when needed and kept in memory as far as they fit."""

    frames: Sequence[Frame]
    transform: Transform | None = None  # applied by `draw`; plain indexing gives the whole frame
    cache: int = 1 << 29  # bytes of decoded frames that are kept
    on_road: OnRoad | None = None  # how objects are pasted into crops; None: by `paste`, into whole frames
    sets: Sequence[FrameSet] = ()  # those of `frames`, one after the other; where they are not told apart: none
    _kept: dict[int, Sample] = field(default_factory=dict, repr=False)
    _used: int = field(default=0, repr=False)

    @classmethod
    def of(cls, sets: Sequence[FrameSet], transform: Transform | None = None) -> Self:
        """Return the frames of several sets, joined."""
        return cls([frame for own in sets for frame in own.frames], transform, sets=sets)

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.frames)

    @cached_property
    def _set_of(self) -> list[FrameSet]:
        """The set of each frame."""
        sets = self.sets or [FrameSet("", self.frames)]
        return [own for own in sets for _ in own.frames]

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
        generator, own = np.random.default_rng(seed), self._set_of[index]
        if self.on_road is not None:
            chosen = self.on_road.choose(pasted, generator)
            target, pasting = self.on_road.prepare(target, [self[proxy] for proxy in chosen], own.scale)
        elif pasted >= 0:
            proxy = self[pasted]
            image, target = paste(image, target, proxy.image, proxy.target, generator)
        if self.transform is not None:
            image, target = self.transform(image, target, generator, own.scale, pasting)
        return Sample(image, target, sample.image_id, dataset=own.name)


def mix_proxies(
    streets: int | Pool,
    proxies: int | Pool,
    ratio: float,
    *,
    seed: int,
    epoch: int,
    samples: int = 0,
    redraw: bool = True,
    style: str = "whole",
) -> EpochPlan:
    """Return the samples of an epoch of OoD training: street frames and some proxies, shuffled.

    Args:
        streets, proxies: Numbers of frames, or sets to draw from by their weights; in the joined dataset proxies
            follow the streets.
        ratio: Proxies per street sample (published: 0.1). Above the number of proxies they repeat.
        seed, epoch: The plan depends on these alone.
        samples: Street samples; 0: as many as there are frames. Every frame of a set is drawn before one is drawn
            again, also from epoch to epoch.
        redraw: Draw new proxies in each epoch (published), or use those of epoch 0 in all.
        style: ``whole``: proxies are samples (published). ``pasted``, ``on_road``: an object of each proxy is pasted
            into a further street frame, drawn at random.

    Raises:
        ValueError: If proxies are wanted and there are none.
    """
    street_pool = [(streets, 1.0)] if isinstance(streets, int) else streets
    proxy_pool = [(proxies, 1.0)] if isinstance(proxies, int) else proxies
    first_proxy = sum(frames for frames, _ in street_pool)
    # 1. street frames, from epoch to epoch through endless rounds of permutations of each set; the last number of each
    #    seed here keeps the draws of this module independent of each other
    parts, begin = [], 0
    for number, (frames, taken) in enumerate(_shares(street_pool, samples or first_proxy)):
        rounds = range(epoch * taken // frames, -(-(epoch + 1) * taken // frames))
        order = [np.random.default_rng((seed, r, number, 4)).permutation(frames) for r in rounds]
        start = epoch * taken % frames
        parts.append(begin + np.sort(np.concatenate([np.empty(0, np.int64), *order])[start : start + taken]))
        begin += frames
    chosen = np.concatenate(parts)
    # 2. proxies, anew in each epoch, without replacement, in rounds if more are wanted than there are
    wanted = round(ratio * len(chosen))
    if wanted and not all(frames for frames, _ in proxy_pool):
        raise ValueError("OoD training needs proxies, but their dataset has no frame")
    generator = np.random.default_rng((seed, epoch if redraw else 0, 1))
    drawn, begin = [np.empty(0, np.int64)], first_proxy
    for frames, taken in _shares(proxy_pool, wanted):
        drawn += [begin + generator.permutation(frames)[: taken - done] for done in range(0, taken, max(frames, 1))]
        begin += frames
    objects = np.concatenate(drawn)
    # 3. proxies are samples, or are pasted into street frames of this epoch
    added = (objects, np.full(wanted, -1))
    if style != "whole":
        added = (chosen[generator.integers(0, len(chosen), wanted)], objects)
    plan = np.concatenate([np.stack((chosen, np.full(len(chosen), -1)), 1), np.stack(added, 1)])
    # 4. a new order in each epoch
    return np.random.default_rng((seed, epoch, 2)).permutation(plan)


def _shares(pool: Pool, total: int) -> Iterator[tuple[int, int]]:
    """Yield the number of frames of each set and the samples to draw of it: `total` in all, by weight.

    Examples:
        >>> list(_shares([(500, 0.6), (300, 0.4)], 101))
        [(500, 61), (300, 40)]
    """
    weights = np.cumsum([weight for _, weight in pool])
    ends = np.rint(total * weights / weights[-1]).astype(int)
    for (frames, _), taken in zip(pool, np.diff(ends, prepend=0), strict=True):
        yield frames, int(taken)


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
