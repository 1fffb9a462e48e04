import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve

from meta_ood.meta_classification import quality
from meta_ood.metrics.semantic import reliability
from segment_tables import reference_table

rows = st.lists(st.tuples(st.integers(0, 8), st.booleans()), min_size=2, max_size=40)


@settings(deadline=None, max_examples=40)
@given(rows)
def test_ranking_by_hand(drawn):
    probability = np.array([p / 8 for p, _ in drawn])
    false = np.array([f for _, f in drawn])
    if false.all() or not false.any():
        assert math.isnan(quality.auroc(probability, false))
        return
    pairs = probability[false][:, None] - probability[~false]
    assert quality.auroc(probability, false) == pytest.approx(((np.sign(pairs) + 1) / 2).mean())
    thresholds = sorted(set(probability), reverse=True)
    recall = [(false & (probability >= t)).sum() / false.sum() for t in thresholds]
    precision = [false[probability >= t].mean() for t in thresholds]
    expected = np.diff([0, *recall]) @ precision
    assert quality.auprc(probability, false) == pytest.approx(expected)
    assert quality.brier(probability, false) == pytest.approx(((probability - false) ** 2).mean())


def test_values_of_the_reference():
    for case in ("A_laf", "B_fs"):
        for tag in ("base", "trained"):
            _, figures = reference_table(case, tag)
            probability, false = figures["proba_fp"], figures["y0a"] == 1
            assert quality.auroc(probability, false) == pytest.approx(figures["auroc"], abs=1e-12)
            assert quality.auprc(probability, false) == pytest.approx(figures["auprc"], abs=1e-12)


def test_no_segment_is_nan():
    none, flags = np.zeros(0), np.zeros(0, bool)
    for metric in (quality.auroc, quality.auprc, quality.brier):
        assert math.isnan(metric(none, flags))
    assert math.isnan(quality.calibration(none, flags).error)


@settings(deadline=None, max_examples=40)
@given(rows)
def test_calibration_is_that_of_scikit_learn_also_on_edges(drawn):
    probability = np.array([p / 8 for p, _ in drawn])
    false = np.array([f for _, f in drawn])
    found = quality.calibration(probability, false, bins=4)
    # the drawn probabilities lie on edges of the 4 bins half of the time
    observed, predicted = calibration_curve(false, probability, n_bins=4)
    np.testing.assert_allclose(found.observed, observed)
    np.testing.assert_allclose(found.predicted, predicted)
    assert found.count.sum() == len(drawn)
    gap = np.abs(predicted - observed)
    assert found.error == pytest.approx((gap * found.count).sum() / len(drawn))


@pytest.mark.parametrize("bins", [10, 15])
def test_one_rule_for_edges_in_both_calibration_errors(bins):
    # k / bins in float64 falls on, just below or just above the edge, for pixels and segments alike
    sure = (np.arange(bins + 1) / bins).astype(np.float32)
    zeros = np.zeros((1, bins + 1), np.uint8)
    pixels = reliability(sure[None], zeros, zeros, 2, bins).pixels
    found = quality.calibration(sure.astype(np.float64), np.ones(bins + 1, bool), bins)
    np.testing.assert_array_equal(found.count, pixels[pixels > 0])


@settings(deadline=None, max_examples=40)
@given(rows, st.floats(0, 1))
def test_the_point_is_the_lowest_that_keeps_to_the_bound(drawn, max_lost):
    probability = np.array([p / 8 for p, _ in drawn])
    true = ~np.array([f for _, f in drawn])
    point = quality.operating_point_for_max_lost(probability, ~true, max_lost)

    def lost(at):
        return (probability[true] > at).sum() / max(true.sum(), 1)

    assert lost(point) <= max_lost + 1e-9
    lower = [p for p in {0.0, *probability} if p < point]
    assert all(lost(p) > max_lost for p in lower)
