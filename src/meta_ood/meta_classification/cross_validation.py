"""Cross validation of a table of segments: decisions, metrics, the fitted classifier, and estimates of the IoU."""

import math
from collections.abc import Mapping, Sequence
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
    """Decisions on the segments of a table, and the classifier for new data.

    Segments that the classifier was fitted on are judged by others, which were fitted without the segment's fold.
    """

    found: OutOfFold  # log odds and probabilities of being a false positive
    removed: Flags  # (S,) whether it is above the operating point
    estimated_iou: Floats  # (S,) NaN where there is no other fold
    classifier: MetaClassifier  # fitted on all training segments, for new data
    # contents of metrics.json; quality is that of the segments for whose folds a classifier was fitted
    metrics: dict[str, Any]

    @property
    def probability(self) -> Floats:
        """``(S,)`` probabilities of being a false positive."""
        return self.found.probability

    def severity(self, table: SegmentTable) -> Floats:
        """Return ``(S,)`` how surely each segment is an object, see :meth:`MetaClassifier.severity`."""
        return self.classifier.severity(table, self.found.log_odds)


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
    differing = int(((fitted.probability(table) > operating_point) != removed).sum())
    fitted = replace(fitted, differing_decisions=differing)
    # 3. metrics
    estimate = cross_validate_iou(table, folds)
    metrics = _metrics(table, found, removed, estimate, differing)
    metrics |= {"folds": folds, "classifier": classifier, "operating_point": operating_point}
    return CrossValidation(found, removed, estimate, fitted, metrics)


def pool(tables: Mapping[str, SegmentTable], train_on: Sequence[str]) -> SegmentTable:
    """Return the tables of the sets in `train_on` as one; without any, a table without segments."""
    nothing = next(iter(tables.values())).without_segments()
    return SegmentTable.concatenate([nothing, *(tables[name] for name in train_on)])


def judge_sets(
    tables: Mapping[str, SegmentTable], train_on: Sequence[str], **settings: Any
) -> dict[str, CrossValidation]:
    """Judge several sets of segments with one meta classifier, fitted on those in `train_on` together.

    A segment of a training set is judged out of fold; a scene that two sets share is one fold. The other sets are
    judged by the classifier fitted on all of `train_on`. Without any training set no classifier is fitted.

    `settings` are those of :func:`cross_validate`. All results contain the classifier that was fitted on all.
    """
    pooled = pool(tables, train_on)
    whole = cross_validate(pooled, **settings)
    ends = np.cumsum([len(tables[name].image) for name in train_on])
    rows_of = dict(zip(train_on, np.split(np.arange(len(pooled.image)), ends)[:-1], strict=True))
    results = {}
    for name, table in tables.items():
        if name in train_on:
            rows = rows_of[name]
            found, removed, estimate = whole.found.rows(rows), whole.removed[rows], whole.estimated_iou[rows]
        else:
            found = OutOfFold(whole.classifier.log_odds(table), np.zeros(len(table.image), np.int64), {})
            removed = found.probability > whole.classifier.operating_point
            estimate = estimate_iou(pooled, table)
        one = replace(whole, found=found, removed=removed, estimated_iou=estimate)
        differing = (whole.classifier.probability(table) > whole.classifier.operating_point) != removed
        metrics = whole.metrics | _metrics(table, found, removed, estimate, int(differing.sum()))
        results[name] = replace(one, metrics=metrics)
    return results


def at_threshold(one: CrossValidation, table: SegmentTable, threshold: float) -> CrossValidation:
    """Return the results of a table where segments are kept whose severity is at least `threshold`."""
    removed = one.severity(table) < threshold
    # classifier.json alone, without the threshold of the detector, decides alike, unless it judges nothing
    point = one.classifier.operating_point if one.classifier.fit_failure else math.exp(-threshold)
    differing = int(((one.classifier.severity(table) < threshold) != removed).sum())
    classifier = replace(one.classifier, operating_point=point)
    metrics = one.metrics | _metrics(table, one.found, removed, one.estimated_iou, differing)
    metrics["operating_point"] = point
    return replace(one, removed=removed, classifier=classifier, metrics=metrics)


def _metrics(table: SegmentTable, found: OutOfFold, removed: Flags, estimate: Floats, differing: int) -> dict[str, Any]:
    """Return what metrics.json says of the decisions on a table."""
    false = false_positives(table)
    return {
        "format": "meta-ood meta metrics, version 2",
        **_quality_metrics(found, false, removed),
        "segments": len(false),
        "false": int(false.sum()),
        "removed": int(removed.sum()),
        "removed_false": int((removed & false).sum()),
        "lost_true": int((removed & ~false).sum()),
        "number_of_folds": len(np.unique(found.fold)),
        "differing_decisions": differing,
        "kept_without_classifier": int((~found.has_classifier).sum()),
        "folds_without_classifier": len(found.fit_failures),
        "fit_failures": "; ".join(sorted(set(found.fit_failures.values()))),
        "regression": regression_quality(estimate, np.asarray(table.iou, np.float64)),
    }


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


def estimate_iou(train: SegmentTable, table: SegmentTable, penalty: float = 1.0) -> Floats:
    """Return ``(S,)`` estimates in [0, 1] of the IoU of a table's segments, by ridge regression on those of another."""
    if not len(train.image) or not len(table.image):
        return np.full(len(table.image), np.nan)
    scaling = Scaling.of(train.features)
    model = Ridge(alpha=penalty).fit(scaling(train.features), train.iou)
    return np.asarray(model.predict(scaling(table.features))).clip(0, 1)


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
