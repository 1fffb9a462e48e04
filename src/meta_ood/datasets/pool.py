"""Independent work over many files, in order, by as many processes as pay off."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")

POOL_FROM = 256
"""Number of items below which starting processes costs more than it saves."""


def ordered_map(work: Callable[[A], B], items: Sequence[A], workers: int) -> Iterator[B]:
    """Yield ``work(item)`` for each item, in order.

    Parameters
    ----------
    work
        Can be pickled.
    items
        What to work on.
    workers
        Processes; 1 works in this one.
    """
    if workers <= 1 or len(items) < POOL_FROM:
        yield from map(work, items)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        try:
            yield from pool.map(work, items, chunksize=16)
        finally:
            pool.shutdown(cancel_futures=True)
