import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

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
        model = LogisticRegression(
            C=1 / penalty, solver="liblinear", tol=1e-12, max_iter=100_000, random_state=0
        ).fit((features[rest] - mean) / std, false[rest])
        log_odds.append(model.decision_function((features[[row]] - mean) / std)[0])
    return np.array(log_odds)


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 1000), st.sampled_from([0.1, 1.0, 10.0]), st.booleans())
def test_equals_cold_fits(seed, penalty, rescale):
    table = random_table(seed, segments=30, features=3 + seed % 40)
    false = table.iou == 0
    rows = np.arange(30)[:: 1 + seed % 4]
    judged = leave_one_out(
        Scaling.of(table.features)(table.features), false, rows, penalty=penalty, rescale=rescale
    )
    assert judged.solved.all()
    expected = cold_fits(table.features, false, rows, rescale, penalty)
    np.testing.assert_allclose(judged.log_odds, expected, atol=2e-5)


@pytest.mark.parametrize("rescale", [True, False])
def test_many_segments_take_the_cheap_steps(rescale, monkeypatch):
    from meta_ood.meta_classification import leave_one_out as module

    dear = []
    own = module._own_steps
    monkeypatch.setattr(
        module, "_own_steps", lambda *given: dear.append(len(given[1])) or own(*given)
    )
    table = random_table(1, segments=3000, features=6)
    false = table.iou == 0
    rows = np.arange(3000)
    judged = leave_one_out(Scaling.of(table.features)(table.features), false, rows, rescale=rescale)
    assert sum(dear) == 0
    some = rows[::500]
    expected = cold_fits(table.features, false, some, rescale)
    np.testing.assert_allclose(judged.log_odds[some], expected, atol=1e-6)


def test_threads_do_not_change_the_bits(monkeypatch):
    from meta_ood.meta_classification import leave_one_out as module

    table = random_table(2, segments=1500, features=20)
    scaled, rows = Scaling.of(table.features)(table.features), np.arange(1500)
    found = []
    for threads in (1, 3):
        monkeypatch.setattr(module, "_threads", lambda threads=threads: threads)
        found.append(leave_one_out(scaled, table.iou == 0, rows).log_odds)
    np.testing.assert_array_equal(*found)


def test_75_features_of_66_segments():
    table, _ = reference_table("A_laf", "base")
    false = table.iou == 0
    rows = np.arange(0, len(false), 8)
    judged = leave_one_out(Scaling.of(table.features)(table.features), false, rows)
    expected = cold_fits(table.features, false, rows, rescale=True)
    np.testing.assert_allclose(judged.log_odds, expected, atol=1e-5)


def test_a_feature_that_one_segment_alone_has():
    table = random_table(2)
    table.features[:, 2] = 0
    table.features[9, 2] = 7
    table.features[:, 3] = 1.5
    judged = out_of_fold(table, "leave_one_out")
    expected = cold_fits(table.features, table.iou == 0, np.arange(60), rescale=True)
    probability = 1 / (1 + np.exp(-expected))
    # without segment 9 feature 2 is constant: the oracle's weight for it is 0 as well
    np.testing.assert_allclose(judged.probability, probability, atol=1e-6)


def test_gaps_are_filled_in_each_fold():
    table = random_table(3, segments=20)
    table.features[4, 1] = np.nan
    judged = out_of_fold(table, "leave_one_out")
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
        assert judged.probability[row] == pytest.approx(expected, abs=1e-6)
