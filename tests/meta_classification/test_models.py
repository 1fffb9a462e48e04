import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier

from meta_ood.meta_classification import CLASSIFIERS, fit, models, out_of_fold, quality
from segment_tables import random_table


def scaled_of(table):
    return (table.features - table.features.mean(0)) / table.features.std(0)


def problem(seed, rows=80, columns=6):
    rng = np.random.default_rng(seed)
    scaled = rng.normal(size=(rows, columns))
    false = scaled[:, 0] - scaled[:, 1] + rng.normal(size=rows) > 0.3
    return scaled, false


@pytest.mark.parametrize("penalty", [0.1, 1.0, 30.0])
def test_is_the_optimum_that_liblinear_looks_for(penalty):
    scaled, false = problem(0)
    model = models.logistic_regression(scaled, false, penalty=penalty)
    oracle = LogisticRegression(C=1 / penalty, solver="liblinear", tol=1e-12, max_iter=10_000, random_state=0).fit(
        scaled, false
    )
    np.testing.assert_allclose(model.weights, oracle.coef_[0], atol=1e-6)
    np.testing.assert_allclose(model.bias, oracle.intercept_[0], atol=1e-6)


def test_the_gradient_vanishes_also_where_classes_separate():
    scaled, _ = problem(1, rows=20, columns=30)
    false = np.arange(20) % 3 == 0
    model = models.logistic_regression(scaled, false, penalty=1e-6)
    weights = np.append(model.weights, model.bias)
    design = np.hstack([scaled, np.ones((20, 1))])
    probability = 1 / (1 + np.exp(-design @ weights))
    assert np.abs(design.T @ (probability - false) + 1e-6 * weights).max() < 1e-8
    assert ((probability > 0.5) == false).all()


@pytest.mark.parametrize("name", ["logistic_regression", "sparse_logistic_regression"])
@pytest.mark.parametrize("penalty", [0.0, -1.0, float("nan")])
def test_no_penalty_is_refused(name, penalty):
    with pytest.raises(ValueError, match="expected a number above 0"):
        CLASSIFIERS[name](*problem(3), penalty=penalty)


@pytest.mark.parametrize("name", sorted(CLASSIFIERS))
def test_every_kind_learns_out_of_fold(name):
    table = random_table(0, segments=400)
    probability = out_of_fold(table, "scene", name).probability
    assert ((probability >= 0) & (probability <= 1)).all()
    assert quality.auroc(probability, table.iou == 0) > 0.7


@pytest.mark.parametrize("name", sorted(set(CLASSIFIERS) - {"logistic_regression"}))
def test_every_kind_leaves_single_segments_out(name):
    table = random_table(1, segments=12)
    probability = out_of_fold(table, "leave_one_out", name).probability
    rest = np.arange(12) != 4
    expected = fit(table.rows(rest), name).probability(table.rows(~rest))
    np.testing.assert_array_equal(probability[4], expected[0])


def test_trees_are_those_of_scikit_learn():
    table = random_table(2, segments=500)
    scaled, false = scaled_of(table), table.iou == 0
    oracle = HistGradientBoostingClassifier(
        max_iter=25,
        max_leaf_nodes=9,
        learning_rate=0.2,
        min_samples_leaf=5,
        l2_regularization=1.0,
        early_stopping=False,
        random_state=0,
    ).fit(scaled, false)
    fitted = fit(table, "gradient_boosted_trees", trees=25, leaves=9, learning_rate=0.2, least_segments=5)
    np.testing.assert_allclose(fitted.probability(table), oracle.predict_proba(scaled)[:, 1], atol=1e-6)
    new = random_table(3, segments=200)
    expected = oracle.predict_proba((new.features - fitted.mean) / fitted.scale)[:, 1]
    np.testing.assert_allclose(fitted.probability(new), expected, atol=1e-6)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_the_network_is_that_of_scikit_learn():
    assert issubclass(ConvergenceWarning, UserWarning)
    table = random_table(4)
    scaled = scaled_of(table)
    oracle = MLPClassifier((5,), activation="tanh", solver="lbfgs", alpha=0.3, max_iter=300, random_state=0).fit(
        scaled, table.iou == 0
    )
    fitted = fit(table, "small_network", width=5, penalty=0.3)
    expected = oracle.predict_proba(scaled)[:, 1]
    np.testing.assert_allclose(fitted.probability(table), expected, atol=1e-4)


@pytest.mark.parametrize("penalty", [0.3, 3.0, 12.0])
def test_sparse_weights_fulfil_the_optimality_conditions(penalty):
    rng = np.random.default_rng(5)
    scaled = rng.normal(size=(150, 30))
    scaled[:, 7] = scaled[:, 3] + 0.05 * rng.normal(size=150)
    false = scaled[:, 3] - scaled[:, 11] + rng.normal(size=150) > 0.5
    model = models.sparse_logistic_regression(scaled, false, penalty=penalty)
    weights = np.append(model.weights, model.bias)
    design = np.hstack([scaled, np.ones((150, 1))])
    probability = 1 / (1 + np.exp(-design @ weights))
    slope = design.T @ (probability - false)
    zero = weights[:-1] == 0
    assert zero.any()
    assert not zero.all()
    assert np.abs(slope[:-1][zero]).max() <= penalty + 1e-4
    np.testing.assert_allclose(slope[:-1][~zero], -penalty * np.sign(weights[:-1][~zero]), atol=1e-4)
    assert abs(slope[-1]) < 1e-3 * penalty


def test_sparse_weights_of_a_design_without_signal():
    scaled = np.zeros((6, 3))
    false = np.array([True, True, True, True, False, False])
    model = models.sparse_logistic_regression(scaled, false)
    np.testing.assert_array_equal(model.weights, 0)
    assert model.bias == pytest.approx(np.log(2), abs=1e-3)


def test_a_linear_model_alone_has_weights():
    fitted = fit(random_table(6), "small_network")
    with pytest.raises(ValueError, match="'small_network' has no weights"):
        _ = fitted.weights


def test_sparse_agrees_with_a_path_to_the_unpenalised_fit():
    table = random_table(8, segments=300)
    false = table.iou == 0
    sparse = fit(table, "sparse_logistic_regression", penalty=1e-6)
    oracle = LogisticRegression(C=1e8, tol=1e-12, max_iter=10_000).fit(scaled_of(table), false)
    np.testing.assert_allclose(sparse.weights, oracle.coef_[0], atol=1e-3)
