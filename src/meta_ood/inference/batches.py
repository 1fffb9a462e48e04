"""Decode frames ahead of their use and stack them to batches of equal size."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Self, TypeVar

import torch
from torch import Tensor

from meta_ood.data.frames import Frame
from meta_ood.data.images import read_image, read_label_map
from meta_ood.data.labels import LabelMap

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Sample:
    """One image with its target (see :mod:`meta_ood.data.labels`)."""

    image: Tensor  # (3, H, W) uint8
    target: Tensor  # (H, W) uint8
    image_id: str
    label_ids: LabelMap | None = None  # if the dataset has them and they were asked for
    dataset: str = ""  # where several are told apart


@dataclass(frozen=True)
class Batch:
    """Samples of one size."""

    images: Tensor  # (N, 3, H, W) uint8
    targets: Tensor  # (N, H, W) uint8
    image_ids: list[str]
    label_ids: list[LabelMap | None]
    datasets: list[str]

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> Self:
        """Return samples of one size, stacked."""
        images, targets = torch.stack([s.image for s in samples]), torch.stack([s.target for s in samples])
        names, label_ids = [s.image_id for s in samples], [s.label_ids for s in samples]
        return cls(images, targets, names, label_ids, [s.dataset for s in samples])


def to_unit_range(images: Tensor) -> Tensor:
    """Return bytes as float32 in [0, 1], which every network takes."""
    return images.to(torch.float32).mul_(1 / 255)


def read(frame: Frame, label_ids: bool = False) -> Sample:
    """Return a decoded frame, with `label_ids` also its label ids if it has them.

    FileNotFoundError if a file is missing, ValueError if one is damaged or image and target differ in size.
    """
    image, target = read_image(frame.image), read_label_map(frame.target)
    if image.shape[:2] != target.shape:
        raise ValueError(f"{frame.image_id}: image {image.shape[:2]} and target {target.shape} differ in size")
    ids = read_label_map(frame.label_ids) if label_ids and frame.label_ids is not None else None
    pixels = torch.from_numpy(image).permute(2, 0, 1).contiguous()
    return Sample(pixels, torch.from_numpy(target), frame.image_id, ids)


def read_ahead(call: Callable[[T], R], items: Iterable[T], workers: int, ahead: int) -> Generator[R, None, None]:
    """Yield ``call(item)`` for each item, in order; threads compute up to `ahead` of them early."""
    with ThreadPoolExecutor(max(1, workers)) as pool, closing(call_ahead(pool, call, items, ahead)) as results:
        yield from results


def call_ahead(pool: Executor, call: Callable[[T], R], items: Iterable[T], ahead: int) -> Generator[R, None, None]:
    """Yield ``call(item)`` for each item, in order; `pool` computes up to `ahead` of them early."""
    pending: deque[Future[R]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(call, item))
            if len(pending) > ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:  # also if the consumer stops early: calls that have not begun are dropped
        for future in pending:
            future.cancel()


def equal_sizes(samples: Iterable[Sample], most: int) -> Iterator[Batch]:
    """Yield batches of up to `most` neighbouring samples of one size, in order."""
    for _, neighbours in groupby(samples, lambda sample: sample.image.shape):
        while group := list(islice(neighbours, most)):
            yield Batch.of(group)
