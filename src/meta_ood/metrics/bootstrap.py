"""Uncertainty from resampled scenes: neighbouring pixels and video frames are no new evidence."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def resample(scenes: int, replicates: int, seed: int) -> Integers:
    """Draw scenes with replacement.

    The draw depends on nothing but the arguments: evaluations of one set of scenes, by whatever network, are resampled
    alike, so that replicates are paired.

    Args:
        scenes: S, at least 1.
        replicates: B.
        seed: Of the draw.

    Returns:
        ``(B, S) int64``: how often each scene was drawn; rows sum to S.

    Examples:
        >>> resample(4, 3, seed=0).sum(axis=1)
        array([4, 4, 4])
    """
    generator = np.random.default_rng([seed, scenes])
    return generator.multinomial(scenes, np.full(scenes, 1 / scenes), size=replicates)


def interval(values: Floats, level: float = 0.95) -> tuple[float, float]:
    """Return the percentile interval of bootstrap replicates; NaN if fewer than half are defined.

    Examples:
        >>> interval(np.arange(101.0), level=0.5)
        (25.0, 75.0)
    """
    known = values[np.isfinite(values)]
    if 2 * known.size < values.size or not known.size:
        return math.nan, math.nan
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
