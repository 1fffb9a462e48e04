"""False alarms by budget: a threshold with a guarantee, the recall it leaves, and the monitor of the promise.

A segment has a *severity*, at least 0, higher = more surely an object: -ln P(false) of the meta classifier, or one made
of its score. A frame has a *false alarm* if a false segment on it reaches the threshold. A *unit* is what can be
exchanged: a scene, or a frame where each frame is a scene of its own. The loss of a unit is the fraction of its frames
with a false alarm, or whether it has any. The promise: with probability `confidence` over the units that choose the
threshold, the expected loss of a further unit drawn like them is at most the budget.

The loss falls when the threshold rises. So the rule starts above all severities and goes down as long as an upper
confidence bound of the mean loss keeps to the budget: risk-controlling prediction sets (Bates et al. 2021,
doi:10.1145/3478535) with the fixed sequence of Angelopoulos et al. (arXiv 2110.01052). docs/operating-point.md says
what the promise covers; docs/method.md, section 8, has the formulas.
"""

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.optimize import brentq
from scipy.stats import beta, binom, ks_2samp

from meta_ood.metrics import Floats, bootstrap
from meta_ood.segments.table import SegmentTable

Per = Literal["frame", "scene", "minute"]


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold of severity with its promise. Rates have the unit of the budget: per frame, scene or minute."""

    threshold: float  # a segment raises an alarm if its severity is at least this
    budget: float
    per: Per
    confidence: float  # in (0, 1)
    units: int  # scenes, or frames that are scenes of their own
    frames: int
    alarms: int  # frames with a false alarm at the threshold
    rate: float  # mean loss of the units
    bound: float  # upper confidence bound of the rate, at most `budget`


def choose_threshold(
    severities: Sequence[Floats],
    units: Sequence[str],
    budget: float,
    confidence: float,
    *,
    per: Per = "frame",
    frames_per_minute: float | None = None,
) -> OperatingPoint:
    """Return the lowest threshold whose rate of false alarms keeps to the budget, with the stated confidence.

    The threshold is 0, or the next float above a severity: all thresholds between two severities raise the same
    alarms here, and the lowest of them finds most objects. The guarantee holds for every threshold above it, too.

    Args:
        severities: For each frame the severities ``(k,)``, at least 0, of its false segments; empty without any.
        units: For each frame the name of its scene.
        budget: Frames with a false alarm: as a fraction of all (frame), or expected number (minute); or the fraction
            of scenes that have any (scene).
        confidence: In (0, 1), of the choice.
        per: What the budget counts by.
        frames_per_minute: Only for ``per="minute"``.

    Raises:
        ValueError: A budget, confidence, length or severity that makes no sense; too few units for the promise (the
            message says how many are needed); all severities alike, so that no threshold separates anything.
    """
    # 1. the budget as a bound on a mean loss in [0, 1]
    if per == "minute" and not (frames_per_minute and frames_per_minute > 0):
        raise ValueError("false alarms per minute need frames_per_minute, a number above 0")
    scale = float(frames_per_minute or 1) if per == "minute" else 1.0
    limit = budget / scale
    if not 0 < limit < 1:
        raise ValueError(
            f"a budget of {budget:g} false alarms per {per} cannot be promised: it must be above 0 and below {scale:g}"
        )
    tops = highest(severities)
    seen = np.unique(tops[np.isfinite(tops)])
    if (wrong := (tops == np.inf) | (np.isfinite(tops) & (tops < 0))).any():
        raise ValueError(f"a severity of {tops[wrong][0]:g}, expected finite ones of at least 0")
    single = per != "scene" and len(set(units)) == len(units)
    binary = single or per == "scene"
    # 2. with fewer units even a threshold without any alarm would not keep the promise
    count, needed = len(set(units)), least_units(limit, confidence)
    if count < needed:
        # the least budget, rounded up: (1 - budget)^n = 1 - confidence
        least = math.ceil(-1000 * scale * math.expm1(math.log1p(-confidence) / count)) / 1000 if count else math.inf
        remedy = f": enough for {least:g}; give more, or raise the budget" if least < scale else ""
        raise ValueError(
            f"{budget:g} false alarms per {per} at {100 * confidence:g} % needs at least {needed} independent "
            f"{'frames' if single else 'scenes'} without an alarm; you have {count}"
            + ("" if single else f" ({len(units)} frames)")
            + remedy
        )
    # 3. losses fall with the threshold and the bound falls with the losses, so that bisection finds the first candidate
    # from which on all keep to the limit; the last one raises no alarm and always does
    candidates = [0.0, *np.nextafter(seen, np.inf).tolist()]

    def keeps(threshold: float) -> bool:
        return upper_bound(losses(tops, units, threshold, per), confidence, binary) <= limit

    threshold = candidates[bisect.bisect_left(candidates, True, hi=len(seen), key=keeps)]
    if len(seen) == 1 and threshold > seen[0] and sum(map(len, severities)) > 1:
        raise ValueError(
            f"all false segments have the severity {seen[0]:g}: only a threshold above all of them keeps to the "
            "budget; another score, or a meta classifier, has to tell segments apart"
        )
    found = losses(tops, units, threshold, per)
    return OperatingPoint(
        threshold=threshold,
        budget=budget,
        per=per,
        confidence=confidence,
        units=count,
        frames=len(units),
        alarms=int((tops >= threshold).sum()),
        rate=scale * float(found.mean()),
        bound=scale * upper_bound(found, confidence, binary),
    )


def least_units(budget: float, confidence: float) -> int:
    """Return how many units without any alarm promise a mean loss of at most `budget`, both in (0, 1).

    Examples:
        >>> least_units(0.01, 0.95), least_units(0.1, 0.9)
        (299, 22)
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence:g}, expected a number above 0 and below 1")
    # n units without an alarm happen with probability (1 - budget)^n if the mean loss is the budget
    return math.ceil(math.log1p(-confidence) / math.log1p(-budget))


def highest(severities: Sequence[Floats]) -> Floats:
    """Return ``(N,)`` the highest severity on each frame, -inf without a segment; NaN is a ``ValueError``."""
    tops = np.array([np.max(own, initial=-np.inf) for own in severities], np.float64)
    if np.isnan(tops).any():
        raise ValueError(f"frame {int(np.flatnonzero(np.isnan(tops))[0])} has a severity that is NaN")
    return tops


def losses(tops: Floats, units: Sequence[str], threshold: float, per: Per = "frame") -> Floats:
    """Return the loss in [0, 1] of each unit, in the order of their names.

    `tops` ``(N,)`` are the highest severities of false segments on the frames, see :func:`highest`; `units` their
    scenes. Another length, or no frame at all, is a ``ValueError``.
    """
    if len(tops) != len(units) or not len(units):
        raise ValueError(f"{len(tops)} frames with severities, {len(units)} with names of units: expected as many")
    index = np.unique(np.asarray(units), return_inverse=True)[1]
    alarms = np.bincount(index, tops >= threshold)
    return np.asarray(alarms > 0, np.float64) if per == "scene" else alarms / np.bincount(index)


def upper_bound(values: Floats, confidence: float, binary: bool = False) -> float:
    """Return an upper confidence bound of the mean of independent losses in [0, 1].

    With `binary` losses, 0 or 1, the exact bound of Clopper and Pearson. Else a bet against each mean m (Waudby-Smith
    and Ramdas 2024, doi:10.1093/jrsssb/qkad009): a capital of 1 is multiplied by ``(1 - L) A + L B`` for each loss L,
    where ``(1 - m) A + m B = 1`` and A > B. If the mean is at least m, the capital reaches ``1 / (1 - confidence)``
    with probability ``1 - confidence`` at most (Markov); the bound is the smallest m that is refuted so. We take
    ``A = (1 - x) / (1 - m)`` and ``B = x / m`` with ``KL(x, m) = -ln(1 - confidence) / n``, x < m: for losses of 0 and
    1 that is Hoeffding's bound, for fractions never worse.
    """
    n = len(values)
    if binary:
        k = round(float(values.sum()))
        return float(beta.ppf(confidence, k + 1, n - k)) if k < n else 1.0
    evidence = -math.log1p(-confidence)
    least = -math.expm1(-evidence / n)  # the bound of n losses of 0
    if not values.any():
        return least

    def surplus(mean: float) -> float:
        """Return the logarithm of the capital over what rejects this mean; A and B rise with it, so this does, too."""
        x = _kl_root(mean, evidence / n)
        factors = (1 - values) * ((1 - x) / (1 - mean)) + values * (x / mean)
        return float(np.log(np.maximum(factors, 1e-300)).sum()) - evidence

    most = 1 - 1e-9
    return float(brentq(surplus, least, most, xtol=1e-12)) if surplus(most) > 0 else 1.0


def _kl_root(mean: float, divergence: float) -> float:
    """Return x in [0, mean] with KL(x, mean) = `divergence`, of Bernoulli distributions; 0 if there is none."""

    def excess(x: float) -> float:
        first = x * math.log(x / mean) if x > 0 else 0.0
        return first + (1 - x) * math.log((1 - x) / (1 - mean)) - divergence

    return float(brentq(excess, 0.0, mean, xtol=1e-15)) if excess(0.0) > 0 else 0.0


def false_severities(table: SegmentTable, severity: Floats) -> list[Floats]:
    """Return for each image of a table the severities of its false segments; `severity` is ``(S,)``."""
    false = table.is_false
    edges = np.cumsum(np.bincount(table.image[false], minlength=len(table.image_ids)))
    return np.split(severity[false], edges[:-1])


def object_severities(table: SegmentTable, severity: Floats) -> Floats:
    """Return ``(T,)`` the highest severity among the segments that hit each object, -inf if none does."""
    best = np.full(len(table.component_image), -np.inf)
    np.maximum.at(best, table.overlaps[:, 1], severity[table.overlaps[:, 0]])
    return best


def recall(
    table: SegmentTable, severity: Floats, threshold: float, *, replicates: int = 1000, seed: int = 0
) -> tuple[float, float, float]:
    """Return the fraction of objects hit by a segment that reaches the threshold, and its 95 % interval over scenes.

    NaN without objects; the interval is NaN with fewer than two scenes.
    """
    scenes, index = np.unique(table.scenes, return_inverse=True)
    own = index[table.component_image]
    found = np.bincount(own, object_severities(table, severity) >= threshold, len(scenes))
    objects = np.bincount(own, minlength=len(scenes))
    value = float(found.sum() / objects.sum()) if objects.any() else math.nan
    if len(scenes) < 2 or math.isnan(value):
        return value, math.nan, math.nan
    weights = bootstrap.resample(len(scenes), replicates, seed)
    drawn = weights @ objects
    return value, *bootstrap.interval(np.where(drawn > 0, weights @ found / np.maximum(drawn, 1), np.nan))


def froc(severities: Sequence[Floats], units: Sequence[str], objects: Floats) -> dict[str, Floats]:
    """Return recall of objects against false alarms at every threshold, the free-response ROC.

    Args:
        severities, units: Of the frames that say how often there is a false alarm, as in :func:`choose_threshold`.
        objects: ``(T,)`` of the frames with objects, see :func:`object_severities`.

    Returns:
        ``threshold``, falling, and at each ``recall`` (NaN without objects), ``alarm_rate`` (mean over units of the
        fraction of frames with a false alarm) and ``false_segments`` (per frame).
    """
    tops = highest(severities)
    false = np.concatenate([*severities, np.zeros(0)])
    thresholds = np.unique([*false, *objects[np.isfinite(objects)]])[::-1]
    # a frame counts by one over the number of frames of its unit, so that units count alike
    names, index, frames = np.unique(np.asarray(units), return_inverse=True, return_counts=True)
    weight = 1 / (len(names) * frames[index])

    def reached(values: Floats, weights: Floats) -> Floats:
        """Return the weight of the values that reach each threshold."""
        order = np.argsort(-values, kind="stable")
        total = np.concatenate([[0.0], np.cumsum(weights[order])])
        return np.asarray(total[np.searchsorted(-values[order], -thresholds, side="right")])

    each = np.full(len(objects), 1 / len(objects) if len(objects) else math.nan)
    return {
        "threshold": thresholds,
        "recall": reached(objects, each) if len(objects) else np.full(len(thresholds), math.nan),
        "alarm_rate": reached(tops, weight),
        "false_segments": reached(false, np.full(len(false), 1 / len(severities))),
    }


def promise_p_value(alarms: int, units: int, budget: float) -> float:
    """Return the probability of at least so many alarms on so many units if their rate were exactly `budget`.

    The binomial test of a promise per frame or scene, `budget` in (0, 1): a small value says that the promise has
    become unlikely. Consecutive frames of one drive are not independent: count one frame a scene, or scenes.
    """
    return float(binom.sf(alarms - 1, units, budget))


def quantile_sample(values: Floats, size: int = 256) -> Floats:
    """Return ``(q, F)`` evenly spaced quantiles of the columns of ``(n, F)``, for :func:`drift_p_values`.

    q is `size`, or n if that is smaller. NaN, as on frames without a segment, does not count; a column of NaN stays so.
    """
    count = min(size, len(values))
    levels = (np.arange(count) + 0.5) / max(count, 1)
    columns = (own[np.isfinite(own)] for own in values.T)
    quantiles = [np.quantile(own, levels) if own.size else np.full(count, np.nan) for own in columns]
    return np.array(quantiles, np.float64).reshape(values.shape[1], count).T


def drift_p_values(values: Floats, reference: Floats) -> Floats:
    """Return ``(F,)`` p-values that the columns of ``(n, F)`` are distributed as the calibration sample's.

    Two-sample tests of Kolmogorov and Smirnov against :func:`quantile_sample` ``(q, F)``, multiplied by F (Bonferroni)
    and cut at 1: below 0.05, say, some column has drifted. Rows must be independent, so take one a frame; quantiles of
    a larger sample count as a sample of q, which is cautious. 1 where either side has only NaN.
    """
    if values.shape[1] != reference.shape[1]:
        raise ValueError(f"{values.shape[1]} features, but the reference has {reference.shape[1]}")
    result = np.ones(values.shape[1])
    for column, (own, other) in enumerate(zip(values.T, reference.T, strict=True)):
        own, other = own[np.isfinite(own)], other[np.isfinite(other)]
        if own.size and other.size:
            result[column] = min(1.0, len(result) * float(ks_2samp(own, other).pvalue))
    return result
