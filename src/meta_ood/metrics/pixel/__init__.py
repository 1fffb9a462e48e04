"""Pixel metrics: score histograms, protocols by name, curves and thresholds."""

from meta_ood.metrics.pixel.curves import (
    ImageCurve,
    Sweep,
    ThinCounts,
    best_f1_threshold,
    f1_at,
    fpr_at_tpr,
    pr_curve,
    resampled_metrics,
    roc_curve,
    score_distribution,
)
from meta_ood.metrics.pixel.histogram import ScoreHistogram, merge, sweep
from meta_ood.metrics.pixel.keys import key_scores
from meta_ood.metrics.pixel.protocols import (
    PER_IMAGE,
    PROTOCOLS,
    RESIZED,
    PixelMetrics,
    pixel_metrics,
    smiyc_threshold,
    with_counts,
)
