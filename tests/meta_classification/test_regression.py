import numpy as np
import pytest
from sklearn.linear_model import Ridge

from meta_ood.meta_classification.regression import cross_validate_iou, regression_quality
from segment_tables import random_table, reference_table


def oracle(table, out, penalty, scaled_on):
    mean, std = table.features[scaled_on].mean(0), table.features[scaled_on].std(0)
    scaled = (table.features - mean) / std
    model = Ridge(alpha=penalty).fit(scaled[~out], table.iou[~out])
    return np.clip(model.predict(scaled[out]), 0, 1)


@pytest.mark.parametrize("penalty", [1.0, 20.0])
def test_out_of_fold_by_scene(penalty):
    table = random_table(1)
    estimate = cross_validate_iou(table, "scene", penalty)
    for scene in range(4):
        out = table.image // 3 == scene
        np.testing.assert_allclose(estimate[out], oracle(table, out, penalty, ~out), atol=1e-10)


def test_leave_one_out_in_closed_form():
    table, _ = reference_table("B_fs", "trained")
    table.features[:, table.feature_names.index("S_rel_in")] = np.arange(len(table.iou))
    estimate = cross_validate_iou(table, "published")
    every = np.ones(len(table.iou), bool)
    for row in (0, 50, 169):
        out = np.arange(len(table.iou)) == row
        np.testing.assert_allclose(estimate[row], oracle(table, out, 1.0, every)[0], atol=1e-6)


def test_hardly_any_segment():
    table = random_table(2)
    assert cross_validate_iou(table.rows(slice(0)), "scene").shape == (0,)
    assert np.isnan(cross_validate_iou(table.rows(slice(1)), "leave_one_out")).all()
    assert np.isfinite(cross_validate_iou(table.rows(slice(2)), "leave_one_out")).all()
    assert np.isnan(cross_validate_iou(random_table(2, scenes=1), "scene")).all()


def test_quality():
    iou = np.array([0.0, 0.5, 1.0])
    assert regression_quality(iou, iou) == {"r2": 1.0, "mean_absolute_error": 0.0}
    assert regression_quality(np.full(3, 0.5), iou)["r2"] == 0.0
    assert regression_quality(np.full(3, np.nan), iou)["r2"] is None
    assert regression_quality(np.zeros(3), np.zeros(3))["r2"] is None
