"""Pixel metrics from score histograms: AUROC, AUPRC, FPR95, curves, and what they were made of."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from meta_ood.data.registry import lookup
from meta_ood.metrics.pixel.curves import TPR, auprc_of, auroc_of, fpr_at_tpr, sweep
from meta_ood.metrics.pixel.histogram import ScoreHistogram
from meta_ood.metrics.pixel.images import ImageCurve
from meta_ood.metrics.pixel.keys import key_scores

logger = logging.getLogger(__name__)

Floats = npt.NDArray[np.float64]
BINS = 100
"""Bins of the published protocol."""
ROUNDING = 1e-6
"""How far a score may lie outside [0, 1] and still be one that was meant to be inside."""
_FIGURES = (
    "auroc",
    "auprc",
    "fpr95",
    "threshold95",
    "auroc_error",
    "auprc_error",
    "fpr95_error",
)


@dataclass(frozen=True)
class PixelMetrics:
    """Pixel metrics of one score on one set under one protocol; fractions in [0, 1].

    Attributes
    ----------
    protocol
        Key of :data:`PROTOCOLS`.
    auroc
        Area under the ROC curve; ties count half.
    auprc
        Average precision: the step-wise sum of precision over recall.
    fpr95, threshold95
        False positive rate at the first threshold whose true positive rate is at least 0.95, and
        that threshold: positive is ``score >= threshold``.
    auroc_error, auprc_error, fpr95_error
        Bounds of what the histogram's bounded memory can have changed; 0 while it is exact.
    frames, pixels, positives
        Evaluated frames, evaluated pixels and the OoD pixels among them.
    ignored, neutral
        Pixels left out: void, and LostAndFound's non-hazards.

    All figures are NaN where there is no positive or no negative pixel.
    """

    protocol: str
    auroc: float
    auprc: float
    fpr95: float
    threshold95: float
    auroc_error: float
    auprc_error: float
    fpr95_error: float
    frames: int
    pixels: int
    positives: int
    ignored: int
    neutral: int


def exact(histogram: ScoreHistogram) -> PixelMetrics:
    """Evaluate all pixels pooled, every score counted for itself.

    This is also the pixel protocol of Fishyscapes (``bdlb``).
    """
    return _pooled(histogram, "exact")


def fishyscapes(histogram: ScoreHistogram) -> PixelMetrics:
    """Evaluate as Fishyscapes' benchmark does: pooled, step-wise AP, first TPR >= 0.95."""
    return _pooled(histogram, "fishyscapes")


def _pooled(histogram: ScoreHistogram, protocol: str) -> PixelMetrics:
    s = sweep(histogram)
    auroc, auroc_error = auroc_of(s)
    auprc, auprc_error = auprc_of(s)
    fpr95, threshold, fpr95_error = fpr_at_tpr(s)
    return _result(
        histogram,
        protocol,
        auroc=auroc,
        auprc=auprc,
        fpr95=fpr95,
        threshold95=threshold,
        auroc_error=auroc_error,
        auprc_error=auprc_error,
        fpr95_error=fpr95_error,
    )


def _result(histogram: ScoreHistogram, protocol: str, **figures: float) -> PixelMetrics:
    return PixelMetrics(
        protocol=protocol,
        **{name: figures.get(name, math.nan) for name in _FIGURES},
        frames=histogram.frames,
        pixels=histogram.positives + histogram.negatives,
        positives=histogram.positives,
        ignored=histogram.ignored,
        neutral=histogram.neutral,
    )


def published(histogram: ScoreHistogram) -> PixelMetrics:
    """Evaluate as the published code does (METHOD.md G4), for comparison with its figures.

    100 equal bins on [0, 1]; scores that round beyond are lost, other scores have no figure.
    AUROC and FPR95 from 10^5 points of each class (bins with less than 10^-5 of a class vanish),
    FPR95 at the ROC point whose TPR is *nearest* to 0.95; AUPRC from 10^7 points in all.
    """
    keys, negatives, positives, _ = histogram.counts()
    scores = key_scores(keys)
    if scores[0] < -ROUNDING or scores[-1] > 1 + ROUNDING:
        logger.warning("protocol published needs scores in [0, 1]: the metrics are NaN")
        return undefined(histogram, "published")
    edges = np.linspace(0, 1, BINS + 1, dtype=np.float32)
    place = np.searchsorted(edges, scores, side="right") - 1
    place[scores == edges[-1]] = BINS - 1
    inside = (place >= 0) & (place < BINS)
    counts: list[Floats] = [
        np.asarray(np.bincount(place[inside], column[inside], BINS), np.float64)
        for column in (negatives, positives)
    ]
    lost = histogram.negatives + histogram.positives - int(counts[0].sum() + counts[1].sum())
    if lost:
        logger.warning("protocol published loses %d pixels that round beyond [0, 1]", lost)
    if not counts[0].any() or not counts[1].any():
        return undefined(histogram, "published")
    return _result(histogram, "published", **published_figures(counts[0], counts[1]))


def published_figures(negatives: Floats, positives: Floats) -> dict[str, float]:
    """Return the published code's AUROC, FPR95 and AUPRC of two histograms over [0, 1].

    Parameters
    ----------
    negatives, positives
        ``(100,)`` counts by rising score, not all zero.
    """
    fp, tp = (np.cumsum(_expand(c, 1e5)[::-1]) for c in (negatives, positives))
    # points that lie on a line with their neighbours are dropped before the nearest is sought
    used = np.diff(fp + tp, prepend=0) > 0
    fp, tp = fp[used], tp[used]
    if fp.size > 2:
        bend = (np.diff(fp, 2) != 0) | (np.diff(tp, 2) != 0)
        keep = np.concatenate([[True], bend, [True]])
        fp, tp = fp[keep], tp[keep]
    fpr, tpr = np.concatenate([[0], fp / fp[-1]]), np.concatenate([[0], tp / tp[-1]])
    total = negatives.sum() + positives.sum()
    n, p = (_expand(c, 1e7 * (c.sum() / total))[::-1] for c in (negatives, positives))
    above = np.cumsum(p)
    precision = above / np.maximum(above + np.cumsum(n), 1)
    return {
        "auroc": float(np.sum(np.diff(fpr) * (tpr[1:] + tpr[:-1])) / 2),
        "fpr95": float(fpr[np.argmin(np.abs(tpr - TPR))]),
        "auprc": float(np.sum(p * precision) / above[-1]) if above[-1] else math.nan,
    }


def _expand(counts: Floats, points: float) -> Floats:
    return np.asarray(np.floor(counts / counts.sum() * points), np.float64)


def smiyc(histogram: ScoreHistogram) -> PixelMetrics:
    """Evaluate as SegmentMeIfYouCan does: each image adds its pixels at its own 768 edges.

    Bins count at their lower edge; AP is the step sum over the merged curve, FPR95 is read at the
    first TPR >= 0.95. Needs the images' curves.
    """
    images = _images(histogram, "smiyc")
    thresholds = np.concatenate([image.thresholds for image in images])
    order = np.argsort(-thresholds, kind="stable")
    tp = np.cumsum(np.concatenate([image.tp for image in images])[order].astype(np.float64))
    fp = np.cumsum(np.concatenate([image.fp for image in images])[order].astype(np.float64))
    last = np.flatnonzero(np.append(np.diff(thresholds[order]) != 0, True))
    levels = thresholds[order][last]
    tp, fp = np.concatenate([[0.0], tp[last]]), np.concatenate([[0.0], fp[last]])
    tpr, fpr = tp / tp[-1], fp / fp[-1]
    precision = tp / np.maximum(tp + fp, 1)
    first = int(np.searchsorted(tpr, TPR))
    return _result(
        histogram,
        "smiyc",
        auroc=float(np.sum(np.diff(fpr) * (tpr[1:] + tpr[:-1])) / 2),
        auprc=float(np.sum(np.diff(tpr) * precision[1:])),
        fpr95=float(fpr[first]),
        threshold95=float(levels[first - 1]),
    )


def per_image_mean(histogram: ScoreHistogram) -> PixelMetrics:
    """Average the exact figures of the images that have both kinds of pixels.

    ``frames`` counts only those: images without OoD, where false alarms cost most, are left out.
    """
    images = [i for i in _images(histogram, "per_image_mean") if i.positives and i.negatives]
    if not images:
        return undefined(histogram, "per_image_mean")
    means = {
        name: math.fsum(getattr(image, name) for image in images) / len(images)
        for name in ("auroc", "auprc", "fpr95")
    }
    return dataclasses.replace(_result(histogram, "per_image_mean", **means), frames=len(images))


def _images(histogram: ScoreHistogram, protocol: str) -> list[ImageCurve]:
    if len(histogram.images) != histogram.frames:
        raise ValueError(f"protocol {protocol} needs a histogram with the curves of all images")
    return sorted(histogram.images, key=lambda image: image.image_id)


PER_IMAGE = ("smiyc", "per_image_mean")
"""Protocols that need the images' curves: ``ScoreHistogram.add(..., curve=True)``."""

PROTOCOLS: dict[str, Callable[[ScoreHistogram], PixelMetrics]] = {
    "exact": exact,
    "published": published,
    "fishyscapes": fishyscapes,
    "smiyc": smiyc,
    "per_image_mean": per_image_mean,
}


def pixel_metrics(histogram: ScoreHistogram, protocol: str = "exact") -> PixelMetrics:
    """Evaluate a score.

    Parameters
    ----------
    histogram
        The evaluated pixels.
    protocol
        Key of :data:`PROTOCOLS`.

    Returns
    -------
    The metrics; all NaN, with a warning in the log, without a positive or without a negative pixel.

    Raises
    ------
    ValueError
        If the protocol is unknown.

    Examples
    --------
    >>> import numpy as np
    >>> target = np.array([[253, 253, 254, 254]], np.uint8)
    >>> m = pixel_metrics(ScoreHistogram.of(np.array([[0.1, 0.6, 0.5, 0.9]]), target))
    >>> m.auroc, round(m.auprc, 4), m.fpr95
    (0.75, 0.8333, 0.5)
    """
    evaluate = lookup("protocol", PROTOCOLS, protocol)
    if not histogram.positives or not histogram.negatives:
        missing = "OoD" if not histogram.positives else "in-distribution"
        logger.warning("protocol %s: no %s pixel, the metrics are NaN", protocol, missing)
        return undefined(histogram, protocol)
    return evaluate(histogram)


def undefined(histogram: ScoreHistogram, protocol: str) -> PixelMetrics:
    """Return metrics that are all NaN, with the counts of the histogram."""
    return _result(histogram, protocol)
