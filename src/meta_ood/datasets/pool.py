"""Independent work over many files, in order, in several processes where that pays off."""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")

POOL_FROM = 256  # items; for fewer, starting processes costs more than it saves


def ordered_map(work: Callable[[A], B], items: Sequence[A], workers: int) -> Iterator[B]:
    """Yield ``work(item)`` for each item, in order; with several workers `work` must be one that can be pickled."""
    if workers <= 1 or len(items) < POOL_FROM:
        yield from map(work, items)
        return
    # a forked child would inherit the locks of threads that it does not have
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            yield from pool.map(work, items, chunksize=16)
        finally:
            pool.shutdown(cancel_futures=True)
