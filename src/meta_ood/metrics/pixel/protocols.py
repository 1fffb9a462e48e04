"""Pixel metrics of a score under a named protocol: AUROC, AUPRC and FPR95 with their counts."""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from meta_ood.data.registry import lookup
from meta_ood.metrics import Floats
from meta_ood.metrics.pixel.curves import TPR, ImageCurve, Sweep, best_f1_threshold, rates
from meta_ood.metrics.pixel.histogram import ScoreHistogram, sweep, unit_bins

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PixelMetrics:
    """Pixel metrics of one score on one set under one protocol; fractions in [0, 1].

    The first six attributes are NaN where there is no positive or no negative pixel.

    Attributes:
        protocol: Key of :data:`PROTOCOLS`.
        auroc: Area under the ROC curve; ties count half.
        auprc: Average precision: the step-wise sum of precision over recall.
        fpr95: False positive rate at the first threshold whose true positive rate is at least 0.95.
        auroc_error, auprc_error, fpr95_error: Bounds of the error that the histogram's limited memory can cause; 0
            while it is exact.
        frames, pixels, positives: Evaluated frames, evaluated pixels and the OoD pixels among them.
        ignored, neutral: Pixels left out: void, and LostAndFound's non-hazards.
    """

    protocol: str
    auroc: float = math.nan
    auprc: float = math.nan
    fpr95: float = math.nan
    auroc_error: float = math.nan
    auprc_error: float = math.nan
    fpr95_error: float = math.nan
    frames: int
    pixels: int
    positives: int
    ignored: int
    neutral: int


Values = dict[str, float]
"""Fields of :class:`PixelMetrics`; a missing rate is NaN, a missing count is the histogram's."""


def exact(histogram: ScoreHistogram, curve: Sweep) -> Values:
    """Evaluate all pixels pooled, every score counted for itself.

    Protocol ``fishyscapes`` is the same: the pixel metrics of Fishyscapes' benchmark (``bdlb``). So is
    ``resized_512x1024``, of frames at that size.
    """
    found = rates(curve)
    errors = {f"{name}_error": error for name, (_, error) in found.items()}
    return {name: value for name, (value, _) in found.items()} | errors


def published(histogram: ScoreHistogram, curve: Sweep) -> Values:
    """Evaluate as the published code does, for comparison with its numbers (decision 0040).

    100 equal bins on [0, 1]; scores that round beyond are lost, others give no value. AUROC and FPR95 come from 10^5
    points of each class (bins with less than 10^-5 of a class vanish), FPR95 at the ROC point whose TPR is *nearest* to
    0.95; AUPRC comes from 10^7 points in all.
    """
    scores = curve.thresholds
    if scores[-1] < -1e-6 or scores[0] > 1 + 1e-6:  # a float32 probability rounds by less
        return {}
    # what came in double precision is binned in double precision; a coarse cell must not go below zero
    counted = np.stack([unit_bins(scores, cell) for cell in (curve.cell_fp, curve.cell_tp)])
    negatives, positives = np.maximum(counted + histogram.rebinned, 0).astype(np.float64)
    lost = histogram.negatives + histogram.positives - int(negatives.sum() + positives.sum())
    if lost:
        logger.warning("protocol published loses %d pixels that round beyond [0, 1]", lost)
    if not negatives.any() or not positives.any():
        return {}
    return published_metrics(negatives, positives)


def published_metrics(negatives: Floats, positives: Floats) -> Values:
    """Return the published code's AUROC, FPR95 and AUPRC of two histograms over [0, 1].

    Args:
        negatives, positives: ``(100,)`` counts by rising score, not all zero.
    """
    # ROC from 10^5 points of each class
    fp, tp = (np.cumsum(np.floor(c / c.sum() * 1e5)[::-1]) for c in (negatives, positives))
    # points that lie on a line with their neighbours are dropped before the nearest is sought
    used = np.diff(fp + tp, prepend=0) > 0
    fp, tp = fp[used], tp[used]
    if fp.size > 2:
        bend = (np.diff(fp, 2) != 0) | (np.diff(tp, 2) != 0)
        keep = np.concatenate([[True], bend, [True]])
        fp, tp = fp[keep], tp[keep]
    fpr, tpr = np.concatenate([[0], fp / fp[-1]]), np.concatenate([[0], tp / tp[-1]])
    # precision over recall, from about 10^7 points with the classes in their true proportion
    total = negatives.sum() + positives.sum()
    n, p = (np.floor(c / c.sum() * (1e7 * (c.sum() / total)))[::-1] for c in (negatives, positives))
    above = np.cumsum(p)
    precision = above / np.maximum(above + np.cumsum(n), 1)
    return {
        "auroc": float(np.trapezoid(tpr, fpr)),
        "fpr95": float(fpr[np.argmin(np.abs(tpr - TPR))]),
        "auprc": float(np.sum(p * precision) / above[-1]) if above[-1] else math.nan,
    }


def smiyc(histogram: ScoreHistogram, curve: Sweep) -> Values:
    """Evaluate as SegmentMeIfYouCan does: each image adds its pixels at its own 768 edges.

    Needs the images' curves; infinite scores have no quantiles and no value.
    """
    merged = _smiyc_sweep(histogram)
    return {name: value for name, (value, _) in rates(merged).items()} if merged else {}


def smiyc_threshold(histogram: ScoreHistogram) -> float:
    """Return SegmentMeIfYouCan's default threshold of components; `>` is positive.

    It is the lower edge of the bin with the best F1 on the curve merged from the images' quantiles, the highest one of
    several: an oracle. NaN without a positive pixel or with infinite scores.
    """
    merged = _smiyc_sweep(histogram) if histogram.positives else None
    return best_f1_threshold(merged) if merged else math.nan


def _smiyc_sweep(histogram: ScoreHistogram) -> Sweep | None:
    """Return the sweep over the bins of all images, those with equal edges together; None with infinite scores."""
    images = _images(histogram, "smiyc")
    bins = [image.bins for image in images if image.bins]
    if len(bins) < len(images):
        return None
    edges, index = np.unique(np.concatenate([one.thresholds for one in bins]), return_inverse=True)
    tp, fp = np.zeros((2, edges.size))
    np.add.at(tp, index, np.concatenate([one.cell_tp for one in bins]))
    np.add.at(fp, index, np.concatenate([one.cell_fp for one in bins]))
    return Sweep(edges[::-1], tp[::-1], fp[::-1], np.zeros(edges.size, bool))


def per_image_mean(histogram: ScoreHistogram, curve: Sweep) -> Values:
    """Average the exact values of the images that have both kinds of pixels.

    ``frames`` counts only those: images without OoD, where false alarms cost most, are left out.
    """
    values = [image.values for image in _images(histogram, "per_image_mean") if image.values]
    if not values:
        return {}
    return {name: math.fsum(one[name] for one in values) / len(values) for name in values[0]} | {"frames": len(values)}


def _images(histogram: ScoreHistogram, protocol: str) -> list[ImageCurve]:
    """Return the curves of all images, sorted by name: sums do not depend on the order of adding."""
    if len(histogram.images) != histogram.frames:
        raise ValueError(f"protocol {protocol} needs a histogram with the curves of all images")
    return sorted(histogram.images, key=lambda image: image.image_id)


PER_IMAGE = ("smiyc", "per_image_mean")
"""Protocols that need the images' curves: ``ScoreHistogram.add(..., curve=True)``."""

RESIZED = "resized_512x1024"
"""Protocol whose histogram is of frames at another size: see :func:`meta_ood.evaluation.counting.resized`."""

PROTOCOLS: dict[str, Callable[[ScoreHistogram, Sweep], Values]] = {
    "exact": exact,
    "published": published,
    "fishyscapes": exact,
    "smiyc": smiyc,
    "per_image_mean": per_image_mean,
    RESIZED: exact,
}


_NEEDS = {
    "published": "scores in [0, 1]",
    "smiyc": "finite scores",
    "per_image_mean": "an image with OoD and in-distribution pixels",
}
"""Protocol -> without what it has no value."""


def pixel_metrics(
    histogram: ScoreHistogram, protocol: str = "exact", curve: Sweep | None = None, score: str = "this score"
) -> PixelMetrics:
    """Return the metrics of the counted pixels under a protocol.

    Without a positive or without a negative pixel all are NaN, and so they are of a score that the protocol cannot
    evaluate; a warning in the log says so.

    Args:
        histogram: The evaluated pixels.
        protocol: Key of :data:`PROTOCOLS`; another one is a ``ValueError``.
        curve: Sweep of this histogram, if it is there already.
        score: Its name, for the warning.
    """
    evaluate = lookup("protocol", PROTOCOLS, protocol)
    if histogram.positives and histogram.negatives:
        values = evaluate(histogram, curve or sweep(histogram))
        if not values:
            logger.warning("protocol %s needs %s: it has no value for %s", protocol, _NEEDS[protocol], score)
        return with_counts(histogram, protocol, values)
    missing = "in-distribution" if histogram.positives else "OoD"
    logger.warning("protocol %s: no %s pixel, the metrics are NaN", protocol, missing)
    return with_counts(histogram, protocol, {})


def with_counts(histogram: ScoreHistogram, protocol: str, values: Values) -> PixelMetrics:
    """Return the metrics of these values: NaN where one is missing, with the histogram's counts."""
    counts = {
        "frames": histogram.frames,
        "pixels": histogram.positives + histogram.negatives,
        "positives": histogram.positives,
        "ignored": histogram.ignored,
        "neutral": histogram.neutral,
    }
    return PixelMetrics(protocol=protocol, **{**counts, **values})  # type: ignore[arg-type]
