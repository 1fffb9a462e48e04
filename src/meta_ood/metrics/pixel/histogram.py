"""ScoreHistogram: the scores of any number of pixels, exact while they fit, bounded always.

A ``float32`` becomes a ``uint32`` key of the same order; pixels are counted per key. Keys that
share their upper 16 bits form a page; a page with many distinct keys is a dense row of counters,
the others share one sorted list. When all that needs more than ``cells`` counters, the lowest bit
of every key is dropped, again and again, until it fits. How many bits go depends on the multiset
of pixels alone: frames, workers and machines add up in any order to the same bits.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from meta_ood.labels import IGNORE, IN, NEUTRAL, OOD, LabelMap
from meta_ood.metrics.pixel.keys import Keys, as_float32, check_maps, order_keys

Integers = npt.NDArray[np.int64]
Counts = Integers
Column = tuple[Keys, Counts]

CELLS = 1 << 22
"""Default budget of counters; 8 bytes each while fewer than 2³² pixels are counted."""
_BUFFER = 1 << 22
_PAGES = 1 << 16
_LAST_SHIFT = 16
_FINE = (0x407F, 0x4080, 0xBF7F, 0xBF80)
"""Pages around -1 and +1, where probabilities pile up: they drop their bits 8 steps later."""
_FINE_BITS = 8
_NOTHING: Column = (np.empty(0, np.uint32), np.empty(0, np.int64))


class ScoreHistogram:
    """Counts of negative and positive pixels per score, additive, in bounded memory.

    Positive is OOD; negative is IN and every train id; NEUTRAL and IGNORE are only counted.
    Equal multisets of pixels give equal histograms, in whatever order they came.

    Attributes
    ----------
    cells
        Budget of counters; at least ``cells / 2`` distinct scores are always held exactly.
    frames, positives, negatives, neutral, ignored
        How many maps and pixels were added.
    """

    def __init__(self, cells: int = CELLS) -> None:
        if cells < _PAGES:
            raise ValueError(f"cells: {cells} is too small; expected at least {_PAGES}")
        self.cells = cells
        self.frames = self.positives = self.negatives = self.neutral = self.ignored = 0
        self._shift = 0
        self._buffer: tuple[list[Keys], list[Keys]] = ([], [])
        self._buffered = 0
        self._sparse: list[Column] = [_NOTHING, _NOTHING]
        self._lay_out(np.empty(0, np.int64))

    @classmethod
    def of(
        cls,
        score: npt.NDArray[Any],
        target: LabelMap,
        cells: int = CELLS,
        classes: int | None = None,
    ) -> ScoreHistogram:
        """Return the histogram of one map.

        Parameters
        ----------
        score
            ``(H, W)`` real numbers of any range, infinities included; higher is more OoD. They are
            counted as ``float32``.
        target
            ``(H, W) uint8``, see :mod:`meta_ood.labels`.
        cells
            Budget of counters.
        classes
            Number of train ids, to check the target's values.

        Raises
        ------
        ValueError
            On shapes that differ, wrong target values, or NaN at an evaluated pixel.

        Examples
        --------
        >>> target = np.array([[0, 253, 254, 254, 255]], np.uint8)
        >>> h = ScoreHistogram.of(np.array([[0.1, 0.2, 0.2, 7, 9]]), target)
        >>> h.negatives, h.positives, h.ignored
        (2, 2, 1)
        """
        return cls(cells).add(score, target, classes)

    def add(
        self,
        score: npt.NDArray[Any],
        target: LabelMap,
        classes: int | None = None,
        name: str = "the frame",
    ) -> ScoreHistogram:
        """Count one more map in place and return the histogram; parameters as in :meth:`of`."""
        check_maps(score, target, classes, name)
        score = as_float32(score)
        if not score.flags.c_contiguous:
            score = np.ascontiguousarray(score)
        flat, labels = score.ravel(), np.ascontiguousarray(target).ravel()
        positive = flat[labels == OOD]
        negative = flat[(labels < NEUTRAL) | (labels == IN)]
        if np.isnan(negative).any() or np.isnan(positive).any():
            count = int(np.isnan(negative).sum() + np.isnan(positive).sum())
            raise ValueError(f"{name}: {count} evaluated pixels have the score NaN")
        self.frames += 1
        self.negatives += negative.size
        self.positives += positive.size
        ignored = int(np.count_nonzero(labels == IGNORE))
        self.ignored += ignored
        self.neutral += labels.size - ignored - negative.size - positive.size
        self._buffer[0].append(order_keys(negative))
        self._buffer[1].append(order_keys(positive))
        self._buffered += negative.size + positive.size
        if self._buffered > _BUFFER:
            self._flush()
        return self

    def __iadd__(self, other: ScoreHistogram) -> ScoreHistogram:
        """Add the pixels of `other`."""
        if other.cells != self.cells:
            raise ValueError(f"histograms of {self.cells} and {other.cells} cells do not add up")
        for name in ("frames", "positives", "negatives", "neutral", "ignored"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for mine, theirs in zip(self._buffer, other._buffer, strict=True):
            mine.extend(theirs)
        self._buffered += other._buffered
        if self._buffered > _BUFFER:
            self._flush()
        self._join(other)
        return self

    def __add__(self, other: ScoreHistogram) -> ScoreHistogram:
        """Return a new histogram of the pixels of both."""
        result = ScoreHistogram(self.cells)
        result += self
        result += other
        return result

    def __eq__(self, other: object) -> bool:
        """Compare counts and cells bit by bit."""
        if not isinstance(other, ScoreHistogram):
            return NotImplemented
        mine, theirs = self.counts(), other.counts()
        names = ("cells", "frames", "positives", "negatives", "neutral", "ignored", "_shift")
        return all(getattr(self, n) == getattr(other, n) for n in names) and all(
            np.array_equal(a, b) for a, b in zip(mine, theirs, strict=True)
        )

    __hash__ = None  # type: ignore[assignment]

    def counts(self) -> tuple[Keys, Counts, Counts, npt.NDArray[np.bool_]]:
        """Return the cells that hold a pixel, by rising score.

        Returns
        -------
        keys
            ``(n,) uint32``, lowest key of each cell, see :func:`key_scores`.
        negatives, positives
            ``(n,) int64`` pixels.
        coarse
            ``(n,) bool``: the cell covers more than one ``float32`` value.
        """
        self._flush()
        (negative, below), (positive, above) = self._cells(0), self._cells(1)
        none, zeros = np.zeros_like(above), np.zeros_like(below)
        keys, negatives = _union((negative, below), (positive, none))
        _, positives = _union((negative, zeros), (positive, above))
        return keys, negatives, positives, _shifts(self._shift)[keys >> 16] > 0

    @property
    def exact(self) -> bool:
        """True while every distinct score is counted for itself."""
        self._flush()
        return self._shift == 0

    # -- the representation -------------------------------------------------------------------

    def _lay_out(self, pages: Integers) -> None:
        """Make room for zero counters of the dense `pages` (rising) at the present shift."""
        lengths = _PAGES >> _shifts(self._shift)[pages]
        self._pages = pages
        self._starts: Integers = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        wide = self.negatives + self.positives >= 1 << 32
        self._dense: npt.NDArray[Any] = np.zeros(
            (2, int(self._starts[-1])), np.uint64 if wide else np.uint32
        )

    def _widen(self) -> None:
        if self._dense.dtype == np.uint32 and self.negatives + self.positives >= 1 << 32:
            self._dense = self._dense.astype(np.uint64)

    def _flush(self) -> None:
        """Count the buffered keys."""
        if not self._buffered:
            return
        self._buffered = 0
        self._widen()
        for column, buffer in enumerate(self._buffer):
            if buffer:
                keys = np.concatenate(buffer)
                buffer.clear()
                keys.sort()
                self._count(column, *_runs(_coarsen(keys, self._shift)))
        self._settle()

    def _count(self, column: int, keys: Keys, counts: Counts) -> None:
        """Add counts of rising, distinct `keys` that are as coarse as the histogram."""
        pages = self._pages
        first = np.searchsorted(keys, (pages << 16).astype(np.uint32))
        end = np.searchsorted(keys, (pages << 16 | 0xFFFF).astype(np.uint32), side="right")
        lengths = end - first
        if int(lengths.sum()) < keys.size:
            inside = np.zeros(keys.size + 1, np.int8)
            np.add.at(inside, first, 1)
            np.add.at(inside, end, -1)
            rest = np.cumsum(inside[:-1], dtype=np.int8) == 0
            self._sparse[column] = _union(self._sparse[column], (keys[rest], counts[rest]))
            keys, counts = keys[~rest], counts[~rest]
        if keys.size:
            shifts = _shifts(self._shift)[pages]
            index = (keys >> np.repeat(shifts, lengths)).astype(np.int64)
            index += np.repeat(self._starts[:-1] - (pages << 16 >> shifts), lengths)
            row = self._dense[column]
            row[index] += counts.astype(row.dtype)

    def _settle(self) -> None:
        """Give crowded sparse pages a row; drop bits if the budget is exceeded."""
        distinct = np.zeros(_PAGES, np.int64)
        for keys, _ in self._sparse:
            distinct += np.bincount(keys >> 16, minlength=_PAGES)
        crowded = np.flatnonzero(distinct > _room(self._shift))
        if crowded.size:
            self._add_pages(crowded)
        cost = self._dense.shape[1] + 2 * sum(keys.size for keys, _ in self._sparse)
        if cost > self.cells:
            self._build([self._cells(column) for column in (0, 1)], self._shift)

    def _add_pages(self, pages: Integers) -> None:
        """Make `pages` dense, besides those that are."""
        before = (self._pages, self._starts, self._dense)
        sparse, self._sparse = self._sparse, [_NOTHING, _NOTHING]
        self._lay_out(np.union1d(self._pages, pages))
        self._add_rows(*before, self._shift)
        for column, (keys, counts) in enumerate(sparse):
            self._count(column, keys, counts)

    def _cells(self, column: int) -> Column:
        """Return rising keys and counts of the cells that hold a pixel of the column."""
        used = np.flatnonzero(self._dense[column])
        lengths = np.diff(self._starts)
        page = np.repeat(self._pages.astype(np.uint32), lengths)[used]
        start = np.repeat(self._starts[:-1], lengths)[used]
        low = (used - start).astype(np.uint32) << _shifts(self._shift)[page]
        dense = (page << np.uint32(16)) | low, self._dense[column, used].astype(np.int64)
        return _union(dense, self._sparse[column])

    def _build(self, columns: list[Column], shift: int) -> None:
        """Set up anew at the least shift from `shift` on that fits the budget."""
        ladder = _ladder(columns[0][0]) + _ladder(columns[1][0])
        while True:
            shifts = _shifts(shift)
            distinct = ladder[np.arange(_PAGES), shifts]
            crowded = distinct > _room(shift)
            cost = (_PAGES >> shifts)[crowded].sum() + 2 * distinct[~crowded].sum()
            if cost <= self.cells or shift == _LAST_SHIFT:
                break
            shift += 1
        self._shift = shift
        self._sparse = [_NOTHING, _NOTHING]
        self._lay_out(np.flatnonzero(crowded))
        for column, (keys, counts) in enumerate(columns):
            self._count(column, *_merge_equal(_coarsen(keys, shift), counts))

    def _join(self, other: ScoreHistogram) -> None:
        """Add the cells of `other`, not its buffer."""
        if not other._dense.size and not any(keys.size for keys, _ in other._sparse):
            return
        self._widen()
        if other._shift > self._shift:
            self._build([self._cells(column) for column in (0, 1)], other._shift)
        if not np.isin(other._pages, self._pages).all():
            self._add_pages(other._pages)
        self._add_rows(other._pages, other._starts, other._dense, other._shift)
        for column, (keys, counts) in enumerate(other._sparse):
            self._count(column, *_merge_equal(_coarsen(keys, self._shift), counts))
        self._settle()

    def _add_rows(
        self, pages: Integers, starts: Integers, dense: npt.NDArray[Any], shift: int
    ) -> None:
        """Add dense rows of an equal or finer shift; all `pages` are dense here too."""
        if not pages.size:
            return
        finer = (_shifts(self._shift) - _shifts(shift))[pages]
        place = np.searchsorted(self._pages, pages)
        breaks = np.flatnonzero((np.diff(place) != 1) | (np.diff(finer) != 0)) + 1
        bounds = [0, *breaks.tolist(), pages.size]
        for first, end in itertools.pairwise(bounds):
            block = dense[:, starts[first] : starts[end]]
            if finer[first]:
                block = block.reshape(2, -1, 1 << int(finer[first])).sum(2, dtype=dense.dtype)
            target = slice(self._starts[place[first]], self._starts[place[end - 1] + 1])
            self._dense[:, target] += block


def merge(histograms: Iterable[ScoreHistogram]) -> ScoreHistogram:
    """Add up histograms; the order does not matter.

    Raises
    ------
    ValueError
        If there is none.
    """
    result: ScoreHistogram | None = None
    for histogram in histograms:
        if result is None:
            result = ScoreHistogram(histogram.cells)
        result += histogram
    if result is None:
        raise ValueError("no histogram to merge")
    return result


def _shifts(shift: int) -> npt.NDArray[np.uint32]:
    """Return the dropped bits of every page ``(65536,)``."""
    shifts = np.full(_PAGES, shift, np.uint32)
    shifts[list(_FINE)] = max(0, shift - _FINE_BITS)
    return shifts


def _room(shift: int) -> Integers:
    """Return per page how many distinct keys a sparse page holds at most: half a dense row."""
    return np.asarray((_PAGES >> _shifts(shift)) // 2, np.int64)


def _coarsen(keys: Keys, shift: int) -> Keys:
    """Clear the dropped bits of rising keys."""
    if shift == 0:
        return keys
    result = keys & np.uint32(0xFFFFFFFF << shift & 0xFFFFFFFF)
    fine = max(0, shift - _FINE_BITS)
    for first in _FINE[::2]:
        bounds = np.array([first << 16, (first + 2) << 16], np.uint32)
        a, b = np.searchsorted(keys, bounds)
        result[a:b] = keys[a:b] & np.uint32(0xFFFFFFFF << fine & 0xFFFFFFFF)
    return result


def _ladder(keys: Keys) -> Integers:
    """Return how many distinct keys each page holds at each shift, ``(65536, 17)``.

    Two neighbours stay distinct at shift s if they differ in a bit from s on.
    """
    table = np.zeros((_PAGES, _LAST_SHIFT + 2), np.int64)
    if keys.size:
        differ = np.bitwise_xor(keys[1:], keys[:-1])
        bits = np.full(keys.size, _LAST_SHIFT + 1, np.int64)  # the first key counts at every shift
        np.minimum(np.frexp(differ.astype(np.float64))[1], _LAST_SHIFT + 1, out=bits[1:])
        bits += (keys >> 16).astype(np.int64) * (_LAST_SHIFT + 2)
        table = np.bincount(bits, minlength=table.size).reshape(table.shape)
    return np.cumsum(table[:, ::-1], axis=1)[:, ::-1][:, 1:]


def _runs(keys: Keys) -> Column:
    """Return distinct values and their number in sorted keys."""
    if not keys.size:
        return _NOTHING
    ends = np.flatnonzero(keys[1:] != keys[:-1])
    ends = np.append(ends, keys.size - 1)
    return keys[ends], np.diff(ends, prepend=-1)


def _merge_equal(keys: Keys, counts: Counts) -> Column:
    """Add up the counts of equal neighbours in sorted keys."""
    if not keys.size:
        return keys, counts
    first = np.flatnonzero(keys[1:] != keys[:-1]) + 1
    if first.size == keys.size - 1:
        return keys, counts
    first = np.concatenate([[0], first])
    return keys[first], np.add.reduceat(counts, first)


def _union(a: Column, b: Column) -> Column:
    """Merge two rising lists of keys with counts."""
    if not a[0].size or not b[0].size:
        return a if a[0].size else b
    keys = np.concatenate([a[0], b[0]])
    order = np.argsort(keys, kind="stable")
    return _merge_equal(keys[order], np.concatenate([a[1], b[1]])[order])
