"""Training samples: the dataset class, the mix of street frames and proxies, the batch loader."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from torch import Tensor
from torch.utils.data import Dataset

from meta_ood.data.frames import Frame
from meta_ood.inference.batches import Batch, Sample, read

Transform = Callable[[Tensor, Tensor, np.random.Generator], tuple[Tensor, Tensor]]


Plan = npt.NDArray[np.int64]
"""(n, 2): what an epoch sees, in this order: a frame, and the proxy pasted into it or -1."""


@dataclass
class SegmentationDataset(Dataset[Sample]):
    """Frames, decoded and kept in memory as long as they fit.

    Attributes:
        frames: What ``prepare`` wrote; several datasets are one after joining their lists.
        transform: Applied by :meth:`draw`; plain indexing gives the whole frame.
        cache: Bytes of decoded frames that are kept; 0 keeps none.
    """

    frames: Sequence[Frame]
    transform: Transform | None = None
    cache: int = 1 << 29
    _kept: dict[int, Sample] = field(default_factory=dict, repr=False)
    _used: int = field(default=0, repr=False)

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.frames)

    def __getitem__(self, index: int) -> Sample:
        """Return frame `index` as it is on disk.

        Raises:
            ValueError: If image and target differ in size.
        """
        sample = self._kept.get(index)
        if sample is None:
            sample = read(self.frames[index])
            size = sample.image.numel() + sample.target.numel()
            if self._used + size <= self.cache:
                self._kept[index] = sample
                self._used += size
        return sample

    def draw(self, index: int, pasted: int, seed: Sequence[int]) -> Sample:
        """Return frame `index`, transformed by the draws that belong to `seed`.

        Args:
            index: The frame.
            pasted: The proxy of which an object is pasted into it before; -1: none.
            seed: Decides all draws.
        """
        sample = self[index]
        image, target = sample.image, sample.target
        generator = np.random.default_rng(seed)
        if pasted >= 0:
            from meta_ood.training.transforms import paste

            proxy = self[pasted]
            image, target = paste(image, target, proxy.image, proxy.target, generator)
        if self.transform is not None:
            image, target = self.transform(image, target, generator)
        return Sample(image, target, sample.image_id)


def mix_proxies(
    streets: int, proxies: int, ratio: float, *, seed: int, epoch: int, redraw: bool = True, style: str = "whole"
) -> Plan:
    """Return what an epoch of OoD training sees: all street frames, some proxies, shuffled.

    Args:
        streets, proxies: Numbers of frames; proxies come after the streets in the joined dataset.
        ratio: Proxies per street frame (published: 0.1). Above the number of proxies they repeat.
        seed, epoch: The plan is a function of these alone.
        redraw: Draw other proxies each epoch (published) or always those of epoch 0.
        style: ``whole``: proxies are frames of their own (published). ``pasted``: each proxy lends an object to a
            further street frame, drawn at random.

    Returns:
        ``(n, 2) int64``: an index into ``[streets, proxies]``, and one of a proxy to paste or -1.

    Examples:
        >>> plan = mix_proxies(4, 10, 0.5, seed=0, epoch=0)[:, 0]
        >>> sorted(plan[plan < 4].tolist()), int((plan >= 4).sum())
        ([0, 1, 2, 3], 2)
    """
    wanted = round(ratio * streets)
    if wanted and not proxies:
        raise ValueError("OoD training needs proxies, but their dataset has no frame")
    generator = np.random.default_rng((seed, epoch if redraw else 0, 1))
    rounds = [generator.permutation(proxies) for _ in range(-(-wanted // max(proxies, 1)))]
    chosen = streets + np.concatenate([np.empty(0, np.int64), *rounds])[:wanted]
    plan = np.full((streets + wanted, 2), -1, np.int64)
    plan[:streets, 0] = np.arange(streets)
    if style == "pasted":
        plan[streets:, 0] = generator.integers(0, streets, wanted)
        plan[streets:, 1] = chosen
    else:
        plan[streets:, 0] = chosen
    return np.random.default_rng((seed, epoch, 2)).permutation(plan)


def hold_out(frames: Sequence[Frame], fraction: float, *, seed: int) -> tuple[list[Frame], list[Frame]]:
    """Split frames at random into those to learn from and those to validate with.

    Args:
        frames: At least one is learned from.
        fraction: Share that is held out, rounded down.
        seed: Decides the split.
    """
    order = np.random.default_rng((seed, 3)).permutation(len(frames))
    held = set(order[: min(int(fraction * len(frames)), len(frames) - 1)].tolist())
    learned = [frame for index, frame in enumerate(frames) if index not in held]
    return learned, [frames[index] for index in sorted(held)]


def load_batches(
    dataset: SegmentationDataset,
    plan: Plan,
    batch_size: int,
    *,
    seed: int,
    epoch: int,
    first: int = 0,
    part: tuple[int, int] = (0, 1),
    workers: int = 1,
) -> Iterator[Batch]:
    """Yield the full batches of a plan, read ahead by threads.

    A sample depends on seed, epoch and its place in the plan, not on workers or processes.

    Args:
        dataset: Its transform must give samples of one size.
        plan: See :func:`mix_proxies`; what is left over after the last full batch is not seen.
        batch_size: Samples of all processes together.
        seed, epoch: Of the augmentations.
        first: Batches to leave out at the start, to resume.
        part: (rank, number of processes): each takes its equal share of every batch.
        workers: Threads; decoding and augmenting leave the interpreter's lock.
    """
    rank, processes = part
    share = batch_size // processes
    places = [
        place
        for start in range(first * batch_size, len(plan) - batch_size + 1, batch_size)
        for place in range(start + rank * share, start + (rank + 1) * share)
    ]
    ahead: deque[Future[Sample]] = deque()
    with ThreadPoolExecutor(max(1, workers), thread_name_prefix="loader") as pool:
        try:
            upcoming = iter(places)
            samples: list[Sample] = []
            for _ in places:
                while len(ahead) < 3 * share and (place := next(upcoming, None)) is not None:
                    index, pasted = plan[place].tolist()
                    ahead.append(pool.submit(dataset.draw, index, pasted, (seed, epoch, place)))
                samples.append(ahead.popleft().result())
                if len(samples) == share:
                    yield Batch.of(samples)
                    samples = []
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
