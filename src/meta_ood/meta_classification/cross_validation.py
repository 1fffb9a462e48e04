"""Cross validation of a table of segments: decisions, metrics, the fitted classifier, and estimates of the IoU."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.linalg
from sklearn.linear_model import Ridge
from sklearn.metrics import mean_absolute_error, r2_score

from meta_ood.meta_classification import quality
from meta_ood.meta_classification.classifier import MetaClassifier, fit
from meta_ood.meta_classification.features import Scaling, false_positives
from meta_ood.meta_classification.folds import LEAVE_ONE_OUT, OutOfFold, assign_folds, masks, out_of_fold, predict_folds
from meta_ood.meta_classification.models import with_ones
from meta_ood.metrics import Flags, Floats
from meta_ood.segments import SegmentTable


@dataclass(frozen=True)
class CrossValidation:
    """Out-of-fold decisions on the segments of a table, and the classifier fitted on all of them.

    The first three are those of classifiers fitted without the segment's fold.
    """

    probability: Floats  # (S,) of being a false positive
    removed: Flags  # (S,) whether it is above the operating point
    estimated_iou: Floats  # (S,) NaN where there is no other fold
    classifier: MetaClassifier  # fitted on all segments, for new data
    # contents of metrics.json; quality is that of the segments for whose folds a classifier was fitted
    metrics: dict[str, Any]


def cross_validate(
    table: SegmentTable,
    *,
    classifier: str = "logistic_regression",
    options: Mapping[str, Any] | None = None,
    folds: str = "scene",
    operating_point: float = 0.5,
    max_lost: float | None = None,
) -> CrossValidation:
    """Cross-validate a meta classifier on a table and fit it on all of it.

    A segment is removed if its probability is above `operating_point` in [0, 1]. If `max_lost` is given, the fraction
    in [0, 1] of the true segments that may be lost, it is the lowest point that keeps to this on the training folds,
    see :func:`operating_points`. The other arguments are those of :func:`out_of_fold`.
    """
    options = dict(options or {})
    # 1. probabilities and decisions, each segment's by a classifier fitted without its fold
    found = out_of_fold(table, folds, classifier, **options)
    false = false_positives(table)
    points = np.full(len(false), operating_point)
    if max_lost is not None:
        points = operating_points(table, found, folds, classifier, options, max_lost)
        operating_point = quality.operating_point_for_max_lost(found.probability, false, max_lost)
    removed = found.probability > points
    # 2. the classifier for new data, and how often it decides differently
    fitted = fit(table, classifier, operating_point=operating_point, **options)
    differing = (fitted.probability(table) > operating_point) != removed
    fitted = replace(fitted, differing_decisions=int(differing.sum()))
    # 3. metrics
    estimate = cross_validate_iou(table, folds)
    metrics = {
        "format": "meta-ood meta metrics, version 2",
        **_quality_metrics(found, false, removed),
        "segments": len(false),
        "false": int(false.sum()),
        "removed": int(removed.sum()),
        "removed_false": int((removed & false).sum()),
        "lost_true": int((removed & ~false).sum()),
        "folds": folds,
        "number_of_folds": int(found.fold.max(initial=-1)) + 1,
        "classifier": classifier,
        "operating_point": operating_point,
        "differing_decisions": fitted.differing_decisions,
        "kept_without_classifier": int((~found.has_classifier).sum()),
        "folds_without_classifier": len(found.fit_failures),
        "fit_failures": "; ".join(sorted(set(found.fit_failures.values()))),
        "regression": regression_quality(estimate, np.asarray(table.iou, np.float64)),
    }
    return CrossValidation(found.probability, removed, estimate, fitted, metrics)


def _quality_metrics(found: OutOfFold, false: Flags, removed: Flags) -> dict[str, Any]:
    """Return the metrics of the segments for whose folds a classifier was fitted."""
    rows = found.has_classifier
    probability, target = found.probability[rows], false[rows]
    curve = quality.calibration(probability, target)
    values = {
        "auroc": quality.auroc(probability, target),
        "auprc": quality.auprc(probability, target),
        "accuracy": float((removed[rows] == target).mean()) if rows.any() else math.nan,
        "brier": quality.brier(probability, target),
        "calibration_error": curve.error,
    }
    points = {name: getattr(curve, name).round(9).tolist() for name in ("count", "predicted", "observed")}
    return {name: quality.rounded(value, 9) for name, value in values.items()} | {"calibration": points}


def operating_points(
    table: SegmentTable, found: OutOfFold, folds: str, classifier: str, options: Mapping[str, Any], max_lost: float
) -> Floats:
    """Return ``(S,)``: for each segment the operating point chosen without its fold.

    For folds by scene or image, the point is chosen on a cross validation of the training part, in at most five parts
    of whole scenes or images; it is 1, so that the fold is kept, where that is not possible. Where segments are left
    out one by one, it is chosen on the out-of-fold probabilities of all others.
    """
    false = false_positives(table)
    points = np.ones(len(false))
    features = np.asarray(table.features, np.float64)
    for out in masks(found.fold):
        rest = ~out
        probability, complete = found.probability[rest], True
        if folds not in LEAVE_ONE_OUT:
            # five parts: more would cost fits and change the point little
            inner = np.unique(found.fold[rest], return_inverse=True)[1] % 5
            part = predict_folds(features[rest], false[rest], inner, classifier, **options)
            probability, complete = part.probability, not part.fit_failures
        if complete:
            points[out] = quality.operating_point_for_max_lost(probability, false[rest], max_lost)
    return points


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
    """Return each segment's estimate without it, from one fit: its residual is that of the fit over 1 - leverage.

    The scaling is that of all segments: without one of them it changes by the order of 1 / S.
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
