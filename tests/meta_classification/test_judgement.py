import numpy as np
import pytest

from meta_classification.segments import random_table, reference_table
from meta_ood.meta_classification import cross_validate
from meta_ood.meta_classification.judgement import judge


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
    assert judged.metrics["auroc"] is None
    assert judged.metrics["auprc"] is not None
    assert judged.metrics["folds_that_keep_everything"] == 4
    assert "are false positives" in judged.metrics["keep_everything"]
    assert judged.classifier.keep_everything


def test_no_segment():
    judged = judge(random_table(2).rows(slice(0)))
    assert judged.probability.shape == (0,)
    assert judged.metrics["segments"] == 0
    assert judged.metrics["accuracy"] is None
    assert judged.metrics["number_of_folds"] == 0
