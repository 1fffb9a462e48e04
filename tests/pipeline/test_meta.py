import csv
import dataclasses
import json
import logging
from pathlib import Path

import numpy as np
import pytest

from meta_ood import config
from meta_ood.config import OperatingPointParams
from meta_ood.data.context import Machine
from meta_ood.meta_classification import MetaClassifier, fit, out_of_fold
from meta_ood.meta_classification.cross_validation import cross_validate_iou
from meta_ood.pipeline import meta
from meta_ood.segments import SegmentTable, table_file
from segment_tables import random_table

PARAMS = config.load(Path(__file__).parents[2] / "params.yaml")


def segment_table(seed: int = 0) -> SegmentTable:
    table = random_table(seed)
    # sizes, in the order of the first feature
    table.features[:, 0] = 1 + np.argsort(np.argsort(table.features[:, 0]))
    table = dataclasses.replace(table, feature_names=("S", *table.feature_names[1:]))
    return SegmentTable(
        **{f.name: getattr(table, f.name) for f in dataclasses.fields(table)},
        component_image=np.zeros(0, np.int64),
        component_size=np.zeros(0, np.int64),
        overlaps=np.zeros((0, 3), np.int64),
    )


def scored_table(seed: int, **columns) -> SegmentTable:
    score = np.random.default_rng(seed).uniform(0.5, 1, 60)
    return dataclasses.replace(segment_table(seed), segment_score=score, threshold=0.5, **columns)


def test_features_of_scores_are_used_only_if_they_are_asked_for(tmp_path):
    table = segment_table()
    run(tmp_path / "a", table)
    names = (*table.feature_names, "knn", "knn_in")
    more = dataclasses.replace(table, features=np.c_[table.features, table.iou, table.iou], feature_names=names)
    plain, _ = run(tmp_path / "b", more)
    for path in (tmp_path / "a").rglob("meta/**/*.*"):
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()
    with_scores, _ = run(tmp_path / "c", more, features=("dispersion", "scores"))
    assert MetaClassifier.read(with_scores / "classifier.json").feature_names == names
    auroc = [json.loads((folder / "metrics.json").read_text())["auroc"] for folder in (plain, with_scores)]
    assert auroc[0] < auroc[1]
    with pytest.raises(ValueError, match=r"d\.h5: no features of scores, which meta\.features asks for"):
        run(tmp_path / "d", table, features=("dispersion", "scores"))


def without_segments(table: SegmentTable) -> SegmentTable:
    """Return the same frames without a segment on them."""
    columns = ("image", "features", "iou", "segment_box", "segment_score")
    return dataclasses.replace(table, **{name: getattr(table, name)[:0] for name in columns})


def run(folder, table, **settings):
    """Run the stage on one set "d"; return its folder and what was logged."""
    out, logged = run_sets(folder, {"d": table}, **settings)
    return out / "d", logged


def run_sets(folder, tables, **settings):
    for name, table in tables.items():
        table_file.write_table(folder / "segments" / f"{name}.h5", table, {"class_names": ["road", "car"]})
    settings = {"max_lost": None, "train_on": None, **settings}
    point = settings.pop("budget", None)
    own = {"meta": PARAMS.meta.model_copy(update=settings), "evaluation_sets": tuple(tables), "operating_point": point}
    logged = {}
    meta.run(
        PARAMS.model_copy(update=own),
        network="n",
        variant="baseline",
        segments=folder / "segments",
        meta=folder / "meta",
        log=lambda values, step: logged.update(values),
        machine=Machine(),
    )
    return folder / "meta", logged


def test_writes_the_out_of_fold_probabilities(tmp_path):
    table = segment_table()
    out, logged = run(tmp_path, table, operating_point=0.6)
    with (out / "probabilities.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[:5] == ["segment", "image_id", "scene", "probability", "removed"]
    estimated = np.array([float(r["estimated_iou"]) for r in rows])
    np.testing.assert_allclose(estimated, cross_validate_iou(table, "scene"), atol=1e-9)
    assert [int(r["segment"]) for r in rows] == list(range(60))
    assert [r["image_id"] for r in rows] == [table.image_ids[i] for i in table.image]
    assert [r["scene"] for r in rows] == [table.scenes[i] for i in table.image]
    probability = np.array([float(r["probability"]) for r in rows])
    np.testing.assert_allclose(probability, out_of_fold(table, "scene").probability, atol=1e-9)
    np.testing.assert_array_equal([int(r["removed"]) for r in rows], probability > 0.6)
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["removed"] == sum(int(r["removed"]) for r in rows)
    assert logged["meta/d/auroc"] == metrics["auroc"]
    explanation = json.loads((out / "explanation.json").read_text())
    assert {row["feature"] for row in explanation["coefficients"]} == set(table.feature_names)
    classifier = MetaClassifier.read(out / "classifier.json")
    assert classifier.operating_point == 0.6
    assert classifier.feature_names == table.feature_names
    assert (classifier.network, classifier.variant) == ("n", "baseline")
    assert classifier.class_names == ("road", "car")
    assert classifier.differing_decisions == metrics["differing_decisions"]


def test_same_table_same_bytes(tmp_path):
    read = []
    for name in "ab":
        (tmp_path / name).mkdir()
        out, _ = run(tmp_path / name, segment_table())
        read.append({p.name: p.read_bytes() for p in out.iterdir()})
    assert read[0] == read[1]
    assert set(read[0]) == {"classifier.json", "probabilities.csv", "metrics.json", "explanation.json"}


def test_only_false_segments_say_why_nothing_goes(tmp_path, caplog):
    table = segment_table()
    table.iou[:] = 0
    with caplog.at_level(logging.WARNING, "meta_ood"):
        out, logged = run(tmp_path, table)
    assert "all" in caplog.text
    assert "are false positives" in caplog.text
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["removed"] == 0
    assert metrics["auroc"] is None
    assert "meta/d/auroc" not in logged


@pytest.mark.parametrize("folds", ["published", "leave_one_out"])
def test_no_segment(tmp_path, folds):
    out, _ = run(tmp_path, without_segments(segment_table()), folds=folds)
    assert (out / "probabilities.csv").read_text().count("\n") == 1
    assert json.loads((out / "metrics.json").read_text())["segments"] == 0


def test_one_classifier_for_several_sets(tmp_path):
    tables = {"objects": segment_table(0), "ordinary": segment_table(1), "other": segment_table(2)}
    tables["ordinary"].iou[:] = 0
    scenes = tuple(f"t{name}" for name in tables["ordinary"].scenes)
    tables["ordinary"] = dataclasses.replace(tables["ordinary"], scenes=scenes)
    out, logged = run_sets(tmp_path, tables, train_on=("objects", "ordinary"))
    pooled = SegmentTable.concatenate([tables["objects"], tables["ordinary"]])
    # training sets are judged out of fold, others by the classifier fitted on all training segments
    expected = [*np.split(out_of_fold(pooled, "scene").probability, [60]), fit(pooled).probability(tables["other"])]
    for (name, table), probability in zip(tables.items(), expected, strict=True):
        with (out / name / "probabilities.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        np.testing.assert_allclose([float(row["probability"]) for row in rows], probability, atol=1e-9)
        assert [row["scene"] for row in rows] == [table.scenes[i] for i in table.image]
        metrics = json.loads((out / name / "metrics.json").read_text())
        assert metrics["removed"] == (probability > 0.5).sum() == logged[f"meta/{name}/removed"]
        assert metrics["false"] == (table.iou == 0).sum()
        assert {path.name for path in (out / name).iterdir()} == {"probabilities.csv", "metrics.json"}
    # false alarms of ordinary frames are removed now
    assert json.loads((out / "ordinary" / "metrics.json").read_text())["removed"] > 20
    classifier = MetaClassifier.read(out / "classifier.json")
    np.testing.assert_allclose(classifier.weights, fit(pooled).weights)
    assert classifier.segments == 120


def test_without_any_training_set_nothing_is_fitted(tmp_path):
    out, _ = run_sets(tmp_path, {"a": segment_table(0)}, train_on=())
    assert MetaClassifier.read(out / "classifier.json").fit_failure == "no training segment"
    assert json.loads((out / "a" / "metrics.json").read_text())["removed"] == 0


@pytest.mark.parametrize("train_on", [("objects",), ()])
def test_a_budget_of_false_alarms_decides(tmp_path, train_on):
    objects, ordinary = scored_table(0), scored_table(1)
    ordinary.features[:], ordinary.iou[:] = objects.features[::-1], 0
    first = int(np.flatnonzero(objects.iou > 0)[0])
    component = {"component_image": objects.image[[first]], "component_size": np.ones(1, np.int64)}
    objects = dataclasses.replace(objects, **component, overlaps=np.array([[first, 0, 1]]))
    tables = {"objects": objects, "ordinary": ordinary}
    budget = OperatingPointParams(false_alarms=0.5, calibrate_on=("ordinary",), unit="frame")
    out, _ = run_sets(tmp_path, tables, train_on=train_on, budget=budget)
    chosen = json.loads((out / "promise.json").read_text())

    # severity: -ln P(false) of the shipped classifier; made of score and size without one
    def of_score(table):
        return (table.segment_score - 0.5) * np.sqrt(table.segment_size)

    severity = -np.log(fit(objects).probability(ordinary)) if train_on else of_score(ordinary)
    assert chosen["severity"] == ("-ln P(false)" if train_on else "(mean score - threshold) √size")
    assert chosen["alarms"] == len(set(ordinary.image[severity >= chosen["threshold"]].tolist())) == 2
    assert set(chosen["tables"]) == {"ordinary"}
    severities = {"objects": -np.log(out_of_fold(objects).probability) if train_on else of_score(objects)}
    severities["ordinary"] = severity
    for name, own in severities.items():
        with (out / name / "probabilities.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        np.testing.assert_allclose([float(row["severity"]) for row in rows], own, rtol=1e-8)
        removed = [row["removed"] == "1" for row in rows]
        np.testing.assert_array_equal(removed, own < chosen["threshold"])
        about = json.loads((out / name / "metrics.json").read_text())
        assert about["removed"] == sum(removed)
        assert about["promise"]["is_calibration"] == (name == "ordinary")
    assert (out / "objects" / "froc.csv").read_text().startswith("threshold,recall,alarm_rate")
    assert not (out / "ordinary" / "froc.csv").exists()
    if train_on:
        assert MetaClassifier.read(out / "classifier.json").operating_point == pytest.approx(
            np.exp(-chosen["threshold"])
        )


def test_a_budget_where_everything_that_trains_is_out_of_distribution(tmp_path, caplog):
    # no false segment teaches a classifier, so that the score is the severity, and the promise is made all the same
    tables = {"objects": scored_table(0, iou=np.ones(60)), "ordinary": scored_table(1, iou=np.zeros(60))}
    budget = OperatingPointParams(false_alarms=0.5, calibrate_on=("ordinary",), unit="frame")
    with caplog.at_level(logging.WARNING, "meta_ood"):
        out, _ = run_sets(tmp_path, tables, train_on=("objects",), budget=budget)
    assert "none of 60 training segments is a false positive" in caplog.text
    assert "their score decides" in caplog.text
    chosen = json.loads((out / "promise.json").read_text())
    assert chosen["severity"] == "(mean score - threshold) √size"
    false = tables["ordinary"].excess >= chosen["threshold"]
    assert chosen["alarms"] == len(set(tables["ordinary"].image[false].tolist())) > 0


def test_a_budget_where_no_ordinary_frame_has_a_segment(tmp_path, caplog):
    tables = {"objects": scored_table(0), "ordinary": without_segments(scored_table(1))}
    budget = OperatingPointParams(false_alarms=0.5, calibrate_on=("ordinary",), unit="frame")
    with caplog.at_level(logging.WARNING, "meta_ood"):
        out, _ = run_sets(tmp_path, tables, train_on=("objects",), budget=budget)
    assert "every segment is kept: 0 of 12 frames of ordinary have a false alarm then" in caplog.text
    assert json.loads((out / "promise.json").read_text())["threshold"] == 0
    assert json.loads((out / "objects" / "metrics.json").read_text())["removed"] == 0
