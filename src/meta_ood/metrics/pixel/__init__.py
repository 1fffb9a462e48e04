"""Pixel metrics: score histograms, protocols by name, curves and figures at thresholds."""

from meta_ood.metrics.pixel.curves import (
    AtThreshold,
    at_threshold,
    best_f1,
    fpr_at_tpr,
    just_below,
    pr_curve,
    roc_curve,
    score_distribution,
    sweep,
)
from meta_ood.metrics.pixel.histogram import ScoreHistogram, merge
from meta_ood.metrics.pixel.images import ImageCurve
from meta_ood.metrics.pixel.keys import key_scores
from meta_ood.metrics.pixel.protocols import (
    PER_IMAGE,
    PROTOCOLS,
    PixelMetrics,
    pixel_metrics,
    undefined,
)
from meta_ood.metrics.pixel.thin import ThinCounts, resampled_figures

__all__ = [
    "PER_IMAGE",
    "PROTOCOLS",
    "AtThreshold",
    "ImageCurve",
    "PixelMetrics",
    "ScoreHistogram",
    "ThinCounts",
    "at_threshold",
    "best_f1",
    "fpr_at_tpr",
    "just_below",
    "key_scores",
    "merge",
    "pixel_metrics",
    "pr_curve",
    "resampled_figures",
    "roc_curve",
    "score_distribution",
    "sweep",
    "undefined",
]
