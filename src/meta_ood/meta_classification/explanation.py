"""Explanations of decisions: contributions of features, coefficients, the LARS path, groups of features."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from meta_ood.meta_classification import models, quality
from meta_ood.meta_classification.classifier import MetaClassifier, fit, fit_failure
from meta_ood.meta_classification.features import Scaling, degenerate_columns, describe_feature, false_positives
from meta_ood.meta_classification.folds import LEAVE_ONE_OUT, assign_folds, masks, predict_folds
from meta_ood.metrics import Flags, Floats, Integers
from meta_ood.segments import SegmentTable
from meta_ood.segments.features import OF_SCORE

GROUPS: dict[str, str] = {
    "entropy": r"E(_.*)?",
    "margin": r"D(_.*)?",
    "variation ratio": r"V(_.*)?",
    "size": r"S(_.*)?",
    "position": r"mean_[xy]",
    "class shares": r"cprob\d+",
    "neighbours": r"ndist\d+",
    "scores": OF_SCORE.pattern,
}
"""Group of features -> pattern of the names (docs/method.md, section 4)."""


def feature_groups(names: Sequence[str]) -> dict[str, list[int]]:
    """Return group -> columns; what fits no pattern is the group "other"."""
    groups = [next((g for g, pattern in GROUPS.items() if re.fullmatch(pattern, name)), "other") for name in names]
    present = (group for group in (*GROUPS, "other") if group in groups)
    return {group: [column for column, of in enumerate(groups) if of == group] for group in present}


def contributions(classifier: MetaClassifier, table: SegmentTable) -> Floats:
    """Return ``(S, F)``: :func:`contributions_of` all segments of a table."""
    return contributions_of(classifier, np.asarray(table.features, np.float64))


def contributions_of(classifier: MetaClassifier, features: Floats) -> Floats:
    """Return ``(S, F)``: what each of the ``(S, F)`` features adds to the log odds of being false, against its mean.

    For a linear model ``w_k x_k``: they and the bias add up to the log odds. For any other model the log odds less
    those with feature k at its training mean. All 0 if no model was fitted.
    """
    scaled = classifier.scaling(features)
    if classifier.fit_failure:
        return np.zeros_like(scaled)
    if isinstance(classifier.model, models.LinearModel):
        return scaled * classifier.model.weights
    whole, columns = classifier.model.log_odds(scaled), np.arange(scaled.shape[1])
    parts = [whole - classifier.model.log_odds(np.where(columns == k, 0.0, scaled)) for k in columns]
    return np.stack(parts, axis=1)


def reasons(
    contribution: Floats, values: Floats, names: Sequence[str], class_names: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Return the (at most three) features that decide most about one segment, the strongest first.

    `contribution` and `values` are ``(F,)``, a row of :func:`contributions` and of the table's features; features that
    add nothing are left out.
    """
    order = np.argsort(-np.abs(contribution), kind="stable")[:3]
    return [
        {
            "feature": names[k],
            "description": describe_feature(names[k], class_names),
            "value": round(float(values[k]), 6),
            "log_odds": round(float(contribution[k]), 4),
        }
        for k in order
        if contribution[k]
    ]


def coefficient_intervals(table: SegmentTable, samples: int, seed: int = 0) -> tuple[Floats, Floats]:
    """Return ``(F,)`` lower and upper ends of the weights' 95 % bootstrap intervals; NaN if undefined.

    Whole images are drawn, since segments of an image are alike; the scaling is that of all segments, so that the
    weights are comparable. Samples in which all segments are of one class are drawn again.
    """
    false = false_positives(table)
    features = np.asarray(table.features, np.float64)
    design = models.with_ones(Scaling.of(features)(features))
    # each fit begins at the result of the one before, which is near
    model = models.solver(1.0, warm_start=True, tol=1e-9)
    images = [np.flatnonzero(table.image == i) for i in np.unique(table.image)]
    generator = np.random.default_rng(seed)
    drawn: list[Floats] = []
    for _ in range(20 * samples):  # enough unless one of the classes is found in one image only
        if len(drawn) == samples:
            break
        chosen = generator.integers(len(images), size=len(images))
        rows = np.concatenate([images[i] for i in chosen])
        if not fit_failure(false[rows]):
            drawn.append(model.fit(design[rows], false[rows]).coef_[0, :-1].copy())
    drawn = drawn or [np.full(features.shape[1], np.nan)]
    low, high = np.quantile(np.array(drawn), [0.025, 0.975], axis=0)
    return low, high


def lars_path(scaled: Floats, target: Floats) -> tuple[list[int], Floats]:
    """Return the path of least angle regression (Efron et al., Annals of Statistics 32, 2004).

    The columns of ``(S, F)`` scaled features in the order in which they enter (constant ones, and ones that earlier
    ones span, never do), and ``(E, F)`` coefficients: row e where the next column is about to enter. At each step all
    columns that have entered are equally correlated with the residual. (The ``lars_path(method="lar")`` of scikit-learn
    loses that property where a coefficient changes its sign.)
    """
    gram, correlation = scaled.T @ scaled, scaled.T @ (target - target.mean())
    first = np.abs(correlation).max(initial=0.0)
    waiting = [k for k in range(len(gram)) if gram[k, k] > 0]
    order: list[int] = []
    path = [np.zeros(len(gram))]
    while waiting:
        # 1. the column most correlated with the residual enters, unless the others span it: then these go on
        entering = max(waiting, key=lambda k: abs(correlation[k]))
        waiting.remove(entering)
        if abs(correlation[entering]) <= 1e-10 * first:
            break
        spanned = gram[order, entering] @ np.linalg.solve(gram[np.ix_(order, order)], gram[order, entering])
        if gram[entering, entering] - spanned > 1e-9 * gram[entering, entering]:
            order.append(entering)
            path.append(path[-1].copy())
        # 2. the direction in which the correlations of all of them fall equally
        signs = np.sign(correlation[order])
        direction = np.linalg.solve(gram[np.ix_(order, order)], signs)
        change = gram[:, order] @ direction  # ± 1 for the columns in `order`
        # 3. a step as long as none of the others is more correlated
        largest = length = np.abs(correlation[order]).max()
        for k in waiting:
            for sign in (1, -1):
                if (closing := 1 - sign * change[k]) > 1e-12:
                    length = min(length, max(largest - sign * correlation[k], 0.0) / closing)
        correlation = correlation - length * change
        path[-1][order] += length * direction
    return order, np.array(path[1:]).reshape(len(order), len(gram))


def path_quality(features: Floats, false: Flags, fold: Integers, sizes: Sequence[int]) -> list[dict[str, Any]]:
    """Return the out-of-fold AUROC with the first features of the LARS path, for each size.

    The path is computed anew in every fold, so that the choice of features, too, is out of fold.
    """
    log_odds = np.zeros((len(sizes), len(fold)))
    for out in masks(fold):
        if fit_failure(false[~out]):
            continue
        scaling = Scaling.of(features[~out])
        train, test = scaling(features[~out]), scaling(features[out])
        order, _ = lars_path(train, false[~out].astype(np.float64))
        for row, size in enumerate(sizes):
            chosen = order[:size]
            model = models.logistic_regression(train[:, chosen], false[~out])
            log_odds[row, out] = model.log_odds(test[:, chosen])
    aurocs = [quality.rounded(quality.auroc(values, false), 6) for values in log_odds]
    return [{"features": size, "auroc": auroc} for size, auroc in zip(sizes, aurocs, strict=True)]


def ablations(features: Floats, names: Sequence[str], false: Flags, fold: Integers) -> list[dict[str, Any]]:
    """Return, for each group of features, the out-of-fold AUROC without it and of it alone."""
    rows = []
    for group, columns in feature_groups(names).items():
        row: dict[str, Any] = {"group": group, "features": len(columns)}
        without = np.delete(features, columns, axis=1)
        for key, kept in (("auroc_without", without), ("auroc_alone", features[:, columns])):
            found = predict_folds(kept, false, fold, "logistic_regression")
            row[key] = quality.rounded(quality.auroc(found.probability, false), 6)
        rows.append(row)
    return rows


def explain(
    table: SegmentTable, folds: str, samples: int, seed: int, class_names: Sequence[str] = ()
) -> dict[str, Any]:
    """Return the contents of ``explanation.json``: plain values about the logistic regression.

    ``degenerate`` columns, ``coefficients`` (strongest first, with intervals unless `samples` is 0), ``path`` (order of
    entry, AUROC by number of features) and ``groups`` (ablations); only the first if all segments are of one class.
    Where segments are left out one by one, path and groups leave images out.
    """
    names = table.feature_names
    features = np.asarray(table.features, np.float64)
    false = false_positives(table)
    found: dict[str, Any] = {"degenerate": degenerate_columns(features, names)}
    if fit_failure(false):
        return found
    # 1. weights and their intervals
    fitted = fit(table)
    coefficients = [
        {"feature": n, "description": describe_feature(n, class_names), "weight": round(w, 6)}
        for n, w in zip(names, fitted.weights.tolist(), strict=True)
    ]
    if samples:
        ends = zip(*coefficient_intervals(table, samples, seed), strict=True)
        for row, (low, high) in zip(coefficients, ends, strict=True):
            row["low"], row["high"] = quality.rounded(low, 6), quality.rounded(high, 6)
    found["coefficients"] = sorted(coefficients, key=lambda row: -abs(row["weight"]))
    # 2. the path and the groups, out of fold
    fold = assign_folds(table, "image" if folds in LEAVE_ONE_OUT else folds)
    order, _ = lars_path(fitted.scaling(features), false.astype(np.float64))
    # numbers of features for which the AUROC is given: dense where it rises
    sizes = [k for k in (1, 2, 3, 5, 8, 13, 21, 34, 55) if k < len(order)] + [len(order)]
    found["path"] = {"order": [names[k] for k in order], "quality": path_quality(features, false, fold, sizes)}
    found["groups"] = ablations(features, names, false, fold)
    return found
