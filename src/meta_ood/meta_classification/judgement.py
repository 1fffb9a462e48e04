"""What the stage `meta` says about a table: every segment judged out of fold, and how well."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from meta_ood.meta_classification import quality
from meta_ood.meta_classification.classifier import MetaClassifier, fit
from meta_ood.meta_classification.features import Flags, Floats, Segments, false_positives
from meta_ood.meta_classification.folds import assign_folds, out_of_fold


@dataclass(frozen=True)
class Judgement:
    """Out-of-fold verdicts on the segments of a table, and the classifier fitted on all of them.

    Attributes
    ----------
    probability
        ``(S,)`` out-of-fold probability of being a false positive.
    removed
        ``(S,) bool``: the probability is above the operating point.
    classifier
        Fitted on all segments: for new data.
    metrics
        Plain values; None where a figure is not defined.
    """

    probability: Floats
    removed: Flags
    classifier: MetaClassifier
    metrics: dict[str, Any]


def judge(
    table: Segments,
    *,
    classifier: str = "logistic_regression",
    options: Mapping[str, Any] | None = None,
    folds: str = "scene",
    operating_point: float = 0.5,
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
        Probability in [0, 1] above which a segment is removed.

    Raises
    ------
    ValueError
        Unknown classifier, option or folds.
    """
    options = options or {}
    judged = out_of_fold(table, folds, classifier, **options)
    false = false_positives(table)
    removed = judged.probability > operating_point
    reasons = sorted(set(judged.keep_everything.values()))
    figures = {
        "auroc": quality.auroc(judged.probability, false),
        "auprc": quality.auprc(judged.probability, false),
        "accuracy": quality.accuracy(judged.probability, false, operating_point),
        "brier": quality.brier(judged.probability, false),
    }
    metrics: dict[str, Any] = {
        name: None if math.isnan(value) else round(value, 9) for name, value in figures.items()
    }
    metrics |= {
        "segments": len(false),
        "false": int(false.sum()),
        "removed": int(removed.sum()),
        "removed_false": int((removed & false).sum()),
        "lost_true": int((removed & ~false).sum()),
        "folds": folds,
        "number_of_folds": int(assign_folds(table, folds).max(initial=-1)) + 1,
        "classifier": classifier,
        "operating_point": operating_point,
        "folds_that_keep_everything": len(judged.keep_everything),
        "keep_everything": "; ".join(reasons),
    }
    fitted = fit(table, classifier, operating_point=operating_point, **options)
    return Judgement(judged.probability, removed, fitted, metrics)
