import json

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier

from meta_ood.meta_classification import (
    CLASSIFIERS,
    MetaClassifier,
    cross_validate,
    fit,
    logistic,
    quality,
)
from segment_tables import random_table, reference_table


def scaled_of(table):
    return (table.features - table.features.mean(0)) / table.features.std(0)


@pytest.mark.parametrize("name", sorted(CLASSIFIERS))
def test_json_there_and_back(name):
    table, _ = reference_table("B_fs", "trained")
    fitted = fit(table, name)
    text = fitted.to_json()
    again = MetaClassifier.from_json(text)
    assert again.to_json() == text
    assert again.classifier == name
    np.testing.assert_array_equal(again.probability(table), fitted.probability(table))
    assert fit(table, name).to_json() == text
    assert len(text.splitlines()) < 1200  # a person can read it
    assert quality.auroc(fitted.probability(table), table.iou == 0) > 0.95


@pytest.mark.parametrize("name", sorted(CLASSIFIERS))
def test_every_kind_learns_out_of_fold(name):
    table = random_table(0, segments=400)
    probability = cross_validate(table, "scene", name)
    assert ((probability >= 0) & (probability <= 1)).all()
    assert quality.auroc(probability, table.iou == 0) > 0.7


@pytest.mark.parametrize("name", sorted(set(CLASSIFIERS) - {"logistic_regression"}))
def test_every_kind_leaves_single_segments_out(name):
    table = random_table(1, segments=12)
    probability = cross_validate(table, "leave_one_out", name)
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
    fitted = fit(
        table, "gradient_boosted_trees", trees=25, leaves=9, learning_rate=0.2, least_segments=5
    )
    np.testing.assert_allclose(
        fitted.probability(table), oracle.predict_proba(scaled)[:, 1], atol=1e-6
    )
    new = random_table(3, segments=200)
    expected = oracle.predict_proba((new.features - fitted.mean) / fitted.scale)[:, 1]
    np.testing.assert_allclose(fitted.probability(new), expected, atol=1e-6)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_the_network_is_that_of_scikit_learn():
    assert issubclass(ConvergenceWarning, UserWarning)
    table = random_table(4)
    scaled = scaled_of(table)
    oracle = MLPClassifier(
        (5,), activation="tanh", solver="lbfgs", alpha=0.3, max_iter=300, random_state=0
    ).fit(scaled, table.iou == 0)
    fitted = fit(table, "small_network", width=5, penalty=0.3)
    expected = oracle.predict_proba(scaled)[:, 1]
    np.testing.assert_allclose(fitted.probability(table), expected, atol=1e-4)


@pytest.mark.parametrize("penalty", [0.3, 3.0, 12.0])
def test_sparse_weights_fulfil_the_optimality_conditions(penalty):
    rng = np.random.default_rng(5)
    scaled = rng.normal(size=(150, 30))
    scaled[:, 7] = scaled[:, 3] + 0.05 * rng.normal(size=150)
    false = scaled[:, 3] - scaled[:, 11] + rng.normal(size=150) > 0.5
    design = logistic.with_ones(scaled)
    weights = logistic.lasso(design, false, penalty=penalty)
    probability = 1 / (1 + np.exp(-design @ weights))
    slope = design.T @ (probability - false)
    zero = weights[:-1] == 0
    assert zero.any()
    assert not zero.all()
    assert np.abs(slope[:-1][zero]).max() <= penalty + 1e-6
    np.testing.assert_allclose(
        slope[:-1][~zero], -penalty * np.sign(weights[:-1][~zero]), atol=1e-5
    )
    assert abs(slope[-1]) < 1e-6


def test_sparse_weights_of_a_design_without_signal():
    scaled = np.zeros((6, 3))
    false = np.array([True, True, True, True, False, False])
    weights = logistic.lasso(logistic.with_ones(scaled), false)
    np.testing.assert_allclose(weights, [0, 0, 0, np.log(2)], atol=1e-8)
    with pytest.raises(ValueError, match="above 0"):
        logistic.lasso(logistic.with_ones(scaled), false, penalty=-1.0)


def test_a_linear_model_alone_has_weights():
    fitted = fit(random_table(6), "small_network")
    with pytest.raises(ValueError, match="'small_network' has no weights"):
        _ = fitted.weights


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("gradient_boosted_trees", lambda m: m["trees"][0]["left"].__setitem__(0, 0), "behind"),
        ("gradient_boosted_trees", lambda m: m["trees"][0]["left"].__setitem__(0, 999), "behind"),
        ("gradient_boosted_trees", lambda m: m["trees"][0]["value"].pop(), "differ in length"),
        ("gradient_boosted_trees", lambda m: m["trees"][0]["feature"].__setitem__(0, "x"), "'x'"),
        ("small_network", lambda m: m["biases"].pop(), "do not fit 5 features"),
        ("small_network", lambda m: m["weights"][0].pop(), "do not fit 5 features"),
    ],
)
def test_values_that_make_no_model_are_refused(name, change, said):
    values = json.loads(fit(random_table(7), name).to_json())
    change(values["model"])
    with pytest.raises(ValueError, match=said):
        MetaClassifier.from_json(json.dumps(values))


def test_sparse_agrees_with_a_path_to_the_unpenalised_fit():
    table = random_table(8, segments=300)
    false = table.iou == 0
    sparse = fit(table, "sparse_logistic_regression", penalty=1e-6)
    oracle = LogisticRegression(C=1e8, tol=1e-12, max_iter=10_000).fit(scaled_of(table), false)
    np.testing.assert_allclose(sparse.weights, oracle.coef_[0], atol=1e-4)
