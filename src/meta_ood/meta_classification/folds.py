"""Cross validation: folds by scene, by image or by segment, and the out-of-fold judgements."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit

from meta_ood.data.registry import lookup
from meta_ood.meta_classification.classifier import fit_failure
from meta_ood.meta_classification.features import Scaling, false_positives
from meta_ood.meta_classification.leave_one_out import leave_one_out
from meta_ood.meta_classification.models import fitter, solver, with_ones
from meta_ood.metrics import Flags, Floats, Integers
from meta_ood.segments import SegmentTable

FOLDS: dict[str, str] = {
    "scene": "leave one scene out: no frame of the same video on both sides",
    "image": "leave one image out",
    "leave_one_out": "leave one segment out, the scaling fitted without it",
    "published": "leave one segment out, the scaling fitted on all segments",
}
"""Name in params.yaml -> what is left out."""

LEAVE_ONE_OUT = ("leave_one_out", "published")  # the schemes whose folds are single segments


@dataclass(frozen=True)
class OutOfFold:
    """Judgements of segments by classifiers that were fitted without their folds."""

    log_odds: Floats  # (S,) of being a false positive; -inf where no classifier was fitted
    fold: Integers  # (S,) numbers of the folds
    fit_failures: dict[int, str]  # fold number -> why no classifier was fitted for it

    @property
    def probability(self) -> Floats:
        """``(S,)`` probabilities of being a false positive; 0 where no classifier was fitted."""
        probability: Floats = expit(self.log_odds)
        return probability

    @property
    def has_classifier(self) -> Flags:
        """``(S,)``: for which segments' folds a classifier was fitted."""
        return ~np.isin(self.fold, list(self.fit_failures))

    def rows(self, rows: Integers) -> "OutOfFold":
        """Return the judgements of some segments."""
        fold = self.fold[rows]
        failures = {number: text for number, text in self.fit_failures.items() if number in fold}
        return OutOfFold(self.log_odds[rows], fold, failures)


def assign_folds(table: SegmentTable, folds: str) -> Integers:
    """Return ``(S,)`` fold numbers from 0, by first appearance; ValueError if `folds` is not a name in ``FOLDS``."""
    lookup("folds", FOLDS, folds)
    image = np.asarray(table.image, np.int64)
    scene = np.unique(table.scenes, return_inverse=True)[1][image]
    groups = {"image": image, "scene": scene}.get(folds, np.arange(len(image)))
    _, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse]


def masks(fold: Integers) -> Iterator[Flags]:
    """Yield ``(S,)`` for each fold in turn: which segments are in it."""
    return (fold == number for number in range(int(fold.max(initial=-1)) + 1))


def out_of_fold(
    table: SegmentTable, folds: str = "scene", classifier: str = "logistic_regression", **options: Any
) -> OutOfFold:
    """Return each segment's probability by a classifier that was fitted without its fold.

    If a training part holds only one class, or nothing (a single scene), no classifier is fitted and all segments of
    the fold are kept: probability 0, with the reason.

    `folds` and `classifier` are names in ``FOLDS`` and ``CLASSIFIERS``, `options` keywords of the classifier;
    ValueError if unknown.
    """
    fold = assign_folds(table, folds)
    features = np.asarray(table.features, np.float64)
    false = false_positives(table)
    if folds == "published" and classifier != "logistic_regression":
        raise ValueError(f"folds 'published' are for logistic_regression, not {classifier!r}")
    if folds in LEAVE_ONE_OUT and classifier == "logistic_regression":
        return leave_single_segments_out(features, false, folds == "published", **options)
    return predict_folds(features, false, fold, classifier, **options)


def predict_folds(features: Floats, false: Flags, fold: Integers, classifier: str, **options: Any) -> OutOfFold:
    """Do what :func:`out_of_fold` does with plain arrays and folds numbered from 0."""
    fit_model = fitter(classifier, **options)
    log_odds = np.full(len(fold), -np.inf)
    failures: dict[int, str] = {}
    for number, out in enumerate(masks(fold)):
        if failure := fit_failure(false[~out]):
            failures[number] = failure
        else:
            scaling = Scaling.of(features[~out])
            model = fit_model(scaling(features[~out]), false[~out])
            log_odds[out] = model.log_odds(scaling(features[out]))
    return OutOfFold(log_odds, fold, failures)


def leave_single_segments_out(features: Floats, false: Flags, published: bool, *, penalty: float = 1.0) -> OutOfFold:
    """Leave one segment out at a time, by corrections of one fit where that is possible."""
    segments = np.arange(len(false))
    # 1. segments without which only one class remains
    lone = (false.sum() - false == 0) | ((~false).sum() - ~false == 0)
    failures = {int(i): fit_failure(np.delete(false, i)) for i in segments[lone]}
    # 2. corrections of the fit on all segments; they need both classes, and all values if the scaling changes
    log_odds = np.full(len(false), np.nan)
    scaling = Scaling.published(features) if published else Scaling.of(features)
    if not lone.all() and (published or np.isfinite(features).all()):
        log_odds = leave_one_out(scaling(features), false, penalty=penalty, rescale=not published)
    # 3. a fit for each of the others; it begins at the result of the one before, which is near
    model = solver(penalty, warm_start=True)
    for out in segments[np.isnan(log_odds) & ~lone]:
        rest = segments != out
        if not published:
            scaling = Scaling.of(features[rest])
        design = with_ones(scaling(features))
        log_odds[out] = model.fit(design[rest], false[rest]).decision_function(design[[out]])[0]
    log_odds[lone] = -np.inf
    return OutOfFold(log_odds, segments, failures)
