import numpy as np
import pytest
from sklearn.linear_model import Ridge

from meta_ood.meta_classification import fit, out_of_fold
from meta_ood.meta_classification.cross_validation import cross_validate, cross_validate_iou, regression_quality
from segment_tables import random_table, reference_table


@pytest.mark.parametrize("case", ["A_laf", "B_fs"])
@pytest.mark.parametrize("tag", ["base", "trained"])
def test_counts_of_the_reference(case, tag):
    table, figures = reference_table(case, tag)
    metrics = cross_validate(table, folds="published").metrics
    assert metrics["false"] == figures["fp_before"]
    assert metrics["removed"] == figures["kick"].sum()
    # the published code reports the true segments lost as the false positives that remain
    assert metrics["lost_true"] == figures["fp_after_upstream"] == figures["tp_removed"]
    assert metrics["false"] - metrics["removed_false"] == figures["fp_remaining_correct"]
    assert metrics["accuracy"] == pytest.approx(float(figures["acc"]), abs=1e-9)
    assert metrics["auroc"] == pytest.approx(float(figures["auroc"]), abs=1e-3)


def test_decides_out_of_fold_and_fits_on_all():
    table = random_table(0)
    found = cross_validate(table, operating_point=0.7, options={"penalty": 2.0})
    np.testing.assert_array_equal(found.probability, out_of_fold(table, penalty=2.0).probability)
    np.testing.assert_array_equal(found.removed, found.probability > 0.7)
    assert found.classifier.operating_point == 0.7
    shipped = fit(table, penalty=2.0).probability(table) > 0.7
    differing = (shipped != found.removed).sum()
    assert differing > 0
    assert found.metrics["differing_decisions"] == differing
    assert found.classifier.differing_decisions == differing
    assert found.classifier.segments == 60
    assert found.metrics["number_of_folds"] == 4
    assert found.metrics["fit_failures"] == ""


def test_only_false_segments_are_all_kept():
    table = random_table(1)
    table.iou[:] = 0
    found = cross_validate(table)
    assert not found.removed.any()
    assert found.metrics["kept_without_classifier"] == 60
    for name in ("auroc", "auprc", "accuracy", "brier", "calibration_error"):
        assert found.metrics[name] is None
    assert found.metrics["folds_without_classifier"] == 4
    assert "are false positives" in found.metrics["fit_failures"]
    assert found.classifier.fit_failure


def test_no_segment():
    found = cross_validate(random_table(2).rows(slice(0)))
    assert found.probability.shape == (0,)
    assert found.metrics["segments"] == 0
    assert found.metrics["accuracy"] is None
    assert found.metrics["number_of_folds"] == 0


@pytest.mark.parametrize("folds", ["scene", "image", "leave_one_out", "published"])
def test_a_bound_on_lost_segments_is_about_kept(folds):
    table = random_table(3, segments=300, scenes=8)
    true = table.iou > 0
    lost = {}
    for bound in (0.1, 0.4, 1.0):
        found = cross_validate(table, folds=folds, max_lost=bound)
        lost[bound] = (found.removed & true).sum() / true.sum()
        assert lost[bound] <= bound + 0.05
    assert lost[0.1] < lost[0.4]
    assert lost[1.0] == 1.0  # all may go, all go


def test_the_point_of_a_fold_does_not_know_its_segments():
    table = random_table(4, segments=200)
    out = table.image < 3
    before = cross_validate(table, max_lost=0.2)
    table.iou[out] = np.where(table.iou[out] == 0, 0.7, 0.0)
    after = cross_validate(table, max_lost=0.2)
    np.testing.assert_array_equal(after.removed[out], before.removed[out])


def test_two_scenes_cannot_choose_a_point():
    found = cross_validate(random_table(5, scenes=2), max_lost=0.5)
    assert not found.removed.any()


def test_metrics_are_those_of_the_segments_with_a_classifier():
    table = random_table(6)
    table.iou[table.image >= 3] = 0  # true segments in scene 0 alone: no classifier for it
    found = cross_validate(table)
    rest = table.image >= 3
    assert found.metrics["kept_without_classifier"] == (~rest).sum()
    assert found.metrics["brier"] == pytest.approx(((found.probability[rest] - 1) ** 2).mean(), abs=1e-9)
    assert not found.removed[~rest].any()


def ridge(table, out, penalty, scaled_on):
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
        np.testing.assert_allclose(estimate[out], ridge(table, out, penalty, ~out), atol=1e-10)


def test_leave_one_out_in_closed_form():
    table, _ = reference_table("B_fs", "trained")
    table.features[:, table.feature_names.index("S_rel_in")] = np.arange(len(table.iou))
    estimate = cross_validate_iou(table, "published")
    every = np.ones(len(table.iou), bool)
    for row in (0, 50, 169):
        out = np.arange(len(table.iou)) == row
        np.testing.assert_allclose(estimate[row], ridge(table, out, 1.0, every)[0], atol=1e-6)


def test_iou_of_hardly_any_segment():
    table = random_table(2)
    assert cross_validate_iou(table.rows(slice(0)), "scene").shape == (0,)
    assert np.isnan(cross_validate_iou(table.rows(slice(1)), "leave_one_out")).all()
    assert np.isfinite(cross_validate_iou(table.rows(slice(2)), "leave_one_out")).all()
    assert np.isnan(cross_validate_iou(random_table(2, scenes=1), "scene")).all()


def test_quality_of_estimated_iou():
    iou = np.array([0.0, 0.5, 1.0])
    assert regression_quality(iou, iou) == {"r2": 1.0, "mean_absolute_error": 0.0}
    assert regression_quality(np.full(3, 0.5), iou)["r2"] == 0.0
    assert regression_quality(np.full(3, np.nan), iou)["r2"] is None
    assert regression_quality(np.zeros(3), np.zeros(3))["r2"] is None
