"""Pixel metrics: score histograms, protocols by name, curves and figures at thresholds."""

from meta_ood.metrics.pixel.histogram import ScoreHistogram, merge
from meta_ood.metrics.pixel.keys import key_scores
from meta_ood.metrics.pixel.protocols import (
    PROTOCOLS,
    AtThreshold,
    PixelMetrics,
    at_threshold,
    best_f1,
    fpr_at_tpr,
    pixel_metrics,
    pr_curve,
    roc_curve,
    score_distribution,
    sweep,
)

__all__ = [
    "PROTOCOLS",
    "AtThreshold",
    "PixelMetrics",
    "ScoreHistogram",
    "at_threshold",
    "best_f1",
    "fpr_at_tpr",
    "key_scores",
    "merge",
    "pixel_metrics",
    "pr_curve",
    "roc_curve",
    "score_distribution",
    "sweep",
]
