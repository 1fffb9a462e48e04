"""Thin score counts of scenes, a few kB each: enough to resample scenes, not to quote values."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from meta_ood.data.labels import IN, NEUTRAL, OOD, LabelMap
from meta_ood.metrics import Floats, Integers
from meta_ood.metrics.pixel.curves import Sweep, auprc_of, auroc_of, fpr_at_tpr
from meta_ood.metrics.pixel.keys import key_scores, order_keys

DROPPED = 13
"""Bits dropped from a key: 1024 cells an octave, a cell is 0.07 to 0.14 % of its score wide."""


@dataclass(frozen=True)
class ThinCounts:
    """Pixels per coarse cell of score; adds up in any order.

    Attributes:
        cells: ``(n,) int64`` rising: key without its last :data:`DROPPED` bits.
        counts: ``(2, n) int64``: negatives and positives.
    """

    cells: Integers
    counts: Integers

    @classmethod
    def of(cls, score: npt.NDArray[np.float32], target: LabelMap) -> Self:
        """Count one map: ``(H, W)`` scores without NaN where they are evaluated, and its target."""
        positive = target == OOD
        evaluated = positive | (target < NEUTRAL) | (target == IN)
        keys = (order_keys(score[evaluated]) >> np.uint32(DROPPED)).astype(np.int64)
        # one array from the lowest to the highest cell for each kind of pixel
        low = int(keys.min(initial=1 << 32))
        span = max(int(keys.max(initial=0)) - low + 1, 0)
        counts = np.bincount(keys - low + span * positive[evaluated], minlength=2 * span)
        counts = counts.reshape(2, span)
        cells = np.flatnonzero(counts.any(0))
        return cls(cells + low, counts[:, cells])

    def __add__(self, other: Self) -> Self:
        """Return the pixels of both."""
        if not self.cells.size or not other.cells.size:
            return self if self.cells.size else other
        low = min(self.cells[0], other.cells[0])
        counts = np.zeros((2, max(self.cells[-1], other.cells[-1]) + 1 - low), np.int64)
        for part in (self, other):
            counts[:, part.cells - low] += part.counts
        cells = np.flatnonzero(counts.any(0))
        return type(self)(cells + low, counts[:, cells])


def resampled_metrics(scenes: Sequence[ThinCounts], weights: Integers) -> dict[str, Floats]:
    """Return ``auroc``, ``auprc`` and ``fpr95``, ``(B,)`` each, of B weighted sums of S scenes.

    ``weights (B, S) int64`` say how often each scene counts. NaN without a positive or a negative pixel.
    """
    cells = np.unique(np.concatenate([scene.cells for scene in scenes]))
    table = np.zeros((2, len(scenes), cells.size), np.int64)
    for index, scene in enumerate(scenes):
        table[:, index, np.searchsorted(cells, scene.cells)] = scene.counts
    cells, table = cells[::-1], table[:, :, ::-1]  # a sweep goes from the highest score down
    thresholds = key_scores((cells << DROPPED).astype(np.uint32)).astype(np.float64)
    coarse = np.ones(cells.size, bool)
    result = np.full((3, len(weights)), math.nan)
    for index, weight in enumerate(weights):
        # sums of integers, which BLAS does not touch: equal on every machine
        fp, tp = ((weight @ part).astype(np.float64) for part in table)
        used = fp + tp > 0
        if fp.any() and tp.any():
            s = Sweep(thresholds[used], tp[used], fp[used], coarse[used])
            result[:, index] = auroc_of(s)[0], auprc_of(s)[0], fpr_at_tpr(s)[0]
    return dict(zip(("auroc", "auprc", "fpr95"), result, strict=True))
