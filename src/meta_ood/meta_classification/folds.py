"""Cross validation: folds by scene, by image or by segment, and the out-of-fold probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit

from meta_ood.data.registry import lookup
from meta_ood.meta_classification.classifier import fit_rows, why_not_fitted
from meta_ood.meta_classification.features import (
    Flags,
    Floats,
    Integers,
    Scaling,
    Segments,
    false_positives,
)
from meta_ood.meta_classification.leave_one_out import leave_one_out

FOLDS: dict[str, str] = {
    "scene": "leave one scene out: no frame of the same video on both sides",
    "image": "leave one image out",
    "leave_one_out": "leave one segment out, the scaling fitted without it",
    "published": "leave one segment out, the scaling fitted on all segments (METHOD.md G5)",
}
"""Name in params.yaml -> what is left out."""


@dataclass(frozen=True)
class OutOfFold:
    """What each segment's own fold, trained without it, says about it.

    Attributes
    ----------
    probability
        ``(S,)`` probability of being a false positive; 0 where the fold keeps everything.
    fold
        ``(S,)`` number of the fold that each segment was left out with.
    keep_everything
        Fold number -> why nothing could be learnt for it.
    """

    probability: Floats
    fold: Integers
    keep_everything: dict[int, str]

    @property
    def judged(self) -> Flags:
        """``(S,)``: which segments' folds could learn something."""
        judged: Flags = ~np.isin(self.fold, list(self.keep_everything))
        return judged


def assign_folds(table: Segments, folds: str) -> Integers:
    """Return ``(S,)`` fold numbers, 0.. in the order in which their segments first appear.

    Parameters
    ----------
    table
        Segments with images and scenes.
    folds
        A name in ``FOLDS``.

    Raises
    ------
    ValueError
        If `folds` is unknown.
    """
    lookup("folds", FOLDS, folds)
    image = np.asarray(table.image, np.int64)
    if folds == "scene":
        numbers: dict[str, int] = {}
        of_image = np.array([numbers.setdefault(s, len(numbers)) for s in table.scenes], np.int64)
        groups = of_image[image]
    elif folds == "image":
        groups = image
    else:
        groups = np.arange(len(image))
    values, first = np.unique(groups, return_index=True)
    order = values[np.argsort(first)]
    renumbered = np.empty(int(values.max(initial=-1)) + 1, np.int64)
    renumbered[order] = np.arange(len(order))
    return renumbered[groups]


def cross_validate(
    table: Segments,
    folds: str = "scene",
    classifier: str = "logistic_regression",
    **options: Any,
) -> Floats:
    """Return ``(S,)`` out-of-fold probabilities in [0, 1] of being a false positive.

    See :func:`out_of_fold`, which also says what each fold could learn.
    """
    return out_of_fold(table, folds, classifier, **options).probability


def out_of_fold(
    table: Segments,
    folds: str = "scene",
    classifier: str = "logistic_regression",
    **options: Any,
) -> OutOfFold:
    """Judge each segment by a classifier that has not seen its fold.

    A fold whose training part has segments of one kind only, or none (a single scene), keeps
    everything: probability 0, with the reason.

    Parameters
    ----------
    table
        Segments with features, adjusted IoU, images and scenes.
    folds
        ``scene`` (default), ``image``, ``leave_one_out`` or ``published``: see ``FOLDS``.
    classifier
        A name in ``CLASSIFIERS``.
    options
        Keywords of the classifier.

    Raises
    ------
    ValueError
        Unknown folds, classifier or option.
    """
    fold = assign_folds(table, folds)
    features = np.asarray(table.features, np.float64)
    false = false_positives(table)
    if folds == "published" and classifier != "logistic_regression":
        raise ValueError(f"folds 'published' are for logistic_regression, not {classifier!r}")
    if folds == "published" or (folds, classifier) == ("leave_one_out", "logistic_regression"):
        return _each_segment(features, false, fold, rescale=folds != "published", **options)
    return over_folds(features, false, fold, classifier, **options)


def over_folds(
    features: Floats, false: Flags, fold: Integers, classifier: str, **options: Any
) -> OutOfFold:
    """Do what :func:`out_of_fold` says with plain arrays and folds numbered from 0."""
    probability = np.zeros(len(fold))
    reasons: dict[int, str] = {}
    for number in range(int(fold.max(initial=-1)) + 1):
        out = fold == number
        part = fit_rows((), features[~out], false[~out], classifier, **options)
        if part.keep_everything:
            reasons[number] = part.keep_everything
        else:
            probability[out] = part.probability_of(features[out])
    return OutOfFold(probability, fold, reasons)


def _each_segment(
    features: Floats, false: Flags, fold: Integers, *, rescale: bool, penalty: float = 1.0
) -> OutOfFold:
    """Leave one segment out at a time, by the fast way where it leads there."""
    probability = np.zeros(len(fold))
    left = false.sum() - false, (~false).sum() - ~false  # of each kind, without each segment
    lone = (left[0] == 0) | (left[1] == 0)
    reasons = {int(i): why_not_fitted(np.delete(false, i)) for i in np.flatnonzero(lone)}
    rows = np.flatnonzero(~lone)
    if len(rows) == 0:
        return OutOfFold(probability, fold, reasons)
    scaling = Scaling.of(features) if rescale else Scaling.published(features)
    if np.isfinite(features).all():
        judged = leave_one_out(scaling(features), false, rows, penalty=penalty, rescale=rescale)
        probability[rows] = expit(judged.log_odds)
        rows = rows[~judged.solved]
    for row in rows:
        rest = np.arange(len(fold)) != row
        # without this segment a feature is constant, or has gaps: a fit of its own
        part = fit_rows((), features[rest], false[rest], "logistic_regression", penalty=penalty)
        probability[row] = part.probability_of(features[row : row + 1])[0]
    return OutOfFold(probability, fold, reasons)
