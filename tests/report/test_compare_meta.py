import dataclasses

import numpy as np
import pytest
from click.testing import CliRunner

from meta_ood import cli
from meta_ood.meta_classification import CLASSIFIERS, fit, out_of_fold
from meta_ood.meta_classification.cross_validation import cross_validate
from meta_ood.report.compare_meta import as_markdown, compare
from meta_ood.segments import SegmentTable, table_file
from segment_tables import Table, random_table


def with_components(table: Table, missed: int = 0) -> SegmentTable:
    """Return the table with a component of its own for each true segment, and some missed ones."""
    true = np.flatnonzero(table.iou > 0)
    found = np.arange(len(true))
    image = np.append(table.image[true], np.zeros(missed, np.int64))
    columns = {f.name: getattr(table, f.name) for f in dataclasses.fields(table)}
    if "S" not in table.feature_names:
        columns["features"] = np.column_stack([table.features, np.full(len(table.iou), 10.0)])
        columns["feature_names"] = (*table.feature_names, "S")
    return SegmentTable(
        **columns,
        component_image=image,
        component_size=np.full(len(image), 10),
        overlaps=np.stack([true, found, np.full(len(true), 9)], axis=1),
    )


def test_rows_are_cross_validations_and_transfers():
    tables = {
        "a": with_components(random_table(0, segments=120), missed=3),
        "b": with_components(random_table(1, segments=90)),
    }
    rows = compare(tables, ["logistic_regression", "gradient_boosted_trees"], most_fits=10)
    names = {(r.trained_on, r.tested_on, r.classifier, r.folds) for r in rows}
    assert len(names) == len(rows) == 2 * (4 + 2) + 2 * 2
    by_name = {(r.trained_on, r.tested_on, r.classifier, r.folds): r for r in rows}

    row = by_name["a", "a", "gradient_boosted_trees", "scene"]
    removed = out_of_fold(tables["a"], "scene", "gradient_boosted_trees").probability > 0.5
    false = tables["a"].iou == 0
    assert row.removed_false == (removed & false).sum()
    assert row.lost_true == (removed & ~false).sum()
    assert row.false == false.sum()
    # every true segment has a component of its own, covered by 9 of 11 pixels; 3 are missed anyway
    before, after = (
        2 * (~false & k).sum() / (120 + 3 - (~k & false).sum() + (~false & k).sum())
        for k in (np.ones(120, bool), ~removed)
    )
    assert row.segment_f1 == pytest.approx((before, after))
    assert row.component_f1 == pytest.approx((before, after))

    row = by_name["a", "b", "logistic_regression", ""]
    probability = fit(tables["a"]).probability(tables["b"])
    assert row.brier == pytest.approx(np.mean((probability - (tables["b"].iou == 0)) ** 2))
    assert row.segments == 90


def test_a_bound_on_lost_segments():
    tables = {"a": with_components(random_table(5, segments=200)), "b": with_components(random_table(6, segments=150))}
    rows = compare(tables, ["logistic_regression"], ["scene"], max_lost=0.1)
    judged = cross_validate(tables["a"], max_lost=0.1)
    assert rows[0].removed_false == judged.metrics["removed_false"]
    assert rows[0].lost_true == judged.metrics["lost_true"]
    # carried over: the point that loses a tenth of the 'a' segments when judged by scene
    true = tables["a"].iou > 0
    point = np.sort(out_of_fold(tables["a"]).probability[true])[::-1][int(0.1 * true.sum())]
    removed = fit(tables["a"]).probability(tables["b"]) > point
    assert rows[2].lost_true == (removed & (tables["b"].iou > 0)).sum()
    assert rows[2].removed_false == (removed & (tables["b"].iou == 0)).sum()
    at_half = compare(tables, ["logistic_regression"], ["scene"])
    assert rows[0].lost_true < at_half[0].lost_true


def test_leave_one_out_of_other_classifiers_where_it_is_bearable():
    table = {"a": with_components(random_table(2, segments=12))}
    schemes = {(r.classifier, r.folds) for r in compare(table, folds=["leave_one_out"])}
    assert schemes == {(name, "leave_one_out") for name in CLASSIFIERS}


def test_nothing_to_learn_is_said():
    table = random_table(3)
    table.iou[:] = 0
    tables = {"a": with_components(table), "b": with_components(random_table(4))}
    rows = compare(tables, ["logistic_regression"], ["scene"])
    assert [row.kept_without_classifier for row in rows] == [60, 0, 60, 0]
    text = as_markdown(rows)
    assert "| 60 (60 without classifier) | 60 | 0 | 0 | 0.000 → 0.000 | 0.000 → 0.000 | – |" in text


def test_the_command(tmp_path):
    for name, seed in (("one", 5), ("two", 6)):
        table_file.write_table(tmp_path / f"{name}.h5", with_components(random_table(seed)), {})
    files = [str(tmp_path / f"{name}.h5") for name in ("one", "two")]
    chosen = ["--classifier", "logistic_regression", "--folds", "scene"]
    shown = CliRunner().invoke(cli.main, ["compare-meta", *files, *chosen])
    assert shown.exit_code == 0, shown.output
    assert "| one → two | logistic_regression | – | 60 |" in shown.output
    assert "one: logistic_regression, folds by scene" in shown.stderr  # what takes long names what it does
    out = tmp_path / "new" / "table.md"
    CliRunner().invoke(cli.main, ["compare-meta", *files, *chosen, "--out", str(out)])
    assert out.read_text() in shown.output
    bound = CliRunner().invoke(cli.main, ["compare-meta", *files, *chosen, "--max-lost", "0"])
    assert bound.exit_code == 0, bound.output
    assert bound.output != shown.output
    wrong = CliRunner().invoke(cli.main, ["compare-meta", files[0], "--folds", "video"])
    assert wrong.exit_code == 2
    assert "unknown folds 'video'" in wrong.output
