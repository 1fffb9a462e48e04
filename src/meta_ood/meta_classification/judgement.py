"""What the stage `meta` says about a table: every segment judged out of fold, and how well."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from meta_ood.meta_classification import quality
from meta_ood.meta_classification.classifier import MetaClassifier, fit
from meta_ood.meta_classification.features import Flags, Floats, Segments, false_positives
from meta_ood.meta_classification.folds import OutOfFold, out_of_fold, over_folds
from meta_ood.meta_classification.regression import cross_validate_iou, regression_quality

_INNER_FOLDS = 5
"""Within a training part, out-of-fold probabilities come from at most so many fits."""


@dataclass(frozen=True)
class Judgement:
    """Out-of-fold verdicts on the segments of a table, and the classifier fitted on all of them.

    Attributes
    ----------
    probability
        ``(S,)`` out-of-fold probability of being a false positive.
    removed
        ``(S,) bool``: the probability is above the operating point.
    estimated_iou
        ``(S,)`` out-of-fold estimate of the adjusted IoU in [0, 1] (meta regression); NaN where
        nothing could be learnt.
    classifier
        Fitted on all segments: for new data.
    metrics
        Plain values; ``auroc``, ``auprc``, ``accuracy``, ``brier`` and the calibration are those
        of the segments whose folds could learn something, None where not defined.
    """

    probability: Floats
    removed: Flags
    estimated_iou: Floats
    classifier: MetaClassifier
    metrics: dict[str, Any]


def judge(
    table: Segments,
    *,
    classifier: str = "logistic_regression",
    options: Mapping[str, Any] | None = None,
    folds: str = "scene",
    operating_point: float = 0.5,
    max_lost: float | None = None,
) -> Judgement:
    """Cross-validate a meta classifier on a table and fit it on all of it.

    Parameters
    ----------
    table
        Segments with features, adjusted IoU, images and scenes.
    classifier, options
        A name in ``CLASSIFIERS`` and its keywords.
    folds
        A name in ``FOLDS``.
    operating_point
        Probability in [0, 1] above which a segment is removed, unless `max_lost` is given.
    max_lost
        Fraction of the true segments, in [0, 1], that may be lost: the operating point is then the
        lowest that keeps to it on the training folds, see :func:`chosen_points`.

    Raises
    ------
    ValueError
        Unknown classifier, option or folds.
    """
    options = dict(options or {})
    judged = out_of_fold(table, folds, classifier, **options)
    false = false_positives(table)
    points = np.full(len(false), operating_point)
    if max_lost is not None:
        operating_point = quality.point_that_loses_at_most(judged.probability, false, max_lost)
        points = chosen_points(table, judged, folds, classifier, options, max_lost)
    removed = judged.probability > points
    estimate = cross_validate_iou(table, folds)
    known = judged.judged
    said, true_answer = judged.probability[known], false[known]
    calibration = quality.calibration(said, true_answer)
    figures = {
        "auroc": quality.auroc(said, true_answer),
        "auprc": quality.auprc(said, true_answer),
        "accuracy": float((removed[known] == true_answer).mean()) if known.any() else math.nan,
        "brier": quality.brier(said, true_answer),
        "calibration_error": calibration.error,
    }
    metrics: dict[str, Any] = {name: _value(value) for name, value in figures.items()}
    metrics |= {
        "segments": len(false),
        "false": int(false.sum()),
        "removed": int(removed.sum()),
        "removed_false": int((removed & false).sum()),
        "lost_true": int((removed & ~false).sum()),
        "folds": folds,
        "number_of_folds": int(judged.fold.max(initial=-1)) + 1,
        "classifier": classifier,
        "operating_point": operating_point,
        "kept_unjudged": int((~known).sum()),
        "folds_that_keep_everything": len(judged.keep_everything),
        "keep_everything": "; ".join(sorted(set(judged.keep_everything.values()))),
        "calibration": {
            "count": calibration.count.tolist(),
            "said": [_value(v) for v in calibration.said],
            "seen": [_value(v) for v in calibration.seen],
        },
        "regression": regression_quality(estimate, np.asarray(table.iou, np.float64)),
    }
    fitted = fit(table, classifier, operating_point=operating_point, **options)
    return Judgement(judged.probability, removed, estimate, fitted, metrics)


def chosen_points(
    table: Segments,
    judged: OutOfFold,
    folds: str,
    classifier: str,
    options: Mapping[str, Any],
    max_lost: float,
) -> Floats:
    """Return ``(S,)``: for each segment the operating point chosen without its fold.

    For folds by scene or image, the training part of each fold is cross-validated in turn (in at
    most five parts of whole scenes or images) and the point is chosen on what that says. Where
    segments are left out one by one, the point for a segment is chosen on the out-of-fold
    probabilities of all others. A training part that cannot be cross-validated gives 1: its fold
    keeps everything.
    """
    false = false_positives(table)
    points = np.ones(len(false))
    features = np.asarray(table.features, np.float64)
    singly = folds in ("leave_one_out", "published")
    for number in range(int(judged.fold.max(initial=-1)) + 1):
        rest = judged.fold != number
        if singly:
            said, unknown = judged.probability[rest], False
        else:
            inner = np.unique(judged.fold[rest], return_inverse=True)[1] % _INNER_FOLDS
            part = over_folds(features[rest], false[rest], inner, classifier, **options)
            said, unknown = part.probability, bool(part.keep_everything)
        if not unknown:
            points[~rest] = quality.point_that_loses_at_most(said, false[rest], max_lost)
    return points


def _value(number: float) -> float | None:
    return None if math.isnan(number) else round(float(number), 9)
