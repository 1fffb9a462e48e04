"""Alarms on what is known, from curves made by hand."""

import csv
import io

import numpy as np
import pytest

from meta_ood.report import plots
from meta_ood.report.known_alarms import known_alarms, known_alarms_csv
from meta_ood.report.page import report_page
from meta_ood.report.results import Evaluation, Results


def evaluation(variant: str, dataset: str, threshold: float) -> Evaluation:
    """`fs` finds 80 % of the OoD pixels at `threshold`; `val` has two classes whose shares are 1 - t and 1 - t^2."""
    grid = np.arange(1, 200) / 200
    thresholds = np.append(-np.inf, grid)
    curves = {
        "interior": {
            "threshold": thresholds,
            "road": np.append(1000, 1000 * (1 - grid)),
            "person": np.append(50, 50 * (1 - grid**2)),
        },
        "components": {
            "threshold": np.repeat([0.25, 0.5, 0.75], 2),
            "least_size": np.tile([0, 50], 3),
            "false_segments": np.array([80, 9, 40, 8, 20, 7]),
        },
    }
    if dataset == "fs":
        curves["pr"] = {
            "recall": np.array([0.5, 0.79, 0.8, 1.0]),
            "precision": np.full(4, 0.5),
            "threshold": np.array([0.95, threshold + 0.01, threshold, 0.1]),
        }
        del curves["components"]
    return Evaluation("net", variant, dataset, {"frames": 10}, curves)


@pytest.fixture
def results() -> Results:
    found = [evaluation(v, d, t) for v, t in (("baseline", 0.375), ("ood_trained", 0.6)) for d in ("fs", "val")]
    return Results(("net",), ("baseline", "ood_trained"), ("val", "fs"), {one.key: one for one in found})


def test_each_variant_has_the_threshold_of_its_own_recall(results: Results) -> None:
    found = {(one.evaluation.variant, one.evaluation.dataset): one for one in known_alarms(results)}
    assert {one.source for one in found.values()} == {"fs"}
    for variant, threshold, false in (("baseline", 0.375, 6.0), ("ood_trained", 0.6, 3.2)):
        one = found[variant, "val"]
        assert one.threshold == threshold
        assert one.false_segments == pytest.approx(false)  # linear between the thresholds of the curve
        assert one.shares == pytest.approx({"road": 1 - threshold, "person": 1 - threshold**2}, abs=1e-9)
        assert found[variant, "fs"].false_segments is None
    rows = list(csv.DictReader(io.StringIO(known_alarms_csv(known_alarms(results)))))
    value = {(r["variant"], r["dataset"], r["quantity"]): float(r["value"]) for r in rows}
    assert value["ood_trained", "val", "false segments a frame"] == pytest.approx(3.2)
    assert value["baseline", "fs", "person"] == pytest.approx(1 - 0.375**2)


def test_a_bar_for_each_class_and_variant(results: Results) -> None:
    val, of_fs = plots.alarm_plots(known_alarms(results), "a")
    assert (val.title, of_fs.title) == ("net, val", "net, fs")
    assert "ood_trained, person: 64.0 %" in val.description
    assert "person" in val.contents
    page = report_page("t", results, {})
    assert 'id="alarms"' in page
    assert "<td>0.6</td><td>3.20</td>" in page


def test_without_an_ood_set_there_are_none(results: Results) -> None:
    ordinary = {key: one for key, one in results.evaluations.items() if key[2] == "val"}
    assert known_alarms(Results(("net",), ("baseline", "ood_trained"), ("val",), ordinary)) == []
