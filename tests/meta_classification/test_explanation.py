import json

import numpy as np
import pytest
import sklearn.linear_model
from scipy.special import logit

from meta_ood.meta_classification import CLASSIFIERS, fit, out_of_fold, quality
from meta_ood.meta_classification.explanation import (
    GROUPS,
    ablations,
    coefficient_intervals,
    contributions,
    explain,
    feature_groups,
    lars_path,
    path_quality,
    reasons,
)
from meta_ood.meta_classification.features import Scaling, describe_feature
from meta_ood.meta_classification.folds import assign_folds
from meta_ood.segments.features import feature_names
from segment_tables import random_table, reference_table


def test_the_75_features_fall_into_the_groups():
    table, _ = reference_table("A_laf", "base")
    groups = feature_groups(table.feature_names)
    assert [*groups, "scores"] == list(GROUPS)
    assert sorted(i for columns in groups.values() for i in columns) == list(range(75))
    assert [len(columns) for columns in groups.values()] == [10, 10, 10, 5, 2, 19, 19]


def test_every_feature_has_words_of_its_own():
    classes = [f"thing {c}" for c in range(19)]
    words = [describe_feature(name, classes) for name in feature_names(19)]
    assert len(set(words)) == 75
    assert not set(words) & set(feature_names(19))
    assert "mean probability of 'thing 8'" in words
    assert describe_feature("ndist1", ["road", "train"]) == "share of neighbouring pixels that are 'train'"
    assert describe_feature("cprob7") == "mean probability of 'class 7'"
    assert describe_feature("E_var_bd") == "variance of the entropy on the boundary"
    assert describe_feature("max_logit_var_rel_in") == ("variance of the score max_logit inside, times relative size")
    assert feature_groups(["max_logit_in", "E_in", "mine"]) == {"entropy": [1], "scores": [0], "other": [2]}
    assert describe_feature("mine") == "mine"


def test_reasons_are_the_strongest_contributions():
    names = ["S", "E", "D", "V", "mean_x"]
    found = reasons(np.array([0.1, -2.0, 0.0, 0.3, 0.2]), np.array([7.0, 0.5, 1.0, 2.0, 3.0]), names)
    assert found[0] == {"feature": "E", "description": "mean entropy", "value": 0.5, "log_odds": -2.0}
    assert [reason["feature"] for reason in found] == ["E", "V", "mean_x"]


def test_contributions_add_up_to_the_log_odds():
    table = random_table(0)
    fitted = fit(table)
    total = contributions(fitted, table).sum(axis=1) + fitted.bias
    np.testing.assert_allclose(total, logit(fitted.probability(table)), atol=1e-9)


@pytest.mark.parametrize("name", sorted(CLASSIFIERS))
def test_the_feature_that_matters_contributes_most(name):
    table = random_table(1, segments=400)
    share = np.abs(contributions(fit(table, name), table)).mean(axis=0)
    assert share.argmax() == 0


def test_a_contribution_is_what_the_mean_would_change():
    table = random_table(2, segments=200)
    fitted = fit(table, "gradient_boosted_trees")
    part = contributions(fitted, table)[:, 1]
    table_at_mean = random_table(2, segments=200)
    table_at_mean.features[:, 1] = fitted.mean[1]
    expected = logit(fitted.probability(table)) - logit(fitted.probability(table_at_mean))
    np.testing.assert_allclose(part, expected, atol=1e-9)


def test_nothing_contributes_where_everything_is_kept():
    table = random_table(3)
    table.iou[:] = 0
    assert not contributions(fit(table), table).any()
    assert reasons(np.zeros(5), table.features[0], table.feature_names) == []


def test_intervals_cover_the_weights_and_shrink_with_more_images():
    table = random_table(4, segments=400, scenes=40)
    low, high = coefficient_intervals(table, samples=60)
    weights = fit(table).weights
    assert ((low < weights) & (weights < high)).all()
    assert low[0] > 0  # the feature that matters
    few = table.rows(table.image < 30)
    low_few, high_few = coefficient_intervals(few, samples=60)
    assert (high_few - low_few).mean() > (high - low).mean()
    again = coefficient_intervals(table, samples=60)
    np.testing.assert_array_equal(again[0], low)
    assert not np.array_equal(coefficient_intervals(table, samples=60, seed=1)[0], low)


def test_no_interval_where_one_image_has_all_true_segments():
    table = random_table(5)
    table.iou[:] = np.where(table.image == table.image[0], 0.5, 0.0)
    one = table.rows(np.isin(table.image, [table.image[0], table.image[-1]]))
    low, _ = coefficient_intervals(one, samples=4)
    assert np.isfinite(low).all()
    only = table.rows(table.image == table.image[0])
    assert np.isnan(coefficient_intervals(only, samples=2)[0]).all()


def test_features_enter_by_their_worth():
    rng = np.random.default_rng(6)
    scaled = rng.normal(size=(300, 6))
    scaled[:, 4] = 0
    false = 3 * scaled[:, 2] + 1.5 * scaled[:, 5] + rng.normal(size=300) > 0
    order, _ = lars_path(scaled, false.astype(float))
    assert order[:2] == [2, 5]
    assert sorted(order) == [0, 1, 2, 3, 5]


@pytest.mark.parametrize("case", ["A_laf", "B_fs", "wide", "signs", "spanned"])
def test_columns_that_entered_are_equally_correlated(case):
    rng = np.random.default_rng(7)
    if case == "wide":
        scaled, target = rng.normal(size=(30, 50)), rng.normal(size=30)
    elif case == "signs":  # correlated columns: coefficients change their signs along the path
        scaled = rng.normal(size=(100, 5)) @ rng.normal(size=(5, 12))
        scaled += 0.3 * rng.normal(size=(100, 12))
        target = rng.normal(size=100) + scaled[:, 0]
    elif case == "spanned":  # the second of two almost equal columns never enters, and the path goes on
        scaled = np.repeat(rng.normal(size=(60, 8)), 2, axis=1) + 1e-5 * rng.normal(size=(60, 16))
        target = rng.normal(size=60)
    else:
        table, _ = reference_table(case, "trained")
        scaled = Scaling.of(table.features)(table.features)
        target = (table.iou == 0).astype(float)
    if case not in ("A_laf", "B_fs"):
        scaled = (scaled - scaled.mean(0)) / scaled.std(0)
    order, path = lars_path(scaled, target)
    assert len(set(order)) == len(order) == len(path)
    residual = target - target.mean()
    slack = 1e-5 if case == "spanned" else 1e-9  # columns that never enter may be correlated a little more
    for step, coefficients in enumerate(path):
        correlation = np.abs(scaled.T @ (residual - scaled @ coefficients)) / len(target)
        active = correlation[order[: step + 1]]
        np.testing.assert_allclose(active, active[0], atol=1e-9)
        assert correlation.max() <= active[0] + slack
    # the path ends at the least squares fit, and begins as the (correct) lasso path does
    np.testing.assert_allclose(correlation, 0, atol=max(slack, 1e-7))
    _, _, lasso = sklearn.linear_model.lars_path(scaled, residual, method="lasso", max_iter=2)
    np.testing.assert_allclose(path[:2], lasso.T[1:3], atol=1e-6)
    if case == "signs":
        assert (np.sign(path[1:]) * np.sign(path[:-1]) < 0).any()


def test_the_whole_path_is_the_cross_validation():
    table = random_table(7)
    false = table.iou == 0
    first, whole = path_quality(table.features, false, assign_folds(table, "scene"), [1, 5])
    assert whole["auroc"] == pytest.approx(quality.auroc(out_of_fold(table, "scene").probability, false), abs=1e-6)
    assert first["auroc"] > 0.6


def test_ablations_by_hand():
    table, _ = reference_table("B_fs", "trained")
    fold = assign_folds(table, "scene")
    found = ablations(table.features, table.feature_names, table.iou == 0, fold)
    rows = {row["group"]: row for row in found}
    size = feature_groups(table.feature_names)["size"]
    for key, keep in (("auroc_alone", size), ("auroc_without", np.delete(np.arange(75), size))):
        part = random_table(0)
        part = type(part)(
            table.image_ids,
            table.scenes,
            table.image,
            table.features[:, keep],
            tuple(table.feature_names[k] for k in keep),
            table.iou,
        )
        expected = quality.auroc(out_of_fold(part, "scene").probability, table.iou == 0)
        assert rows["size"][key] == pytest.approx(expected, abs=1e-6)


def test_explain_is_plain_and_sorted():
    table = random_table(8)
    found = explain(table, "leave_one_out", samples=5, seed=0)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    weights = [abs(row["weight"]) for row in found["coefficients"]]
    assert weights == sorted(weights, reverse=True)
    assert found["coefficients"][0]["feature"] == found["path"]["order"][0] == "f0"
    assert [row["features"] for row in found["path"]["quality"]] == [1, 2, 3, 5]
    assert "low" not in explain(table, "scene", samples=0, seed=0)["coefficients"][0]


def test_one_kind_of_segment_has_nothing_to_explain():
    table = random_table(9)
    table.iou[:] = 0
    assert explain(table, "scene", samples=5, seed=0) == {"degenerate": {}}
    assert explain(table.rows(slice(0)), "scene", 5, 0) == {"degenerate": {}}
