import json

import numpy as np
import pytest
from scipy.special import logit

from meta_ood.meta_classification import CLASSIFIERS, cross_validate, fit, quality
from meta_ood.meta_classification.explanation import (
    GROUPS,
    ablations,
    coefficient_intervals,
    contributions,
    entry_order,
    explain,
    feature_groups,
    path_quality,
    reasons,
)
from segment_tables import random_table, reference_table


def test_the_75_features_fall_into_the_groups():
    table, _ = reference_table("A_laf", "base")
    groups = feature_groups(table.feature_names)
    assert list(groups) == list(GROUPS)
    assert sorted(i for columns in groups.values() for i in columns) == list(range(75))
    assert [len(columns) for columns in groups.values()] == [10, 10, 10, 5, 2, 19, 19]


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
    order = entry_order(scaled, false)
    assert order[:2] == [2, 5]
    assert sorted(order) == [0, 1, 2, 3, 5]


def test_the_whole_path_is_the_cross_validation():
    table = random_table(7)
    false = table.iou == 0
    first, whole = path_quality(table, [1, 5])
    assert whole["auroc"] == pytest.approx(
        quality.auroc(cross_validate(table, "scene"), false), abs=1e-6
    )
    assert first["auroc"] > 0.6


def test_ablations_by_hand():
    table, _ = reference_table("B_fs", "trained")
    rows = {row["group"]: row for row in ablations(table, "scene")}
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
        expected = quality.auroc(cross_validate(part, "scene"), table.iou == 0)
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
