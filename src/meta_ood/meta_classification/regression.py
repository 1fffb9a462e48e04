"""Meta regression: the adjusted IoU that a segment has, estimated from its features."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.linalg

from meta_ood.meta_classification.features import Floats, Scaling, Segments
from meta_ood.meta_classification.folds import assign_folds


def ridge(scaled: Floats, iou: Floats, penalty: float = 1.0) -> tuple[Floats, float]:
    """Minimise ``|iou - x w - b|^2 + penalty |w|^2``; the bias is free.

    Parameters
    ----------
    scaled
        ``(S, F)`` columns of mean 0.
    iou
        ``(S,)`` adjusted IoU in [0, 1].
    penalty
        Weight of the L2 term, above 0.

    Returns
    -------
    ``(F,)`` weights and the bias.

    Examples
    --------
    >>> weights, bias = ridge(np.array([[1.0], [-1.0]]), np.array([0.8, 0.2]), penalty=1e-9)
    >>> round(weights[0], 6), bias
    (np.float64(0.3), 0.5)
    """
    bias = float(iou.mean())
    gram = scaled.T @ scaled
    gram.flat[:: len(gram) + 1] += penalty
    weights: Floats = scipy.linalg.solve(gram, scaled.T @ (iou - bias), assume_a="pos")
    return weights, bias


def cross_validate_iou(table: Segments, folds: str = "scene", penalty: float = 1.0) -> Floats:
    """Return ``(S,)`` out-of-fold estimates of the adjusted IoU in [0, 1].

    Parameters
    ----------
    table
        Segments with features, adjusted IoU, images and scenes.
    folds
        A name in ``FOLDS``.
    penalty
        Weight of the L2 term.

    Returns
    -------
    ``(S,)``; NaN where there is no segment outside the fold.
    """
    fold = assign_folds(table, folds)
    features = np.asarray(table.features, np.float64)
    iou = np.asarray(table.iou, np.float64)
    common = Scaling.published(features) if folds == "published" else None
    estimate = np.full(len(fold), np.nan)
    singly = folds in ("leave_one_out", "published")
    if singly and len(fold) > 2:
        return _leave_one_out(features, iou, common, penalty)
    for number in range(int(fold.max(initial=-1)) + 1):
        out = fold == number
        if out.all():
            continue
        scaling = common or Scaling.of(features[~out])
        weights, bias = ridge(scaling(features[~out]), iou[~out], penalty)
        estimate[out] = scaling(features[out]) @ weights + bias
    within: Floats = np.clip(estimate, 0, 1)
    return within


def _leave_one_out(features: Floats, iou: Floats, common: Scaling | None, penalty: float) -> Floats:
    """Leave one segment out: the residual of the full fit over one minus its leverage.

    The scaling is that of all segments: without one of them it changes by the order of 1 / S.
    """
    scaled = (common or Scaling.of(features))(features)
    design = np.hstack([scaled, np.ones((len(scaled), 1))])
    gram = design.T @ design
    gram.flat[: -1 : len(gram) + 1] += penalty
    solved = scipy.linalg.solve(gram, design.T, assume_a="pos")
    leverage = np.einsum("nd,dn->n", design, solved)
    residual = iou - design @ (solved @ iou)
    within: Floats = np.clip(iou - residual / (1 - leverage), 0, 1)
    return within


def regression_quality(estimate: Floats, iou: Floats) -> dict[str, Any]:
    """Return ``r2`` and the mean absolute error of estimates that are not NaN; None if undefined.

    Examples
    --------
    >>> regression_quality(np.array([0.0, 1.0, np.nan]), np.array([0.0, 0.5, 1.0]))
    {'r2': -1.0, 'mean_absolute_error': 0.25}
    """
    known = np.isfinite(estimate)
    if not known.any():
        return {"r2": None, "mean_absolute_error": None}
    residual, spread = (iou - estimate)[known], (iou - iou[known].mean())[known]
    total = float(spread @ spread)
    return {
        "r2": round(1 - float(residual @ residual) / total, 9) if total > 0 else None,
        "mean_absolute_error": round(float(np.abs(residual).mean()), 9),
    }
