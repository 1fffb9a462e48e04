"""Cells of keys: pages, dropped bits, and rising lists of distinct keys with their counts."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from meta_ood.metrics.pixel import _kernel
from meta_ood.metrics.pixel.keys import Keys

Integers = npt.NDArray[np.int64]
Column = tuple[Keys, Integers]
"""Rising distinct keys and their counts."""

PAGES = 1 << 16
LAST_SHIFT = 16
FINE = (0x407F, 0x4080, 0xBF7F, 0xBF80)
"""Pages around -1 and +1, where probabilities pile up: they drop their bits 8 steps later."""
FINE_BITS = 8
NOTHING: Column = (np.empty(0, np.uint32), np.empty(0, np.int64))


def dropped_bits(shift: int) -> npt.NDArray[np.uint32]:
    """Return the dropped bits of every page ``(65536,)``."""
    shifts = np.full(PAGES, shift, np.uint32)
    shifts[list(FINE)] = max(0, shift - FINE_BITS)
    return shifts


def sparse_room(shift: int) -> Integers:
    """Return per page how many distinct keys a sparse page holds at most: half a dense row."""
    return np.asarray((PAGES >> dropped_bits(shift)) // 2, np.int64)


def distinct_by_shift(keys: Keys) -> Integers:
    """Return how many distinct keys each page holds at each shift, ``(65536, 17)``.

    Two neighbours stay distinct at shift s if they differ in a bit from s on.
    """
    table = np.zeros((PAGES, LAST_SHIFT + 2), np.int64)
    if keys.size:
        differ = np.bitwise_xor(keys[1:], keys[:-1])
        bits = np.full(keys.size, LAST_SHIFT + 1, np.int64)  # the first key counts at every shift
        np.minimum(np.frexp(differ.astype(np.float64))[1], LAST_SHIFT + 1, out=bits[1:])
        bits += (keys >> 16).astype(np.int64) * (LAST_SHIFT + 2)
        table = np.bincount(bits, minlength=table.size).reshape(table.shape)
    return np.cumsum(table[:, ::-1], axis=1)[:, ::-1][:, 1:]


def runs(keys: Keys) -> Column:
    """Return distinct values and their number in sorted keys."""
    if not keys.size:
        return NOTHING
    ends = np.flatnonzero(keys[1:] != keys[:-1])
    ends = np.append(ends, keys.size - 1)
    return keys[ends], np.diff(ends, prepend=-1)


def union(a: Column, b: Column) -> Column:
    """Merge two rising lists of keys with counts."""
    if not a[0].size or not b[0].size:
        return a if a[0].size else b
    return add_cells(a, b, _NOWHERE, _WHOLE, _NO_ROW)


def add_cells(sparse: Column, more: Column, start: Integers, shifts: npt.NDArray[np.uint8], row: Integers) -> Column:
    """Add `more` to the rows of its pages, else to the `sparse` list, which is returned anew.

    Args:
        sparse: Cells that lie in no dense page.
        more: Rising keys and their counts; keys that fall into one cell become one.
        start: Where each page begins in `row`, ``(65536,)``; below 0 where it is not dense.
        shifts: Dropped bits of each page, ``(65536,)``.
        row: Counters of the dense pages.
    """
    room = sparse[0].size + more[0].size
    keys, counts = np.empty(room, np.uint32), np.empty(room, np.int64)
    n = _kernel.add_cells(*sparse, *more, start, shifts, row, keys, counts)
    return (keys, counts) if n == room else (keys[:n].copy(), counts[:n].copy())


_NOWHERE = np.full(PAGES, -1, np.int64)
_WHOLE = np.zeros(PAGES, np.uint8)
_NO_ROW = np.empty(0, np.int64)
