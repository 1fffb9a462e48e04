import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from meta_ood.meta_classification import out_of_fold
from meta_ood.meta_classification.features import Scaling
from meta_ood.meta_classification.leave_one_out import leave_one_out
from segment_tables import random_table, reference_table


def cold_fits(features, false, rows, rescale, penalty=1.0):
    """n fits by scikit-learn, each from scratch: log odds."""
    log_odds = []
    for row in rows:
        rest = np.arange(len(false)) != row
        source = features[rest] if rescale else features
        mean, std = source.mean(0), source.std(0)
        std[std == 0] = 1
        model = LogisticRegression(C=1 / penalty, solver="liblinear", tol=1e-12, max_iter=100_000, random_state=0).fit(
            (features[rest] - mean) / std, false[rest]
        )
        log_odds.append(model.decision_function((features[[row]] - mean) / std)[0])
    return np.array(log_odds)


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 1000), st.sampled_from([0.1, 1.0, 10.0]), st.booleans())
def test_equals_cold_fits(seed, penalty, rescale):
    table = random_table(seed, segments=30, features=3 + seed % 40)
    false = table.iou == 0
    rows = np.arange(30)[:: 1 + seed % 4]
    scaled = Scaling.of(table.features)(table.features)
    found = leave_one_out(scaled, false, penalty=penalty, rescale=rescale)[rows]
    expected = cold_fits(table.features, false, rows, rescale, penalty)
    corrected = np.isfinite(found)
    np.testing.assert_allclose(found[corrected], expected[corrected], atol=2e-5)
    # the others get a fit each
    folds = "leave_one_out" if rescale else "published"
    probability = out_of_fold(table, folds, penalty=penalty).probability[rows]
    np.testing.assert_allclose(probability, expit(expected), atol=1e-5)


@pytest.mark.parametrize("rescale", [True, False])
def test_corrections_suffice_for_many_segments(rescale):
    table = random_table(1, segments=3000, features=6)
    false = table.iou == 0
    found = leave_one_out(Scaling.of(table.features)(table.features), false, rescale=rescale)
    assert np.isfinite(found).all()
    some = np.arange(0, 3000, 500)
    expected = cold_fits(table.features, false, some, rescale)
    np.testing.assert_allclose(found[some], expected, atol=1e-6)


@pytest.mark.parametrize("name", ["1000 segments", "A_laf"])
def test_most_segments_need_no_fit(name):
    table = random_table(5, segments=1000, features=75) if name != "A_laf" else reference_table("A_laf", "base")[0]
    scaled = Scaling.of(table.features)(table.features)
    corrected = np.isfinite(leave_one_out(scaled, table.iou == 0)).mean()
    assert corrected > (0.99 if name != "A_laf" else 0.5)


def test_threads_do_not_change_the_bits():
    table = random_table(2, segments=1500, features=20)
    scaled = Scaling.of(table.features)(table.features)
    found = []
    for threads in (1, 3):
        with threadpool_limits(threads, "blas"):
            found.append(leave_one_out(scaled, table.iou == 0))
    np.testing.assert_array_equal(*found)


def test_75_features_of_66_segments():
    table, _ = reference_table("A_laf", "base")
    false = table.iou == 0
    rows = np.arange(0, len(false), 8)
    found = out_of_fold(table, "leave_one_out").probability[rows]
    expected = cold_fits(table.features, false, rows, rescale=True)
    np.testing.assert_allclose(found, expit(expected), atol=1e-6)


def test_a_feature_that_one_segment_alone_has():
    table = random_table(2)
    table.features[:, 2] = 0
    table.features[9, 2] = 7
    table.features[:, 3] = 1.5
    found = out_of_fold(table, "leave_one_out")
    expected = cold_fits(table.features, table.iou == 0, np.arange(60), rescale=True)
    # without segment 9 feature 2 is constant: the oracle's weight for it is 0 as well
    np.testing.assert_allclose(found.probability, expit(expected), atol=1e-6)


def test_gaps_are_filled_in_each_fold():
    table = random_table(3, segments=20)
    table.features[4, 1] = np.nan
    found = out_of_fold(table, "leave_one_out")
    false = table.iou == 0
    for row in (0, 4):
        rest = np.arange(20) != row
        filled = table.features.copy()
        filled[4, 1] = np.nanmean(table.features[rest, 1])
        mean, std = filled[rest].mean(0), filled[rest].std(0)
        std[1] = np.nanstd(table.features[rest, 1])
        model = LogisticRegression(solver="liblinear", tol=1e-12, max_iter=100_000)
        model.fit((filled[rest] - mean) / std, false[rest])
        expected = model.predict_proba((filled[[row]] - mean) / std)[0, 1]
        assert found.probability[row] == pytest.approx(expected, abs=1e-6)
