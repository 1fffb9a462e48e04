"""Why: feature groups, contributions to a decision, coefficients, the order of entry."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from meta_ood.meta_classification import logistic, quality
from meta_ood.meta_classification.classifier import MetaClassifier, fit, why_not_fitted
from meta_ood.meta_classification.families import LinearModel, logistic_regression
from meta_ood.meta_classification.features import (
    Flags,
    Floats,
    Scaling,
    Segments,
    SomeFeatures,
    degenerate_columns,
    false_positives,
)
from meta_ood.meta_classification.folds import assign_folds, cross_validate

_PATH_SIZES = (1, 2, 3, 5, 8, 13, 21, 34, 55)

GROUPS: dict[str, str] = {
    "entropy": r"E(_.*)?",
    "margin": r"D(_.*)?",
    "variation ratio": r"V(_.*)?",
    "size": r"S(_.*)?",
    "position": r"mean_[xy]",
    "class shares": r"cprob\d+",
    "neighbours": r"ndist\d+",
}
"""Group of features -> pattern of the published names (METHOD.md G1)."""


def feature_groups(names: Sequence[str]) -> dict[str, list[int]]:
    """Return group -> columns; what fits no pattern is the group "other".

    Examples
    --------
    >>> feature_groups(["E_bd", "S", "mean_x", "E", "mine"])
    {'entropy': [0, 3], 'size': [1], 'position': [2], 'other': [4]}
    """
    found: dict[str, list[int]] = {}
    for group, pattern in GROUPS.items():
        columns = [i for i, name in enumerate(names) if re.fullmatch(pattern, name)]
        if columns:
            found[group] = columns
    taken = {i for columns in found.values() for i in columns}
    if rest := [i for i in range(len(names)) if i not in taken]:
        found["other"] = rest
    return found


def contributions(classifier: MetaClassifier, table: Segments) -> Floats:
    """Return what each feature adds to the log odds of being false, against its mean.

    For a linear model ``w_k x_k``: they and the bias add up to the log odds. For any other model
    the log odds less those with feature k at its training mean.

    Parameters
    ----------
    classifier
        A fitted classifier.
    table
        ``S`` segments.

    Returns
    -------
    ``(S, F) float64``; all 0 for a classifier that keeps everything.
    """
    scaled = classifier.scaling(np.asarray(table.features, np.float64))
    if classifier.keep_everything:
        return np.zeros_like(scaled)
    if isinstance(classifier.model, LinearModel):
        added: Floats = scaled * classifier.model.weights
        return added
    whole = classifier.model.log_odds(scaled)
    parts = np.zeros_like(scaled)
    for column in range(scaled.shape[1]):
        without = scaled.copy()
        without[:, column] = 0
        parts[:, column] = whole - classifier.model.log_odds(without)
    return parts


def reasons(
    contribution: Floats, values: Floats, names: Sequence[str], most: int = 3
) -> list[dict[str, Any]]:
    """Return the features that decide about one segment most, the strongest first.

    Parameters
    ----------
    contribution, values
        ``(F,)``: a row of :func:`contributions`, and of the table's features.
    names
        F names.
    most
        How many; features that add nothing are left out.

    Examples
    --------
    >>> reasons(np.array([0.1, -2.0]), np.array([7.0, 0.5]), ["S", "E"], most=1)
    [{'feature': 'E', 'value': 0.5, 'log_odds': -2.0, 'speaks_for': 'true'}]
    """
    order = np.argsort(-np.abs(contribution), kind="stable")[:most]
    return [
        {
            "feature": names[k],
            "value": round(float(values[k]), 6),
            "log_odds": round(float(contribution[k]), 4),
            "speaks_for": "false" if contribution[k] > 0 else "true",
        }
        for k in order
        if contribution[k]
    ]


def coefficient_intervals(
    table: Segments, samples: int = 100, seed: int = 0, penalty: float = 1.0, level: float = 0.95
) -> tuple[Floats, Floats]:
    """Return ``(F,)`` lower and upper ends of the weights' bootstrap intervals.

    Whole images are drawn, since segments of an image are alike; the scaling is that of all
    segments, so that the weights are comparable.

    Parameters
    ----------
    table
        Segments of both kinds.
    samples
        Bootstrap samples; those with one kind of segment only are drawn again.
    seed
        Of the draws.
    penalty, level
        Of the logistic regression; mass of the interval.
    """
    false = false_positives(table)
    features = np.asarray(table.features, np.float64)
    design = logistic.with_ones(Scaling.of(features)(features))
    start = logistic.newton(design, false, penalty=penalty)
    images = [np.flatnonzero(table.image == i) for i in np.unique(table.image)]
    generator = np.random.default_rng(seed)
    drawn: list[Floats] = []
    for _ in range(20 * samples):  # far more than enough unless one kind stands in one image
        if len(drawn) == samples:
            break
        rows = np.concatenate(
            [images[i] for i in generator.integers(len(images), size=len(images))]
        )
        if not why_not_fitted(false[rows]):
            weights = logistic.newton(
                design[rows], false[rows], penalty=penalty, start=start, tolerance=1e-6
            )
            drawn.append(weights[:-1])
    if not drawn:
        nothing = np.full(features.shape[1], np.nan)
        return nothing, nothing.copy()
    low, high = np.quantile(np.array(drawn), [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high


def entry_order(scaled: Floats, false: Flags) -> list[int]:
    """Return columns in the order in which they enter the LARS path (Efron et al., 2004).

    Parameters
    ----------
    scaled
        ``(S, F)`` scaled features.
    false
        ``(S,) bool``, both kinds.

    Returns
    -------
    The columns that enter; constant ones, and ones that others span, never do.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import lars_path

    target = false - false.mean()
    with warnings.catch_warnings():
        # with fewer segments than features the path ends early, and that is its answer
        warnings.simplefilter("ignore", ConvergenceWarning)
        _, active, _ = lars_path(scaled, target, method="lar", max_iter=scaled.shape[1])
    return [int(k) for k in active]


def path_quality(
    table: Segments, sizes: Sequence[int], folds: str = "scene", penalty: float = 1.0
) -> list[dict[str, Any]]:
    """Return the out-of-fold AUROC with the first 1, 2, … features of the path.

    The path is made anew in every fold, so that the choice of features, too, is out of fold.

    Parameters
    ----------
    table
        Segments with features, adjusted IoU, images and scenes.
    sizes
        Numbers of features.
    folds
        ``scene`` or ``image``.
    penalty
        Of the logistic regression on the features chosen.
    """
    fold = assign_folds(table, folds)
    features = np.asarray(table.features, np.float64)
    false = false_positives(table)
    probability = np.zeros((len(sizes), len(fold)))
    for number in range(int(fold.max(initial=-1)) + 1):
        out = fold == number
        if why_not_fitted(false[~out]):
            continue
        scaling = Scaling.of(features[~out])
        train, test = scaling(features[~out]), scaling(features[out])
        order = entry_order(train, false[~out])
        for row, size in enumerate(sizes):
            chosen = order[:size]
            model = logistic_regression(train[:, chosen], false[~out], penalty=penalty)
            probability[row, out] = model.log_odds(test[:, chosen])
    return [
        {"features": size, "auroc": _auroc(judged, false)}
        for size, judged in zip(sizes, probability, strict=True)
    ]


def ablations(
    table: Segments,
    folds: str = "scene",
    classifier: str = "logistic_regression",
    **options: Any,
) -> list[dict[str, Any]]:
    """Return, for each group of features, the out-of-fold AUROC without it and of it alone."""
    false = false_positives(table)
    rows = []
    for group, columns in feature_groups(table.feature_names).items():
        rest = [k for k in range(len(table.feature_names)) if k not in columns]
        row: dict[str, Any] = {"group": group, "features": len(columns)}
        for key, kept in (("auroc_without", rest), ("auroc_alone", columns)):
            part = SomeFeatures.of(table, kept)
            row[key] = _auroc(cross_validate(part, folds, classifier, **options), false)
        rows.append(row)
    return rows


def explain(table: Segments, folds: str, samples: int, seed: int) -> dict[str, Any]:
    """Return what the stage `meta` writes into ``explanation.json``: plain values.

    ``degenerate``, ``coefficients`` (weight with bootstrap interval, strongest first), ``path``
    (order of entry, AUROC by number of features) and ``groups`` (ablations), all of the logistic
    regression. Where segments are left out one by one, path and groups leave images out. Only
    ``degenerate`` if all segments are of one kind.

    Parameters
    ----------
    table
        Segments with features, adjusted IoU, images and scenes.
    folds
        A name in ``FOLDS``.
    samples
        Bootstrap samples; 0 leaves the intervals out.
    seed
        Of the bootstrap.
    """
    names = table.feature_names
    features = np.asarray(table.features, np.float64)
    false = false_positives(table)
    found: dict[str, Any] = {"degenerate": degenerate_columns(features, names)}
    if why_not_fitted(false):
        return found
    folds = "image" if folds in ("leave_one_out", "published") else folds
    fitted = fit(table)
    coefficients = [
        {"feature": n, "weight": round(float(w), 6)}
        for n, w in zip(names, fitted.weights, strict=True)
    ]
    if samples:
        low, high = coefficient_intervals(table, samples, seed)
        for row, ends in zip(coefficients, zip(low, high, strict=True), strict=True):
            row["low"], row["high"] = (None if np.isnan(e) else round(float(e), 6) for e in ends)
    order = entry_order(fitted.scaling(features), false)
    sizes = sorted({k for k in _PATH_SIZES if k < len(order)} | {len(order)})
    found["coefficients"] = sorted(coefficients, key=lambda row: -abs(row["weight"]))
    found["path"] = {
        "order": [names[k] for k in order],
        "quality": path_quality(table, sizes, folds),
    }
    found["groups"] = ablations(table, folds)
    return found


def _auroc(probability: Floats, false: Flags) -> float | None:
    value = quality.auroc(probability, false)
    return None if np.isnan(value) else round(value, 6)
