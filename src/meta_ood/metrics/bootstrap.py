"""Resampling of whole scenes: the pixels and frames of one scene are not independent (decision 0044)."""

import math

import numpy as np

from meta_ood.metrics import Floats, Integers


def resample(scenes: int, replicates: int, seed: int) -> Integers:
    """Return ``(B, S) int64``: how often each of S scenes is drawn with replacement in each of B replicates.

    The draw depends on nothing but the arguments: evaluations of one set of scenes, by whatever network, are resampled
    alike, so that replicates are paired.
    """
    # the number of scenes is part of the seed: sets of other sizes do not share their draws
    generator = np.random.default_rng([seed, scenes])
    return generator.multinomial(scenes, np.full(scenes, 1 / scenes), size=replicates)


def interval(values: Floats, level: float = 0.95) -> tuple[float, float]:
    """Return the percentile interval of bootstrap replicates; NaN if fewer than half are defined."""
    known = values[np.isfinite(values)]
    if 2 * known.size < values.size or not known.size:
        return math.nan, math.nan
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
