import dataclasses
import json

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from meta_ood.meta_classification import MetaClassifier, fit
from meta_ood.meta_classification.models import LinearModel
from meta_ood.segments import SegmentTable
from segment_tables import random_table, reference_table


def test_coefficients_are_the_published_ones():
    for case, tag in (("A_laf", "base"), ("B_fs", "trained")):
        table, values = reference_table(case, tag)
        fitted = fit(table)
        # liblinear stops at a tolerance of 1e-4
        np.testing.assert_allclose(fitted.weights, values["full_coef"], atol=4e-3)
        assert fitted.bias == pytest.approx(float(values["full_intercept"]), abs=4e-3)


def test_probability_agrees_with_scikit_learn():
    table = random_table(0)
    fitted = fit(table, penalty=0.5)
    scaled = (table.features - table.features.mean(0)) / table.features.std(0)
    oracle = LogisticRegression(C=2.0, solver="liblinear", tol=1e-12, max_iter=10_000)
    expected = oracle.fit(scaled, table.iou == 0).predict_proba(scaled)[:, 1]
    np.testing.assert_allclose(fitted.probability(table), expected, atol=1e-6)


def test_json_holds_everything_and_is_readable():
    table = random_table(2)
    fitted = fit(table, operating_point=0.25)
    text = fitted.to_json()
    again = MetaClassifier.from_json(text)
    assert again.to_json() == text == fit(table, operating_point=0.25).to_json()
    assert again.operating_point == 0.25
    np.testing.assert_array_equal(again.probability(table), fitted.probability(table))
    values = json.loads(text)
    assert values["model"]["weights"]["f0"] == fitted.weights[0]
    assert values["features"][0]["name"] == "f0"


def test_other_features_are_refused():
    fitted = fit(random_table(4))
    with pytest.raises(ValueError, match="fitted on f0, f1, f2, … \\(5\\)"):
        fitted.probability(random_table(4, features=4))


@pytest.mark.parametrize(
    ("iou", "why"), [(0.0, "all 60 training segments are false positives"), (0.5, "none of 60 training segments")]
)
def test_one_kind_of_segment_keeps_everything_and_says_why(iou, why):
    table = random_table(5)
    table.iou[:] = iou
    fitted = fit(table, operating_point=0.0)
    assert why in fitted.fit_failure
    assert not fitted.probability(table).any()
    again = MetaClassifier.from_json(fitted.to_json())
    assert again.fit_failure == fitted.fit_failure
    assert not again.probability(table).any()


def test_no_segment_at_all():
    empty = random_table(6).rows(slice(0))
    fitted = fit(empty)
    assert fitted.fit_failure == "no training segment"
    assert fitted.probability(empty).shape == (0,)
    assert (fitted.probability(random_table(6)) == 0).all()


def test_unknown_classifier_and_option():
    with pytest.raises(ValueError, match=r"unknown classifier 'x'; known: .*logistic_regression"):
        fit(random_table(7), "x")
    with pytest.raises(ValueError, match="unknown option 'depth'; known: penalty"):
        fit(random_table(7), depth=3)


def test_a_constant_column_is_ignored_in_new_data():
    table = random_table(8)
    table.features[:, 3] = 0.1
    fitted = fit(table)
    before = fitted.probability(table)
    table.features[:, 3] = 1e6
    np.testing.assert_array_equal(fitted.probability(table), before)


def test_values_that_are_not_finite_count_as_the_mean():
    table = random_table(9)
    table.features[0, 2] = np.nan
    table.features[1, 2] = np.inf
    fitted = fit(table)
    assert np.isfinite(fitted.weights).all()
    probability = fitted.probability(table)
    table.features[:2, 2] = table.features[2:, 2].mean()
    np.testing.assert_allclose(fitted.probability(table), probability, atol=1e-12)


def test_severity_tells_apart_what_probabilities_of_1_cannot():
    table = random_table(10)
    fitted = fit(table)
    # the same classifier, a hundred times as sure: then 1 - P(false) is 1 for many segments
    model = LinearModel(100 * fitted.weights, 100 * fitted.bias)
    sure = dataclasses.replace(fitted, model=model)
    severity, odds = sure.severity(table), sure.log_odds(table)
    assert ((1 - sure.probability(table)) == 1).sum() > 5
    order = np.argsort(-odds)
    assert (np.diff(severity[order][odds[order] < 0]) > 0).all()
    np.testing.assert_allclose(fitted.severity(table), -np.log(fitted.probability(table)))
    assert np.isfinite(severity).all()
    # far beyond what a probability can hold
    np.testing.assert_allclose(fitted.severity(table, np.array([-2000.0, 0.0, 2000.0])), [2000, np.log(2), 0])


def test_without_a_model_severity_is_made_of_score_and_size():
    nothing = np.zeros(0, np.int64)
    table = SegmentTable(
        *(("a",), ("s",), np.zeros(3, np.int64), np.array([[4.0], [1.0], [9.0]]), ("S",), np.zeros(3)),
        *(nothing, nothing, nothing.reshape(0, 3)),
        segment_score=np.array([-0.25, -0.5 - 1e-8, 2.0]),  # the second was rounded below the threshold
        threshold=-0.5,
    )
    np.testing.assert_allclose(fit(table).severity(table), [0.25 * 2, 0, 2.5 * 3])
