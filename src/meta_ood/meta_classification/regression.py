"""Meta regression: the adjusted IoU that a segment has, estimated from its features."""

from typing import Any

import numpy as np
import scipy.linalg
from sklearn.linear_model import Ridge
from sklearn.metrics import mean_absolute_error, r2_score

from meta_ood.meta_classification.features import Scaling
from meta_ood.meta_classification.folds import LEAVE_ONE_OUT, assign_folds, masks
from meta_ood.meta_classification.models import with_ones
from meta_ood.metrics import Floats
from meta_ood.segments import SegmentTable


def cross_validate_iou(table: SegmentTable, folds: str = "scene", penalty: float = 1.0) -> Floats:
    """Return ``(S,)`` out-of-fold estimates of the adjusted IoU in [0, 1], by ridge regression.

    NaN where there is no segment outside the fold. `penalty` is the weight of the L2 term; the bias is free.
    """
    fold = assign_folds(table, folds)
    features = np.asarray(table.features, np.float64)
    iou = np.asarray(table.iou, np.float64)
    common = Scaling.published(features) if folds == "published" else Scaling.of(features)
    estimate = np.full(len(fold), np.nan)
    if folds in LEAVE_ONE_OUT and len(fold) > 2:
        estimate = _leave_one_out(common(features), iou, penalty)
    elif fold.any():  # more than one fold
        for out in masks(fold):
            scaling = common if folds == "published" else Scaling.of(features[~out])
            model = Ridge(alpha=penalty).fit(scaling(features[~out]), iou[~out])
            estimate[out] = model.predict(scaling(features[out]))
    return estimate.clip(0, 1)


def _leave_one_out(scaled: Floats, iou: Floats, penalty: float) -> Floats:
    """Return each segment's estimate without it, from one fit.

    The residual without a segment is its residual in the full fit over one minus its leverage. The scaling is that of
    all segments: without one of them it changes by the order of 1 / S.
    """
    design = with_ones(scaled)
    gram = design.T @ design
    gram.flat[: -1 : len(gram) + 1] += penalty  # the diagonal but its last element, the bias
    solved = scipy.linalg.solve(gram, design.T, assume_a="pos")
    leverage = np.einsum("nd,dn->n", design, solved)
    estimate: Floats = iou - (iou - design @ (solved @ iou)) / (1 - leverage)
    return estimate


def regression_quality(estimate: Floats, iou: Floats) -> dict[str, Any]:
    """Return ``r2`` and the mean absolute error of estimates that are not NaN; None if undefined."""
    known = np.isfinite(estimate)
    estimate, iou = estimate[known], iou[known]
    varies = bool(known.any() and np.ptp(iou) > 0)
    return {
        "r2": round(float(r2_score(iou, estimate)), 9) if varies else None,
        "mean_absolute_error": round(float(mean_absolute_error(iou, estimate)), 9) if known.any() else None,
    }
