"""The kinds of meta classifiers: how each is fitted, and its log odds on scaled features.

Estimators are scikit-learn's. A linear one is reduced to its weights and bias, which JSON can hold under the features'
names; the others stay estimators, see ``classifier_file``.

scikit-learn, which takes a second to import, is imported where something is fitted: to apply a linear classifier needs
NumPy alone.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from scipy.special import logit

from meta_ood.data.registry import lookup
from meta_ood.metrics import Flags, Floats


@dataclass(frozen=True)
class LinearModel:
    """Log odds ``= x w + b`` with ``(F,)`` weights and a bias."""

    weights: Floats
    bias: float

    def log_odds(self, scaled: Floats) -> Floats:
        """Return ``(S,)`` log odds of being a false positive from ``(S, F)`` scaled features."""
        odds: Floats = scaled @ self.weights + self.bias
        return odds


@dataclass(frozen=True)
class EstimatorModel:
    """Log odds of a fitted estimator of scikit-learn."""

    estimator: Any

    def log_odds(self, scaled: Floats) -> Floats:
        """Return ``(S,)`` log odds of being a false positive from ``(S, F)`` scaled features."""
        if len(scaled) == 0:  # scikit-learn refuses tables without rows
            return np.zeros(0)
        if hasattr(self.estimator, "decision_function"):
            odds: Floats = self.estimator.decision_function(scaled)
        else:
            # The small network has only probabilities. The nearer to 0 or 1 they are, the less float64 can tell them
            # apart, and exactly 1 would be an infinite contribution.
            odds = logit(np.clip(self.estimator.predict_proba(scaled)[:, 1], 1e-15, 1 - 1e-15))
        return odds


Model = LinearModel | EstimatorModel


def with_ones(scaled: Floats) -> Floats:
    """Append a column of ones, the bias feature: ``(S, F)`` -> ``(S, F + 1)``."""
    return np.hstack([scaled, np.ones((len(scaled), 1))])


def solver(penalty: float, **options: Any) -> Any:
    """Return the unfitted ``LogisticRegression`` of the published classifier, for :func:`with_ones`.

    It minimises ``penalty / 2 |w|^2 + sum log(1 + exp(-s (x w)))`` with s = +1 for a false positive, -1 otherwise, and
    w including the bias. The published code's liblinear minimises the same function but stops at a tolerance of 1e-4.
    """
    from sklearn.linear_model import LogisticRegression

    settings = {"solver": "newton-cholesky", "tol": 1e-14, "max_iter": 200} | options
    return LogisticRegression(C=_inverse(penalty), fit_intercept=False, **settings)


def _inverse(penalty: float) -> float:
    """Return scikit-learn's C; ValueError unless the penalty makes the minimum unique and finite."""
    if not penalty > 0:
        raise ValueError(f"penalty is {penalty}; expected a number above 0")
    return 1 / penalty


def logistic_regression(scaled: Floats, false: Flags, *, penalty: float = 1.0) -> LinearModel:
    """Fit the published classifier: L2, intercept penalised, C = 1 / penalty."""
    weights = solver(penalty).fit(with_ones(scaled), false).coef_[0]
    return LinearModel(weights[:-1], float(weights[-1]))


def sparse_logistic_regression(scaled: Floats, false: Flags, *, penalty: float = 1.0) -> LinearModel:
    """Fit a logistic regression with an L1 penalty on all weights but the bias."""
    from sklearn.linear_model import LogisticRegression

    # liblinear penalises the bias too, divided by `intercept_scaling`: as good as not at all
    settings = {"solver": "liblinear", "l1_ratio": 1, "intercept_scaling": 1e4, "tol": 1e-8, "max_iter": 2000}
    estimator = LogisticRegression(C=_inverse(penalty), random_state=0, **settings)
    _fit_quietly(estimator, scaled, false)  # the tolerance is near what float64 allows: the weights are good
    return LinearModel(estimator.coef_[0], float(estimator.intercept_[0]))


def gradient_boosted_trees(
    scaled: Floats,
    false: Flags,
    *,
    trees: int = 60,
    leaves: int = 7,
    learning_rate: float = 0.1,
    least_segments: int = 10,
    penalty: float = 1.0,
) -> EstimatorModel:
    """Fit histogram gradient boosting with `least_segments` in each leaf."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    settings = {"max_iter": trees, "max_leaf_nodes": leaves, "learning_rate": learning_rate}
    settings |= {"min_samples_leaf": least_segments, "l2_regularization": penalty}
    estimator = HistGradientBoostingClassifier(early_stopping=False, random_state=0, **settings)
    return EstimatorModel(estimator.fit(scaled, false))


def small_network(
    scaled: Floats, false: Flags, *, width: int = 8, penalty: float = 1.0, seed: int = 0
) -> EstimatorModel:
    """Fit one hidden layer of `width` tanh units (L-BFGS, L2 penalty)."""
    from sklearn.neural_network import MLPClassifier

    settings = {"activation": "tanh", "solver": "lbfgs", "alpha": penalty, "max_iter": 300}
    estimator = MLPClassifier((width,), random_state=seed, **settings)
    _fit_quietly(estimator, scaled, false)  # one stopped after max_iter is evaluated out of fold like any other
    return EstimatorModel(estimator)


def _fit_quietly(estimator: Any, scaled: Floats, false: Flags) -> None:
    """Fit without the warning that the tolerance was not reached."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        estimator.fit(scaled, false)


CLASSIFIERS: dict[str, Callable[..., Model]] = {
    "logistic_regression": logistic_regression,
    "sparse_logistic_regression": sparse_logistic_regression,
    "gradient_boosted_trees": gradient_boosted_trees,
    "small_network": small_network,
}
"""Name in params.yaml -> how to fit it on scaled features ``(S, F)`` and targets ``(S,)``."""


def fitter(classifier: str, **options: Any) -> Callable[[Floats, Flags], Model]:
    """Return the function that fits a classifier with these options; ValueError if unknown."""
    fit = lookup("classifier", CLASSIFIERS, classifier)
    known = fit.__kwdefaults__ or {}
    for name in options:
        if name not in known:
            raise ValueError(f"{classifier}: unknown option {name!r}; known: {', '.join(known)}")
    return partial(fit, **options)
