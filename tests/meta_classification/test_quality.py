import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from meta_classification.segments import reference_table
from meta_ood.meta_classification import quality

rows = st.lists(st.tuples(st.integers(0, 8), st.booleans()), min_size=2, max_size=40)


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
