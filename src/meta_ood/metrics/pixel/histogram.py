"""ScoreHistogram: the scores of any number of pixels, exact while they fit, always in bounded memory.

How it works. A ``float32`` score becomes a ``uint32`` key of the same order, and pixels are counted per key. Keys that
share their upper 16 bits form a *page*. A page with many distinct keys has a *row* of counters, one per key; the keys
of all other pages stand in one sorted *list* with their counts. When rows and list together need more than `cells`
counters, the lowest bit of every key is dropped, and again, until they fit; then a counter covers several scores, and
the metrics carry error bounds.

Why it is so. A sorted list alone would be half the code, but takes seven times as long, because every frame adds two
million keys; a plain table of 2^32 counters does not fit, and one of fewer equal cells is not exact to 1e-6. Rows
count a key in a few nanoseconds; the list keeps rare scores exact however wide their range is. How many bits are
dropped depends on the multiset of pixels alone: frames, threads and machines add up in any order to the same bits.
"""

import functools
from collections.abc import Iterable
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from meta_ood.data.labels import IGNORE, IN, NEUTRAL, OOD, LabelMap
from meta_ood.metrics import Flags, Floats, Integers
from meta_ood.metrics.pixel import _kernel
from meta_ood.metrics.pixel.curves import ImageCurve, Sweep, image_curve
from meta_ood.metrics.pixel.keys import Keys, checked_scores, key_scores

CELLS = 1 << 22
"""Default budget of counters: 32 MB for each of the two kinds of pixels."""
PAGES = 1 << 16
UNIT_BINS = 100
"""Bins on [0, 1] of the published code."""
_COUNTS = ("frames", "negatives", "positives", "neutral", "ignored")
_PENDING = 1 << 20  # keys without a row that wait to be sorted together


class ScoreHistogram:
    """Counts of negative and positive pixels per score, additive, in bounded memory.

    Positive is OOD; negative is IN and every train id; NEUTRAL and IGNORE are only counted. Equal multisets of pixels
    give equal histograms, in whatever order they came.

    Attributes:
        cells: Budget of counters; at least ``cells / 2`` distinct scores are always held exactly.
        frames, positives, negatives, neutral, ignored: How many maps and pixels were added.
        images: Curves of the images added with ``curve=True``.
        rebinned: ``(2, 100) int64``: :func:`unit_bins` of negatives and positives as they came, minus those of the
            ``float32`` scores that are counted; zero but for pixels that rounding moves over an edge.
    """

    def __init__(self, cells: int = CELLS) -> None:
        if cells < PAGES:
            raise ValueError(f"cells: {cells} is too small; expected at least {PAGES}")
        self.cells = cells
        self.frames = self.positives = self.negatives = self.neutral = self.ignored = 0
        self.images: list[ImageCurve] = []
        self.rebinned = np.zeros((2, UNIT_BINS), np.int64)
        self._pending: tuple[list[Keys], list[Keys]] = ([], [])
        # the list: rising keys, and their counts (2, n) of negatives and positives
        self._keys, self._counts = np.empty(0, np.uint32), np.empty((2, 0), np.int64)
        # the rows (2, cells): those of `_pages` begin at `_starts`; page p begins at `_start_of[p]`, -1 if it has none
        self._shift = 0
        self._pages, self._starts = np.empty(0, np.int64), np.zeros(1, np.int64)
        self._start_of = np.full(PAGES, -1, np.int64)
        self._rows = np.empty((2, 0), np.int64)

    @classmethod
    def of(cls, score: npt.NDArray[Any], target: LabelMap, cells: int = CELLS, classes: int | None = None) -> Self:
        """Return the histogram of one map.

        Args:
            score: ``(H, W)`` real numbers of any range, infinities included; higher is more OoD. They are counted as
                ``float32``.
            target: ``(H, W) uint8``, see :mod:`meta_ood.data.labels`.
            cells: Budget of counters.
            classes: Number of train ids, to check the target's values.

        Raises:
            ValueError: On shapes that differ, wrong target values, or NaN at an evaluated pixel.
        """
        return cls(cells).add(score, target, classes)

    def add(
        self,
        score: npt.NDArray[Any],
        target: LabelMap,
        classes: int | None = None,
        name: str = "the frame",
        curve: bool = False,
    ) -> Self:
        """Count one more map in place and return the histogram.

        Parameters and errors as in :meth:`of`; `name` is the image's, `curve` keeps the image's own curve for the
        protocols that treat images one by one (19 kB an image).
        """
        # 1. keys of the evaluated pixels; nothing is changed before all checks are passed
        narrow = checked_scores(score, target, name)
        bits = np.ascontiguousarray(narrow).ravel().view(np.int32)
        labels = np.ascontiguousarray(target).ravel()
        keys = np.empty(bits.size, np.uint32), np.empty(bits.size, np.uint32)
        *counted, wrong, missing = _kernel.order(bits, labels, _roles(classes), *keys)
        if wrong:
            values = sorted(set(np.unique(labels).tolist()) & set(range(classes or NEUTRAL, NEUTRAL)))
            known = f"0..{(classes or NEUTRAL) - 1}, NEUTRAL 252, IN 253, OOD 254, IGNORE 255"
            raise ValueError(f"{name}: the target has the values {values}; known: {known}")
        if missing:
            raise ValueError(f"{name}: {missing} evaluated pixels have the score NaN")
        for count, pixels in zip(_COUNTS, (1, *counted), strict=True):
            setattr(self, count, getattr(self, count) + pixels)
        evaluated = keys[0][: counted[0]], keys[1][: counted[1]]
        if not np.can_cast(score.dtype, np.float32):
            for role in (0, 1):  # negative, positive
                pixels = _roles(classes)[target] == role
                self.rebinned[role] += unit_bins(score[pixels]) - unit_bins(narrow[pixels])

        # 2. the image's own curve needs them sorted
        if curve:
            for part in evaluated:
                part.sort()
            self.images.append(image_curve(name, *evaluated))

        # 3. count those that have a row, keep the others until there are enough to sort together
        for part, row, pending in zip(evaluated, self._rows, self._pending, strict=True):
            rest = _kernel.count(part, self._start_of, _dropped_bits(self._shift), row)
            if rest:
                pending.append(part[:rest].copy())
        self._settle(_PENDING)
        return self

    def __iadd__(self, other: Self) -> Self:
        """Add the pixels of `other`."""
        if other.cells != self.cells:
            raise ValueError(f"histograms of {self.cells} and {other.cells} cells do not add up")
        for name in (*_COUNTS, "images", "rebinned"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self._settle()
        other._settle()
        # the coarser of the two resolutions; a page with a row in one of them needs a row in the sum
        self._make_rows(other._pages, max(self._shift, other._shift))
        self._add_rows(other._pages, other._starts, other._rows, other._shift)
        self._add(other._keys, other._counts)
        self._fit()
        return self

    def __add__(self, other: Self) -> "ScoreHistogram":
        """Return a new histogram of the pixels of both."""
        return merge((self, other))

    def __eq__(self, other: object) -> bool:
        """Compare counts and cells bit by bit."""
        if not isinstance(other, ScoreHistogram):
            return NotImplemented
        if any(getattr(self, name) != getattr(other, name) for name in ("cells", *_COUNTS, "exact", "_shift")):
            return False
        mine: tuple[npt.NDArray[Any], ...] = (*self.counts(), self.rebinned)
        theirs: tuple[npt.NDArray[Any], ...] = (*other.counts(), other.rebinned)
        return all(np.array_equal(a, b) for a, b in zip(mine, theirs, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def counts(self) -> tuple[Keys, Integers, Integers, Flags]:
        """Return the cells that hold a pixel, by rising score.

        Returns:
            ``keys (n,) uint32``, the lowest of each cell, see :func:`key_scores`; ``negatives`` and ``positives
            (n,) int64`` pixels; ``coarse (n,) bool``: the cell covers more than one ``float32`` value.
        """
        self._settle()
        dropped = _dropped_bits(self._shift)
        used = np.flatnonzero(self._rows.any(0))
        page = np.repeat(self._pages, np.diff(self._starts))[used]
        in_rows = page << 16 | (used - self._start_of[page]) << dropped[page]
        keys = np.concatenate([in_rows.astype(np.uint32), self._keys])
        order = np.argsort(keys, kind="stable")  # fast: two rising parts
        keys, counts = keys[order], np.concatenate([self._rows[:, used], self._counts], axis=1)[:, order]
        return keys, counts[0], counts[1], dropped[keys >> 16] > 0

    @property
    def exact(self) -> bool:
        """True while every distinct score is counted for itself."""
        self._settle()
        return self._shift == 0

    def _settle(self, allowed: int = 0) -> None:
        """Count the pending keys if there are more than `allowed`."""
        if sum(keys.size for column in self._pending for keys in column) <= allowed:
            return
        for column, pending in enumerate(self._pending):
            if pending:
                keys, multiplicity = np.unique(np.concatenate(pending), return_counts=True)
                pending.clear()
                counts = np.zeros((2, keys.size), np.int64)
                counts[column] = multiplicity
                self._add(keys, counts)
        self._fit()

    def _add(self, keys: Keys, counts: Integers) -> None:
        """Add counts ``(2, n)`` of rising `keys` to the rows of their pages, else to the list."""
        room = self._keys.size + keys.size
        new_keys, new_counts = np.empty(room, np.uint32), np.empty((2, room), np.int64)
        dropped = _dropped_bits(self._shift)
        listed = self._keys, self._counts
        n = _kernel.add_keys(*listed, keys, counts, self._start_of, dropped, self._rows, new_keys, new_counts)
        self._keys, self._counts = new_keys[:n].copy(), new_counts[:, :n].copy()

    def _fit(self) -> None:
        """Give crowded pages a row, and drop bits as long as there are more counters than the budget.

        A page is crowded if its keys in the list, each counted as two counters, cost more than a row. It stays crowded
        when keys are added or bits are dropped: therefore the order of adding does not matter.
        """
        while True:
            distinct = np.bincount(self._keys >> 16, minlength=PAGES)
            crowded = np.flatnonzero(2 * distinct > PAGES >> _dropped_bits(self._shift).astype(np.int64))
            # laying out rows costs time: wait until the budget or a quarter of the list asks for it
            if self._is_full() or distinct[crowded].sum() > self._keys.size // 4:
                self._make_rows(crowded, self._shift)
            if not self._is_full() or self._shift == 16:  # then a page is one counter: nothing is left to drop
                return
            self._make_rows(self._pages, self._shift + 1)

    def _is_full(self) -> bool:
        """Return whether rows and list need more counters than the budget."""
        return self._rows.shape[1] + 2 * self._keys.size > self.cells

    def _make_rows(self, pages: Integers, shift: int) -> None:
        """Lay out rows for `pages` besides the present ones, with `shift` bits dropped, and move all counts there."""
        has_row = self._start_of >= 0
        has_row[pages] = True
        pages = np.flatnonzero(has_row)
        if pages.size == self._pages.size and shift == self._shift:
            return
        before = self._pages, self._starts, self._rows, self._shift
        lengths = PAGES >> _dropped_bits(shift)[pages].astype(np.int64)
        self._pages, self._shift = pages, shift
        self._starts = np.concatenate([[0], np.cumsum(lengths)])
        self._start_of[pages] = self._starts[:-1]
        self._rows = np.zeros((2, int(self._starts[-1])), np.int64)
        self._add_rows(*before)
        keys, counts = self._keys, self._counts
        self._keys, self._counts = np.empty(0, np.uint32), np.empty((2, 0), np.int64)
        self._add(keys, counts)

    def _add_rows(self, pages: Integers, starts: Integers, rows: Integers, shift: int) -> None:
        """Add rows of an equal or finer shift; all `pages` have a row here too."""
        finer = _dropped_bits(self._shift) - _dropped_bits(shift)
        _kernel.add_rows(pages, starts, rows, finer, self._start_of, self._rows)


def unit_bins(scores: npt.NDArray[Any], weights: Floats | None = None) -> Integers:
    """Count scores ``(n,)`` in equal bins on [0, 1], ``(100,)``; others are left out.

    Scores and edges are ``float64``, as in the published code: the ``float32`` nearest to 0.29 lies below 0.29.
    """
    return np.histogram(scores.astype(np.float64), UNIT_BINS, (0, 1), weights=weights)[0].astype(np.int64)


def sweep(histogram: ScoreHistogram) -> Sweep:
    """Return the numbers of pixels at every threshold of a histogram."""
    keys, negatives, positives, coarse = histogram.counts()
    scores, tp, fp = (part[::-1].astype(np.float64) for part in (key_scores(keys), positives, negatives))
    return Sweep(scores, tp, fp, coarse[::-1])


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


@functools.cache
def _dropped_bits(shift: int) -> npt.NDArray[np.uint8]:
    """Return the dropped bits of every page ``(65536,)``."""
    shifts = np.full(PAGES, shift, np.uint8)
    # the pages around -1 and +1, where probabilities pile up, drop their bits eight steps later
    shifts[[0x407F, 0x4080, 0xBF7F, 0xBF80]] = max(0, shift - 8)
    return shifts
