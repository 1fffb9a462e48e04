"""ScoreHistogram: the scores of any number of pixels, exact while they fit, bounded always.

A ``float32`` becomes a ``uint32`` key of the same order; pixels are counted per key. Keys that
share their upper 16 bits form a page; a page with many distinct keys is a dense row of counters,
the others share one sorted list. When all that needs more than ``cells`` counters, the lowest bit
of every key is dropped, again and again, until it fits. How many bits go depends on the multiset
of pixels alone: frames, workers and machines add up in any order to the same bits.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from meta_ood.labels import IGNORE, IN, NEUTRAL, OOD, LabelMap
from meta_ood.metrics.pixel.keys import Keys, as_float32, check_maps, order_keys

Counts = npt.NDArray[np.int64]

CELLS = 1 << 22
"""Default budget of counters; 8 bytes each while fewer than 2³² pixels are counted."""
_BUFFER = 1 << 23
_PAGES = 1 << 16
_FINE = (0x407F, 0x4080, 0xBF7F, 0xBF80)
"""Pages around -1 and +1, where probabilities pile up: they drop their bits 8 steps later."""
_FINE_BITS = 8


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
        self._lay_out(np.empty(0, np.int64))
        self._sparse_keys: Keys = np.empty(0, np.uint32)
        self._sparse: Counts = np.empty((2, 0), np.int64)

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
        keys, counts = self._all_cells()
        return keys, counts[0], counts[1], _shifts(self._shift)[keys >> 16] > 0

    @property
    def exact(self) -> bool:
        """True while every distinct score is counted for itself."""
        self._flush()
        return self._shift == 0

    # -- the representation -------------------------------------------------------------------

    def _lay_out(self, pages: npt.NDArray[np.int64]) -> None:
        """Make room for zero counters of the dense `pages` (rising) at the present shift."""
        shifts = _shifts(self._shift)
        lengths = (_PAGES >> shifts[pages].astype(np.int64)).astype(np.int64)
        self._dense_pages = pages
        self._starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        self._offset = np.full(_PAGES, -1, np.int64)
        self._offset[pages] = self._starts[:-1]
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
        self._widen()
        pieces = []
        for column in (0, 1):
            buffer = self._buffer[column]
            keys = np.sort(np.concatenate(buffer)) if buffer else np.empty(0, np.uint32)
            buffer.clear()
            keys, n = _runs(_coarsen(keys, self._shift))
            counts = np.zeros((2, keys.size), np.int64)
            counts[column] = n
            pieces.append((keys, counts))
        self._buffered = 0
        for keys, counts in pieces:
            self._absorb(keys, counts)

    def _absorb(self, keys: Keys, counts: Counts) -> None:
        """Count ``(2, n)`` pixels of rising `keys`, at most as coarse as the histogram."""
        if not keys.size:
            return
        self._widen()
        keys, counts = _merge_equal(_coarsen(keys, self._shift), counts)
        pages = keys >> 16
        start = self._offset[pages]
        dense = start >= 0
        if dense.any():
            inside = (keys & 0xFFFF) >> _shifts(self._shift)[pages]
            index = (start + inside)[dense]
            for column in (0, 1):
                n = counts[column, dense]
                if n.any():
                    self._dense[column, index] += n.astype(self._dense.dtype)
            keys, counts = keys[~dense], counts[:, ~dense]
        if keys.size:
            self._sparse_keys, self._sparse = _union(self._sparse_keys, self._sparse, keys, counts)
            distinct = np.bincount(self._sparse_keys >> 16, minlength=_PAGES)
            if (distinct > _room(self._shift)).any() or self._cost() > self.cells:
                self._build(*self._all_cells(), self._shift)

    def _join(self, other: ScoreHistogram) -> None:
        """Add the cells of `other`, without its buffer."""
        if not other._dense.size and not other._sparse_keys.size:
            return
        if other._shift > self._shift:
            self._build(*self._all_cells(), other._shift)
        if self._shift == other._shift and np.array_equal(self._dense_pages, other._dense_pages):
            self._widen()
            self._dense += other._dense
            self._absorb(other._sparse_keys, other._sparse)
        else:
            self._absorb(*other._all_cells())

    def _cost(self) -> int:
        return int(self._dense.shape[1] + 2 * self._sparse_keys.size)

    def _all_cells(self) -> tuple[Keys, Counts]:
        """Return rising keys ``(n,)`` and ``(2, n)`` counts of all cells that hold a pixel."""
        used = np.flatnonzero((self._dense[0] | self._dense[1]) != 0)
        row = np.searchsorted(self._starts, used, side="right") - 1
        page = self._dense_pages[row]
        low = (used - self._starts[row]) << _shifts(self._shift)[page].astype(np.int64)
        keys = ((page << 16) | low).astype(np.uint32)
        counts = self._dense[:, used].astype(np.int64)
        return _union(keys, counts, self._sparse_keys, self._sparse)

    def _build(self, keys: Keys, counts: Counts, shift: int) -> None:
        """Set up anew from rising keys, at the least shift from `shift` on that fits the budget."""
        while True:
            keys, counts = _merge_equal(_coarsen(keys, shift), counts)
            distinct = np.bincount(keys >> 16, minlength=_PAGES)
            dense = distinct > _room(shift)
            lengths = _PAGES >> _shifts(shift).astype(np.int64)
            if int(lengths[dense].sum() + 2 * distinct[~dense].sum()) <= self.cells or shift == 16:
                break
            shift += 1
        self._shift = shift
        self._lay_out(np.flatnonzero(dense))
        inside = dense[keys >> 16]
        self._sparse_keys, self._sparse = keys[~inside], counts[:, ~inside]
        keys, counts = keys[inside], counts[:, inside]
        pages = keys >> 16
        index = self._offset[pages] + ((keys & 0xFFFF) >> _shifts(shift)[pages])
        self._dense[:, index] = counts


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


def _shifts(shift: int) -> npt.NDArray[np.uint8]:
    """Return the dropped bits of every page ``(65536,)``."""
    shifts = np.full(_PAGES, shift, np.uint8)
    shifts[list(_FINE)] = max(0, shift - _FINE_BITS)
    return shifts


def _room(shift: int) -> npt.NDArray[np.int64]:
    """Return per page how many distinct keys a sparse page holds at most: half a dense row."""
    return (_PAGES >> _shifts(shift).astype(np.int64)) // 2


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


def _runs(keys: Keys) -> tuple[Keys, Counts]:
    """Return distinct values and their number in sorted keys."""
    if not keys.size:
        return keys, np.empty(0, np.int64)
    ends = np.flatnonzero(keys[1:] != keys[:-1])
    ends = np.append(ends, keys.size - 1)
    return keys[ends], np.diff(ends, prepend=-1)


def _merge_equal(keys: Keys, counts: Counts) -> tuple[Keys, Counts]:
    """Add up the ``(2, n)`` counts of equal neighbours in sorted keys."""
    first = np.flatnonzero(np.diff(keys, prepend=~keys[:1]))
    if first.size == keys.size:
        return keys, counts
    return keys[first], np.add.reduceat(counts, first, axis=1)


def _union(keys: Keys, counts: Counts, more: Keys, more_counts: Counts) -> tuple[Keys, Counts]:
    """Merge two rising lists of keys with ``(2, n)`` counts."""
    if not keys.size:
        return more, more_counts
    if not more.size:
        return keys, counts
    both = np.concatenate([keys, more])
    order = np.argsort(both, kind="stable")
    joined = np.concatenate([counts, more_counts], axis=1)
    return _merge_equal(both[order], joined[:, order])
