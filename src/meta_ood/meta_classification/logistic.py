"""L2-regularised logistic regression with penalised intercept, solved exactly by Newton steps."""

from __future__ import annotations

import numpy as np
import scipy.linalg
from scipy.special import expit

from meta_ood.meta_classification.features import Flags, Floats

_MAX_STEPS = 100


def with_ones(scaled: Floats) -> Floats:
    """Append a column of ones: the bias feature. ``(S, F)`` -> ``(S, F + 1)``."""
    return np.hstack([scaled, np.ones((len(scaled), 1))])


def objective(design: Floats, false: Flags, weights: Floats, penalty: float = 1.0) -> float:
    """Return the value that :func:`newton` minimises.

    ``penalty / 2 |w|^2 + sum log(1 + exp(-s (x w)))`` with s = +1 for a false positive, -1
    otherwise.
    """
    z = design @ weights
    return float(np.logaddexp(0, np.where(false, -z, z)).sum() + penalty / 2 * weights @ weights)


def newton(
    design: Floats,
    false: Flags,
    *,
    penalty: float = 1.0,
    start: Floats | None = None,
    tolerance: float = 1e-10,
) -> Floats:
    """Minimise :func:`objective`: the published logistic regression (METHOD.md G5), exactly.

    liblinear with C = 1 / penalty minimises the same function, the bias feature and its weight
    included, but stops earlier.

    Parameters
    ----------
    design
        ``(S, D) float64`` scaled features, the column of ones among them.
    false
        ``(S,) bool``, True = false positive.
    penalty
        Weight of the L2 term, above 0; it makes the minimum unique and finite.
    start
        ``(D,)`` where to begin; zeros by default.
    tolerance
        Stop when the Newton decrement, a bound on the remaining step measured by the Hessian, is
        below.

    Returns
    -------
    ``(D,) float64`` weights.

    Raises
    ------
    ValueError
        If `penalty` is not positive.

    Examples
    --------
    >>> w = newton(np.array([[1.0], [-1.0]]), np.array([True, False]))
    >>> bool(abs(w[0] - 2 / (1 + np.exp(w[0]))) < 1e-9)
    True
    """
    if penalty <= 0:
        raise ValueError(f"penalty is {penalty}; expected a number above 0")
    weights: Floats = np.zeros(design.shape[1]) if start is None else start.copy()
    value = objective(design, false, weights, penalty)
    for _ in range(_MAX_STEPS):
        probability = expit(design @ weights)
        gradient = design.T @ (probability - false) + penalty * weights
        curvature = probability * (1 - probability)
        hessian = design.T @ (curvature[:, None] * design)
        hessian.flat[:: len(weights) + 1] += penalty
        step = scipy.linalg.solve(hessian, -gradient, assume_a="pos")
        slope = float(gradient @ step)
        if -slope < tolerance**2:
            weights += step
            break
        length = 1.0
        while (
            trial := objective(design, false, weights + length * step, penalty)
        ) > value + 1e-4 * length * slope + 1e-13 * abs(value) and length > 1e-10:
            length /= 2
        weights, value = weights + length * step, trial
    return weights


def lasso(design: Floats, false: Flags, *, penalty: float = 1.0, tolerance: float = 1e-9) -> Floats:
    """Minimise the logistic loss plus ``penalty |w|_1``, the last weight (the bias) left free.

    Newton steps on the loss; each quadratic model with its L1 term is solved by coordinate
    descent (Friedman, Hastie and Tibshirani, Journal of Statistical Software 33, 2010), and a
    step is halved until the objective falls.

    Parameters
    ----------
    design
        ``(S, D) float64``, the column of ones last.
    false
        ``(S,) bool``, both kinds.
    penalty
        Weight of the L1 term, above 0.
    tolerance
        Stop when no weight moves more.

    Returns
    -------
    ``(D,) float64`` weights, many exactly 0.

    Raises
    ------
    ValueError
        If `penalty` is not positive.

    Examples
    --------
    >>> x = np.array([[2.0, 0.1, 1.0], [-2.0, 0.1, 1.0], [1.0, -0.1, 1.0], [-1.0, -0.1, 1.0]])
    >>> np.flatnonzero(lasso(x, np.array([True, False, True, False]), penalty=0.5)).tolist()
    [0]
    """
    if penalty <= 0:
        raise ValueError(f"penalty is {penalty}; expected a number above 0")
    bound = np.full(design.shape[1], float(penalty))
    bound[-1] = 0.0

    def value(weights: Floats) -> float:
        return objective(design, false, weights, 0.0) + float(bound @ np.abs(weights))

    weights: Floats = np.zeros(design.shape[1])
    now = value(weights)
    for _ in range(_MAX_STEPS):
        probability = expit(design @ weights)
        gradient = design.T @ (probability - false)
        curvature = np.maximum(probability * (1 - probability), 1e-6)
        hessian = design.T @ (curvature[:, None] * design)
        step = _descend(weights, gradient, hessian, bound, tolerance) - weights
        length = 1.0
        while (trial := value(weights + length * step)) > now and length > 1e-8:
            length /= 2
        if trial <= now:
            weights, now = weights + length * step, trial
        if length * np.abs(step).max() < tolerance or trial > now:
            break
    weights[np.abs(weights) < tolerance] = 0.0
    return weights


def _descend(
    start: Floats, gradient: Floats, hessian: Floats, bound: Floats, tolerance: float
) -> Floats:
    """Minimise ``g d + d H d / 2 + sum bound |w|``, ``d = w - start``, one weight at a time."""
    weights = start.copy()
    slope = gradient.copy()
    diagonal = np.diagonal(hessian)
    columns = [k for k in range(len(weights)) if diagonal[k] > 1e-12]
    for sweep in range(2000):
        largest = 0.0
        # after a full sweep only the weights that are not 0 are worth another look
        awake = columns if sweep % 10 == 0 else [k for k in columns if weights[k] or not bound[k]]
        for k in awake:
            free = diagonal[k] * weights[k] - slope[k]
            new = np.sign(free) * max(abs(free) - bound[k], 0.0) / diagonal[k]
            change = new - weights[k]
            if change:
                weights[k] = new
                slope += change * hessian[k]
                largest = max(largest, abs(change))
        if largest < tolerance / 10 and awake is columns:
            break
    return weights
