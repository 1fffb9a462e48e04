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
