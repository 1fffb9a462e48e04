import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import LeaveOneGroupOut
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from meta_ood.meta_classification import out_of_fold
from meta_ood.meta_classification.folds import assign_folds
from segment_tables import random_table, reference_table

CASES = [(case, tag) for case in ("A_laf", "B_fs") for tag in ("base", "trained")]


@pytest.mark.parametrize(("case", "tag"), CASES)
def test_published_folds_give_the_published_probabilities(case, tag):
    table, figures = reference_table(case, tag)
    probability = out_of_fold(table, "published").probability
    np.testing.assert_allclose(probability, figures["proba_fp"], atol=1e-3)
    np.testing.assert_array_equal(probability > 0.5, figures["kick"] == 1)


def liblinear():
    return make_pipeline(StandardScaler(), LogisticRegression(solver="liblinear", tol=1e-12, max_iter=10_000))


@pytest.mark.parametrize("folds", ["scene", "image", "leave_one_out"])
def test_out_of_fold_is_a_fit_without_the_fold(folds):
    table = random_table(0)
    false = table.iou == 0
    groups = {"scene": table.image // 3, "image": table.image, "leave_one_out": np.arange(len(false))}[folds]
    expected = np.zeros(len(false))
    for train, test in LeaveOneGroupOut().split(table.features, false, groups):
        model = liblinear().fit(table.features[train], false[train])
        expected[test] = model.predict_proba(table.features[test])[:, 1]
    np.testing.assert_allclose(out_of_fold(table, folds).probability, expected, atol=1e-6)


def test_what_is_left_out_has_no_influence():
    table = random_table(1)
    first = table.scenes[0]
    out = np.array([table.scenes[i] == first for i in table.image])
    before = out_of_fold(table, "scene").probability
    table.iou[out] = np.where(table.iou[out] == 0, 0.7, 0.0)
    after = out_of_fold(table, "scene").probability
    np.testing.assert_array_equal(after[out], before[out])
    assert np.abs(after[~out] - before[~out]).max() > 1e-3


def test_folds_are_numbered_by_first_appearance():
    table = random_table(2)
    assert set(assign_folds(table, "leave_one_out")) == set(range(60))
    backwards = table.rows(np.arange(60)[::-1])
    for folds in ("scene", "image"):
        fold = assign_folds(backwards, folds)
        assert fold[0] == 0
        assert (np.diff(fold) >= 0).all()
        assert (np.diff(fold) <= 1).all()
    with pytest.raises(ValueError, match="unknown folds 'video'; known: image, leave_one_out"):
        assign_folds(table, "video")


def test_a_single_scene_keeps_everything():
    found = out_of_fold(random_table(3, scenes=1))
    assert found.fit_failures == {0: "no training segment"}
    assert (found.probability == 0).all()


@pytest.mark.parametrize("folds", ["leave_one_out", "published"])
def test_the_only_true_segment_is_kept(folds):
    table = random_table(4)
    table.iou[:] = 0
    table.iou[7] = 0.4
    found = out_of_fold(table, folds)
    assert found.fit_failures == {7: "all 59 training segments are false positives"}
    assert found.probability[7] == 0
    assert (np.delete(found.probability, 7) > 0.5).all()


@pytest.mark.parametrize("folds", ["scene", "image", "leave_one_out", "published"])
@pytest.mark.parametrize("segments", [0, 1, 2])
def test_hardly_any_segment_is_no_error(folds, segments):
    table = random_table(5).rows(slice(segments))
    found = out_of_fold(table, folds)
    assert (found.probability == 0).all()
    assert set(found.fit_failures) == set(found.fold)


def test_published_folds_are_for_the_published_classifier():
    with pytest.raises(ValueError, match="are for logistic_regression, not 'nearest'"):
        out_of_fold(random_table(6), "published", "nearest")
