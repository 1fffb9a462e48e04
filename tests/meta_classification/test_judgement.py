import numpy as np
import pytest

from meta_ood.meta_classification import cross_validate
from meta_ood.meta_classification.judgement import judge
from segment_tables import random_table, reference_table


@pytest.mark.parametrize("case", ["A_laf", "B_fs"])
@pytest.mark.parametrize("tag", ["base", "trained"])
def test_counts_of_the_reference(case, tag):
    table, figures = reference_table(case, tag)
    metrics = judge(table, folds="published").metrics
    assert metrics["false"] == figures["fp_before"]
    assert metrics["removed"] == figures["kick"].sum()
    # the published code reports the true segments lost as the false positives that remain
    assert metrics["lost_true"] == figures["fp_after_upstream"] == figures["tp_removed"]
    assert metrics["false"] - metrics["removed_false"] == figures["fp_remaining_correct"]
    assert metrics["accuracy"] == pytest.approx(float(figures["acc"]), abs=1e-9)
    assert metrics["auroc"] == pytest.approx(float(figures["auroc"]), abs=1e-3)


def test_judges_out_of_fold_and_fits_on_all():
    table = random_table(0)
    judged = judge(table, operating_point=0.7, options={"penalty": 2.0})
    np.testing.assert_array_equal(judged.probability, cross_validate(table, penalty=2.0))
    np.testing.assert_array_equal(judged.removed, judged.probability > 0.7)
    assert judged.classifier.operating_point == 0.7
    assert judged.metrics["number_of_folds"] == 4
    assert judged.metrics["keep_everything"] == ""


def test_only_false_segments_keep_everything():
    table = random_table(1)
    table.iou[:] = 0
    judged = judge(table)
    assert not judged.removed.any()
    assert judged.metrics["kept_unjudged"] == 60
    for figure in ("auroc", "auprc", "accuracy", "brier", "calibration_error"):
        assert judged.metrics[figure] is None
    assert judged.metrics["folds_that_keep_everything"] == 4
    assert "are false positives" in judged.metrics["keep_everything"]
    assert judged.classifier.keep_everything


def test_no_segment():
    judged = judge(random_table(2).rows(slice(0)))
    assert judged.probability.shape == (0,)
    assert judged.metrics["segments"] == 0
    assert judged.metrics["accuracy"] is None
    assert judged.metrics["number_of_folds"] == 0


@pytest.mark.parametrize("folds", ["scene", "image", "leave_one_out", "published"])
def test_a_bound_on_lost_segments_is_about_kept(folds):
    table = random_table(3, segments=300, scenes=8)
    true = table.iou > 0
    lost = {}
    for bound in (0.1, 0.4, 1.0):
        judged = judge(table, folds=folds, max_lost=bound)
        lost[bound] = (judged.removed & true).sum() / true.sum()
        assert lost[bound] <= bound + 0.05
    assert lost[0.1] < lost[0.4]
    assert lost[1.0] == 1.0  # all may go, all go


def test_the_point_of_a_fold_does_not_know_its_segments():
    table = random_table(4, segments=200)
    out = table.image < 3
    before = judge(table, max_lost=0.2)
    table.iou[out] = np.where(table.iou[out] == 0, 0.7, 0.0)
    after = judge(table, max_lost=0.2)
    np.testing.assert_array_equal(after.removed[out], before.removed[out])


def test_two_scenes_cannot_choose_a_point():
    judged = judge(random_table(5, scenes=2), max_lost=0.5)
    assert not judged.removed.any()


def test_figures_are_those_of_the_segments_judged():
    table = random_table(6)
    table.iou[table.image >= 3] = 0  # true segments in scene 0 alone: it cannot be judged
    judged = judge(table)
    rest = table.image >= 3
    assert judged.metrics["kept_unjudged"] == (~rest).sum()
    assert judged.metrics["brier"] == pytest.approx(
        ((judged.probability[rest] - 1) ** 2).mean(), abs=1e-9
    )
    assert not judged.removed[~rest].any()
