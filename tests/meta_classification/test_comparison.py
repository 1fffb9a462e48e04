import dataclasses

import numpy as np
import pytest
from click.testing import CliRunner

from meta_classification.segments import random_table
from meta_ood import cli, storage
from meta_ood.meta_classification import CLASSIFIERS, cross_validate, fit
from meta_ood.meta_classification.comparison import as_markdown, compare
from meta_ood.segments import SegmentTable


def test_rows_are_cross_validations_and_transfers():
    tables = {"a": random_table(0, segments=120), "b": random_table(1, segments=90)}
    rows = compare(tables, ["logistic_regression", "gradient_boosted_trees"], most_fits=10)
    names = {(r.trained_on, r.tested_on, r.classifier, r.folds) for r in rows}
    assert len(names) == len(rows) == 2 * (4 + 2) + 2 * 2
    by_name = {(r.trained_on, r.tested_on, r.classifier, r.folds): r for r in rows}

    row = by_name["a", "a", "gradient_boosted_trees", "scene"]
    removed = cross_validate(tables["a"], "scene", "gradient_boosted_trees") > 0.5
    false = tables["a"].iou == 0
    assert row.removed_false == (removed & false).sum()
    assert row.lost_true == (removed & ~false).sum()
    assert row.false == false.sum()

    row = by_name["a", "b", "logistic_regression", ""]
    probability = fit(tables["a"]).probability(tables["b"])
    assert row.brier == pytest.approx(np.mean((probability - (tables["b"].iou == 0)) ** 2))
    assert row.segments == 90


def test_leave_one_out_of_other_classifiers_where_it_is_bearable():
    table = {"a": random_table(2, segments=12)}
    schemes = {(r.classifier, r.folds) for r in compare(table, folds=["leave_one_out"])}
    assert schemes == {(name, "leave_one_out") for name in CLASSIFIERS}


def test_nothing_to_learn_is_said():
    table = random_table(3)
    table.iou[:] = 0
    rows = compare({"a": table, "b": random_table(4)}, ["logistic_regression"], ["scene"])
    assert [row.kept_unjudged for row in rows] == [60, 0, 60, 0]
    text = as_markdown(rows)
    assert "| 60 (60 unjudged) | 60 | 0 | 0 | – |" in text


def test_the_command(tmp_path):
    for name, seed in (("one", 5), ("two", 6)):
        table = random_table(seed)
        storage.write_table(
            tmp_path / f"{name}.h5",
            SegmentTable(
                **{f.name: getattr(table, f.name) for f in dataclasses.fields(table)},
                component_image=np.zeros(0, np.int64),
                component_size=np.zeros(0, np.int64),
                overlaps=np.zeros((0, 3), np.int64),
            ),
            {},
        )
    files = [str(tmp_path / f"{name}.h5") for name in ("one", "two")]
    chosen = ["--classifier", "logistic_regression", "--folds", "scene"]
    shown = CliRunner().invoke(cli.main, ["compare-meta", *files, *chosen])
    assert shown.exit_code == 0, shown.output
    assert "| one → two | logistic_regression | – | 60 |" in shown.output
    out = tmp_path / "new" / "table.md"
    CliRunner().invoke(cli.main, ["compare-meta", *files, *chosen, "--out", str(out)])
    assert out.read_text() in shown.output
    wrong = CliRunner().invoke(cli.main, ["compare-meta", files[0], "--folds", "video"])
    assert wrong.exit_code == 2
    assert "unknown folds 'video'" in wrong.output
