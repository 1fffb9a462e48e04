import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from meta_ood.meta_classification import logistic


def problem(seed, rows=80, columns=6):
    rng = np.random.default_rng(seed)
    scaled = rng.normal(size=(rows, columns))
    false = scaled[:, 0] - scaled[:, 1] + rng.normal(size=rows) > 0.3
    return scaled, false


@pytest.mark.parametrize("penalty", [0.1, 1.0, 30.0])
def test_is_the_optimum_that_liblinear_looks_for(penalty):
    scaled, false = problem(0)
    weights = logistic.newton(logistic.with_ones(scaled), false, penalty=penalty)
    oracle = LogisticRegression(
        C=1 / penalty, solver="liblinear", tol=1e-12, max_iter=10_000, random_state=0
    ).fit(scaled, false)
    np.testing.assert_allclose(weights[:-1], oracle.coef_[0], atol=1e-6)
    np.testing.assert_allclose(weights[-1], oracle.intercept_[0], atol=1e-6)


def test_the_gradient_vanishes_also_where_classes_separate():
    scaled, _ = problem(1, rows=20, columns=30)
    false = np.arange(20) % 3 == 0
    design = logistic.with_ones(scaled)
    weights = logistic.newton(design, false, penalty=1e-6)
    probability = 1 / (1 + np.exp(-design @ weights))
    assert np.abs(design.T @ (probability - false) + 1e-6 * weights).max() < 1e-8
    assert ((probability > 0.5) == false).all()


def test_a_far_start_leads_to_the_same_place():
    scaled, false = problem(2)
    design = logistic.with_ones(scaled)
    far = np.full(design.shape[1], 50.0)
    np.testing.assert_allclose(
        logistic.newton(design, false, start=far), logistic.newton(design, false), atol=1e-8
    )


def test_no_penalty_is_refused():
    scaled, false = problem(3)
    with pytest.raises(ValueError, match="above 0"):
        logistic.newton(scaled, false, penalty=0.0)
