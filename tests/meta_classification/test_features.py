import numpy as np
import pytest

from meta_ood.meta_classification.features import Scaling, degenerate_columns
from segment_tables import reference_table


def test_published_scaling():
    for case in ("A_laf", "B_fs"):
        for tag in ("base", "trained"):
            _, figures = reference_table(case, tag)
            scaling = Scaling.published(figures["X_raw"])
            np.testing.assert_allclose(scaling(figures["X_raw"]), figures["X"], atol=1e-9)
            np.testing.assert_allclose(Scaling.of(figures["X_raw"])(figures["X_raw"]), figures["X"], atol=1e-6)


@pytest.mark.parametrize("constant", [0.0, 0.1, 1e9, -3.3e-7])
def test_a_constant_column_becomes_exactly_zero(constant):
    features = np.full((37, 1), constant)
    scaling = Scaling.of(features)
    assert scaling.scale[0] == 0
    assert (scaling(features) == 0).all()
    assert (scaling(features + 5) == 0).all()


def test_degenerate_columns_are_named():
    rng = np.random.default_rng(0)
    a = rng.normal(size=20)
    with_nan = rng.normal(size=20)
    with_nan[3] = np.nan
    features = np.column_stack([a, rng.normal(size=20), -2 * a + 7, with_nan, np.ones(20)])
    assert degenerate_columns(features, ("a", "b", "c", "d", "e")) == {
        "c": "same as a up to scale and shift",
        "d": "1 of 20 values not finite, taken as mean",
        "e": "constant",
    }
    _, figures = reference_table("B_fs", "base")
    assert degenerate_columns(figures["X_raw"], list(figures["names"])) == {
        "S_rel_in": "same as S_rel up to scale and shift"
    }
