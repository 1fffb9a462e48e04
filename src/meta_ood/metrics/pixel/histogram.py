"""ScoreHistogram: the scores of any number of pixels, exact while they fit, always in bounded memory.

How it works. A ``float32`` score becomes a ``uint32`` key of the same order, and pixels are counted per key. Keys that
share their upper 16 bits form a *page*. A page with many distinct keys is *dense*: it has a row of counters, one per
key. The keys of all other pages stand in one *sparse* list, sorted, with their counts. When rows and list together need
more than `cells` counters, the lowest bit of every key is dropped, and again, until they fit; then a counter covers
several scores, and the metrics carry error bounds.

Why it is so. Sorting alone would be a third of the code, but takes seven times as long, because every frame adds two
million keys; a plain table of 2^32 counters does not fit, and one of fewer equal cells is not exact to 1e-6. Dense rows
count a key in a few nanoseconds; the sparse list keeps rare scores exact however wide their range is. How many bits are
dropped depends on the multiset of pixels alone: frames, threads and machines add up in any order to the same bits.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from meta_ood.data.labels import IGNORE, IN, NEUTRAL, OOD, LabelMap
from meta_ood.metrics import Integers
from meta_ood.metrics.pixel import _kernel
from meta_ood.metrics.pixel.images import ImageCurve, image_curve
from meta_ood.metrics.pixel.keys import Keys, checked_scores, raise_wrong_labels

Column = tuple[Keys, Integers]
"""Rising distinct keys and their counts."""

CELLS = 1 << 22
"""Default budget of counters: 32 MB for each of the two kinds of pixels."""
PAGES = 1 << 16
_LAST_SHIFT = 16
_PENDING = 1 << 20  # keys outside dense pages that wait to be sorted together
_FINE = (0x407F, 0x4080, 0xBF7F, 0xBF80)  # pages around -1 and +1, where probabilities pile up:
_FINE_BITS = 8  # they drop their bits so many steps later
_NOTHING: Column = (np.empty(0, np.uint32), np.empty(0, np.int64))


class ScoreHistogram:
    """Counts of negative and positive pixels per score, additive, in bounded memory.

    Positive is OOD; negative is IN and every train id; NEUTRAL and IGNORE are only counted. Equal multisets of pixels
    give equal histograms, in whatever order they came.

    Attributes:
        cells: Budget of counters; at least ``cells / 2`` distinct scores are always held exactly.
        frames, positives, negatives, neutral, ignored: How many maps and pixels were added.
        images: Curves of the images added with ``curve=True``.
    """

    def __init__(self, cells: int = CELLS) -> None:
        if cells < PAGES:
            raise ValueError(f"cells: {cells} is too small; expected at least {PAGES}")
        self.cells = cells
        self.frames = self.positives = self.negatives = self.neutral = self.ignored = 0
        self.images: list[ImageCurve] = []
        self._shift = 0
        self._pending: tuple[list[Keys], list[Keys]] = ([], [])
        self._sparse: list[Column] = [_NOTHING, _NOTHING]
        self._lay_out(np.empty(0, np.int64))

    @classmethod
    def of(
        cls, score: npt.NDArray[Any], target: LabelMap, cells: int = CELLS, classes: int | None = None
    ) -> ScoreHistogram:
        """Return the histogram of one map.

        Args:
            score: ``(H, W)`` real numbers of any range, infinities included; higher is more OoD. They are counted as
                ``float32``.
            target: ``(H, W) uint8``, see :mod:`meta_ood.data.labels`.
            cells: Budget of counters.
            classes: Number of train ids, to check the target's values.

        Raises:
            ValueError: On shapes that differ, wrong target values, or NaN at an evaluated pixel.

        Examples:
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
        curve: bool = False,
    ) -> ScoreHistogram:
        """Count one more map in place and return the histogram.

        Parameters and errors as in :meth:`of`; `name` is the image's, `curve` keeps the image's own curve for the
        protocols that treat images one by one (9 kB an image).
        """
        # 1. keys of the evaluated pixels; nothing is changed before all checks are passed
        score = checked_scores(score, target, name)
        bits = np.ascontiguousarray(score).ravel().view(np.int32)
        labels = np.ascontiguousarray(target).ravel()
        role = _roles(classes)
        keys = np.empty(bits.size, np.uint32), np.empty(bits.size, np.uint32)
        tally = _kernel.order(bits, labels, role, *keys)
        negatives, positives, neutral, ignored, wrong, missing = tally
        if wrong:
            raise_wrong_labels(labels, classes or NEUTRAL, name)
        if missing:
            raise ValueError(f"{name}: {missing} evaluated pixels have the score NaN")
        self.frames += 1
        self.negatives += negatives
        self.positives += positives
        self.neutral += neutral
        self.ignored += ignored
        evaluated = keys[0][:negatives], keys[1][:positives]

        # 2. the image's own curve needs them sorted
        if curve:
            for part in evaluated:
                part.sort()
            self.images.append(image_curve(name, *evaluated))

        # 3. count those of dense pages, keep the others until there are enough to sort together
        shifts = _dropped_bits(self._shift).astype(np.uint8)
        for column, part in enumerate(evaluated):
            rest = _kernel.count(part, self._start_of, shifts, self._dense[column])
            if rest:
                self._pending[column].append(part[:rest].copy())
        self._settle(_PENDING)
        return self

    def __iadd__(self, other: ScoreHistogram) -> ScoreHistogram:
        """Add the pixels of `other`."""
        if other.cells != self.cells:
            raise ValueError(f"histograms of {self.cells} and {other.cells} cells do not add up")
        for name in ("frames", "positives", "negatives", "neutral", "ignored"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.images += other.images
        other._settle()
        self._settle()
        # the coarser of the two resolutions, and a row for every page that has one in either
        if other._shift > self._shift:
            self._build([self._cells(column) for column in (0, 1)], other._shift)
        if (self._start_of[other._pages] < 0).any():
            self._add_pages(other._pages)
        self._add_rows(other._pages, other._starts, other._dense, other._shift)
        for column, cells in enumerate(other._sparse):
            self._count(column, *cells)
        self._fit()
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
        names = ("cells", "frames", "positives", "negatives", "neutral", "ignored", "exact")
        if any(getattr(self, name) != getattr(other, name) for name in names):
            return False
        mine: tuple[npt.NDArray[Any], ...] = self.counts()
        theirs: tuple[npt.NDArray[Any], ...] = other.counts()
        same = (np.array_equal(a, b) for a, b in zip(mine, theirs, strict=True))
        return self._shift == other._shift and all(same)

    __hash__ = None  # type: ignore[assignment]

    def counts(self) -> tuple[Keys, Integers, Integers, npt.NDArray[np.bool_]]:
        """Return the cells that hold a pixel, by rising score.

        Returns:
            ``keys (n,) uint32``, the lowest of each cell, see :func:`key_scores`; ``negatives`` and ``positives
            (n,) int64`` pixels; ``coarse (n,) bool``: the cell covers more than one ``float32`` value.
        """
        self._settle()
        (negative, below), (positive, above) = self._cells(0), self._cells(1)
        none, zeros = np.zeros_like(above), np.zeros_like(below)
        keys, negatives = _union((negative, below), (positive, none))
        _, positives = _union((negative, zeros), (positive, above))
        return keys, negatives, positives, _dropped_bits(self._shift)[keys >> 16] > 0

    @property
    def exact(self) -> bool:
        """True while every distinct score is counted for itself."""
        self._settle()
        return self._shift == 0

    def _lay_out(self, pages: Integers) -> None:
        """Make room for zero counters of the dense `pages` (rising) at the present shift."""
        lengths = PAGES >> _dropped_bits(self._shift)[pages]
        self._pages = pages
        self._starts: Integers = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        self._start_of = np.full(PAGES, -1, np.int64)
        self._start_of[pages] = self._starts[:-1]
        self._dense: Integers = np.zeros((2, int(self._starts[-1])), np.int64)

    def _count(self, column: int, keys: Keys, counts: Integers) -> None:
        """Add counts of rising `keys`; those that fall into one cell become one."""
        shifts = _dropped_bits(self._shift).astype(np.uint8)
        self._sparse[column] = _add_cells(
            self._sparse[column], (keys, counts), self._start_of, shifts, self._dense[column]
        )

    def _settle(self, allowed: int = 0) -> None:
        """Count the pending keys if there are more than `allowed`."""
        if sum(keys.size for column in self._pending for keys in column) <= allowed:
            return
        for column, pending in enumerate(self._pending):
            if pending:
                keys, counts = np.unique(np.concatenate(pending), return_counts=True)
                pending.clear()
                self._count(column, keys, counts)
        self._fit()

    def _fit(self) -> None:
        """Give crowded pages a row, and drop bits if there are more counters than the budget."""
        distinct = _distinct(self._sparse, self._shift)
        sparse = int(distinct.sum())
        crowded = np.flatnonzero(distinct > _sparse_room(self._shift))
        # laying out rows costs time: wait until the budget or a quarter of the list asks for it
        if self._dense.shape[1] + 2 * sparse > self.cells or distinct[crowded].sum() > sparse // 4:
            self._add_pages(crowded)
        # a cell of the list costs two counters, as it holds a key too
        if self._dense.shape[1] + 2 * sum(keys.size for keys, _ in self._sparse) > self.cells:
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
        low = (used - start).astype(np.uint32) << _dropped_bits(self._shift)[page]
        dense = (page << np.uint32(16)) | low, self._dense[column, used]
        return _union(dense, self._sparse[column])

    def _build(self, columns: list[Column], shift: int) -> None:
        """Set up anew at the least shift from `shift` on that fits the budget."""
        while True:
            distinct = _distinct(columns, shift)
            crowded = distinct > _sparse_room(shift)
            cost = (PAGES >> _dropped_bits(shift))[crowded].sum() + 2 * distinct[~crowded].sum()
            if cost <= self.cells or shift == _LAST_SHIFT:
                break
            shift += 1
        self._shift = shift
        self._sparse = [_NOTHING, _NOTHING]
        self._lay_out(np.flatnonzero(crowded))
        for column, (keys, counts) in enumerate(columns):
            self._count(column, keys, counts)

    def _add_rows(self, pages: Integers, starts: Integers, dense: Integers, shift: int) -> None:
        """Add dense rows of an equal or finer shift; all `pages` are dense here too."""
        finer = (_dropped_bits(self._shift) - _dropped_bits(shift)).astype(np.uint8)
        for rows, total in zip(dense, self._dense, strict=True):
            _kernel.add_rows(pages, starts, rows, finer, self._start_of, total)


def merge(histograms: Iterable[ScoreHistogram]) -> ScoreHistogram:
    """Return the sum of at least one histogram; the order does not matter."""
    first, *others = histograms
    result = ScoreHistogram(first.cells)
    for histogram in (first, *others):
        result += histogram
    return result


@functools.cache
def _roles(classes: int | None) -> npt.NDArray[np.uint8]:
    """Return what each target value is: 0 negative, 1 positive, 2 neutral, 3 ignored, 4 wrong."""
    roles = np.zeros(256, np.uint8)
    roles[[IN, OOD, NEUTRAL, IGNORE]] = 0, 1, 2, 3
    if classes is not None:
        roles[classes:NEUTRAL] = 4
    return roles


def _dropped_bits(shift: int) -> npt.NDArray[np.uint32]:
    """Return the dropped bits of every page ``(65536,)``."""
    shifts = np.full(PAGES, shift, np.uint32)
    shifts[list(_FINE)] = max(0, shift - _FINE_BITS)
    return shifts


def _sparse_room(shift: int) -> Integers:
    """Return per page how many distinct keys a sparse page holds at most: half a dense row."""
    return np.asarray((PAGES >> _dropped_bits(shift)) // 2, np.int64)


def _distinct(columns: Sequence[Column], shift: int) -> Integers:
    """Return how many cells of each page the rising keys of the columns fall into, ``(65536,)``."""
    mask = ~((np.uint32(1) << _dropped_bits(shift)) - np.uint32(1))
    total = np.zeros(PAGES, np.int64)
    for keys, _ in columns:
        cells = keys & mask[keys >> 16]
        is_new = np.append(True, cells[1:] != cells[:-1])[: cells.size]
        total += np.bincount(cells[is_new] >> 16, minlength=PAGES)
    return total


def _union(a: Column, b: Column) -> Column:
    """Merge two rising lists of keys with counts."""
    if not a[0].size or not b[0].size:
        return a if a[0].size else b
    nowhere, whole = np.full(PAGES, -1, np.int64), np.zeros(PAGES, np.uint8)
    return _add_cells(a, b, nowhere, whole, np.empty(0, np.int64))


def _add_cells(sparse: Column, more: Column, start: Integers, shifts: npt.NDArray[np.uint8], row: Integers) -> Column:
    """Add cells to the rows of their pages, else to the `sparse` list, which is returned anew.

    Page p begins at ``start[p]`` of `row`, below 0 where it is not dense, and has ``shifts[p]`` bits dropped.
    """
    room = sparse[0].size + more[0].size
    keys, counts = np.empty(room, np.uint32), np.empty(room, np.int64)
    n = _kernel.add_cells(*sparse, *more, start, shifts, row, keys, counts)
    return (keys, counts) if n == room else (keys[:n].copy(), counts[:n].copy())
