import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from meta_ood.meta_classification import quality
from segment_tables import reference_table

rows = st.lists(st.tuples(st.integers(0, 8), st.booleans()), min_size=2, max_size=40)


@settings(deadline=None, max_examples=40)
@given(rows)
def test_ranking_agrees_with_scikit_learn(drawn):
    probability = np.array([p / 8 for p, _ in drawn])
    false = np.array([f for _, f in drawn])
    if false.all() or not false.any():
        assert math.isnan(quality.auroc(probability, false))
        return
    assert quality.auroc(probability, false) == pytest.approx(roc_auc_score(false, probability))
    expected = average_precision_score(false, probability)
    assert quality.auprc(probability, false) == pytest.approx(expected)
    assert quality.brier(probability, false) == pytest.approx(brier_score_loss(false, probability))


def test_figures_of_the_reference():
    for case in ("A_laf", "B_fs"):
        for tag in ("base", "trained"):
            _, figures = reference_table(case, tag)
            probability, false = figures["proba_fp"], figures["y0a"] == 1
            assert quality.auroc(probability, false) == pytest.approx(figures["auroc"], abs=1e-12)
            assert quality.auprc(probability, false) == pytest.approx(figures["auprc"], abs=1e-12)
            assert quality.accuracy(probability, false) == pytest.approx(figures["acc"], abs=1e-12)


def test_nothing_to_judge_is_nan():
    none, flags = np.zeros(0), np.zeros(0, bool)
    for figure in (quality.auroc, quality.auprc, quality.accuracy, quality.brier):
        assert math.isnan(figure(none, flags))


@settings(deadline=None, max_examples=40)
@given(rows)
def test_calibration_by_hand(drawn):
    probability = np.array([p / 8 for p, _ in drawn])
    false = np.array([f for _, f in drawn])
    found = quality.calibration(probability, false, bins=4)
    error = 0.0
    for b in range(4):
        low, high = b / 4, (b + 1) / 4
        inside = (probability >= low) & ((probability < high) | (b == 3))
        assert found.count[b] == inside.sum()
        if inside.any():
            assert found.said[b] == pytest.approx(probability[inside].mean())
            assert found.seen[b] == pytest.approx(false[inside].mean())
            gap = abs(probability[inside].mean() - false[inside].mean())
            error += inside.mean() * gap
    assert found.error == pytest.approx(error)


@settings(deadline=None, max_examples=40)
@given(rows, st.floats(0, 1))
def test_the_point_is_the_lowest_that_keeps_to_the_bound(drawn, max_lost):
    probability = np.array([p / 8 for p, _ in drawn])
    true = ~np.array([f for _, f in drawn])
    point = quality.point_that_loses_at_most(probability, ~true, max_lost)

    def lost(at):
        return (probability[true] > at).sum() / max(true.sum(), 1)

    assert lost(point) <= max_lost + 1e-9
    lower = [p for p in {0.0, *probability} if p < point]
    assert all(lost(p) > max_lost for p in lower)
