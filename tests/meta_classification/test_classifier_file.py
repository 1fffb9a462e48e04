import hashlib
import io
import json
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import skops.io
from sklearn.ensemble import RandomForestClassifier
from sklearn.naive_bayes import GaussianNB

from meta_ood.meta_classification import CLASSIFIERS, MetaClassifier, fit, quality
from segment_tables import random_table, reference_table


@pytest.mark.parametrize("name", sorted(CLASSIFIERS))
def test_there_and_back(tmp_path, name):
    table, _ = reference_table("B_fs", "trained")
    fitted = replace(fit(table, name), network="net", variant="new", class_names=("road", "car"))
    fitted = replace(fitted, differing_decisions=4)
    read = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        replace(fitted, model=fit(table, name).model).write(folder / "classifier.json")
        again = MetaClassifier.read(folder / "classifier.json")
        np.testing.assert_array_equal(again.probability(table), fitted.probability(table))
        assert replace(again, model=fitted.model, scaling=fitted.scaling) == fitted
        assert again.to_json() == fitted.to_json()
        read.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert read[0] == read[1]  # the same bytes
    linear = "logistic_regression" in name
    assert set(read[0]) == {"classifier.json", *([] if linear else ["classifier.skops"])}
    assert quality.auroc(fitted.probability(table), table.iou == 0) > 0.95


# what version 0.1 wrote for two features
VERSION_1 = {
    "format": "meta-ood meta classifier, version 1",
    "classifier": "logistic_regression",
    "operating_point": 0.25,
    "keep_everything": "",
    "score": "entropy",
    "threshold": 0.7,
    "features": [{"name": "E", "mean": 0.5, "scale": 0.25}, {"name": "S", "mean": 100, "scale": 50}],
    "model": {"bias": 0.5, "weights": {"E": -1.0, "S": 2.0}},
}


def test_files_of_version_1_are_read():
    old = MetaClassifier.from_json(json.dumps(VERSION_1))
    assert (old.operating_point, old.fit_failure, old.score, old.threshold) == (*(0.25, "", "entropy", 0.7),)
    table = replace(random_table(0), features=np.array([[1.0, 150.0]]), feature_names=("E", "S"))
    expected = 1 / (1 + np.exp(-(0.5 - 1.0 * 2 + 2.0 * 1)))
    assert old.probability(table) == pytest.approx(expected)
    kept = MetaClassifier.from_json(json.dumps({**VERSION_1, "keep_everything": "no segment"}))
    assert kept.fit_failure == "no segment"
    trees = {**VERSION_1, "classifier": "gradient_boosted_trees"}
    trees["model"] = {"bias": 0.0, "trees": []}
    with pytest.raises(ValueError, match=r"of version 0\.1 cannot be read: .*dvc repro meta"):
        MetaClassifier.from_json(json.dumps(trees))


def entry(values, key):
    """Return the container of a dotted key and its last part."""
    *parts, last = (int(p) if p.isdigit() else p for p in key.split("."))
    for part in parts:
        values = values[part]
    return values, last


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("format", "other"),
        ("classifier", "oracle"),
        ("classifier", "small_network"),
        ("operating_point", None),
        ("operating_point", float("nan")),
        ("operating_point", 1.5),
        ("operating_point", "0.5"),
        ("operating_point", True),
        ("threshold", float("inf")),
        ("class_names", "road"),
        ("segments", 1.5),
        ("features", {}),
        ("features.1.mean", float("nan")),
        ("features.1.mean", "3"),
        ("features.1.scale", float("inf")),
        ("features.1.scale", -1.0),
        ("features.1.scale", 1e-320),
        ("features.1.mean", 1e308),
        ("features.1.name", "f0"),
        ("model", None),
        ("model", []),
        ("model.bias", float("-inf")),
        ("model.weights.f1", float("nan")),
        ("model.weights.f1", [1.0]),
        ("model.weights.more", 1.0),
        ("more", 1.0),
    ],
)
def test_wrong_values_are_refused_with_file_and_key(tmp_path, key, value):
    values = json.loads(fit(random_table(3)).to_json())
    container, last = entry(values, key)
    container[last] = value
    path = tmp_path / "classifier.json"
    path.write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(ValueError, match="is not a meta classifier") as error:
        MetaClassifier.read(path)
    message = str(error.value)
    assert str(path) in message
    assert key.split(".")[0] in message


@pytest.mark.parametrize("key", ["features", "features.0.mean", "model.weights.f1", "score"])
def test_missing_keys_are_refused_by_name(key):
    values = json.loads(fit(random_table(3)).to_json())
    container, last = entry(values, key)
    del container[last]
    with pytest.raises(ValueError, match=f"{key.split('.')[0]}.*"):
        MetaClassifier.from_json(json.dumps(values))


@pytest.mark.parametrize(
    "text",
    [
        "weights: 1",
        "",
        "[]",
        "null",
        "[" * 100_000,
        '{"format": ' * 50_000,
        '{"operating_point": ' + "9" * 100_000 + "}",
        '{"threshold": 1e999}',
        "x" * (2**24 + 1),
    ],
    ids=["text", "empty", "list", "null", "deep", "deep keys", "digits", "1e999", "huge"],
)
def test_text_that_is_no_classifier_is_refused(tmp_path, text):
    path = tmp_path / "classifier.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"classifier\.json"):
        MetaClassifier.read(path)


def test_bytes_that_are_no_text_are_refused(tmp_path):
    path = tmp_path / "classifier.json"
    path.write_bytes(b"\xff\xfe{}")
    with pytest.raises(ValueError, match=r"classifier\.json: not a text file"):
        MetaClassifier.read(path)
    with pytest.raises(FileNotFoundError):
        MetaClassifier.read(tmp_path / "none.json")


def stored(estimator, name, tmp_path):
    """Write a classifier.json whose skops file holds `estimator`."""
    data = estimator if isinstance(estimator, bytes) else skops.io.dumps(estimator)
    values = json.loads(fit(random_table(4), name).to_json())
    values["model"] = hashlib.sha256(data).hexdigest()
    (tmp_path / "classifier.skops").write_bytes(data)
    (tmp_path / "classifier.json").write_text(json.dumps(values))
    return tmp_path / "classifier.json"


class Unknown:
    """A type that nobody trusts."""


def bomb():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("schema.json", b" " * 2**25)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: {"a": Unknown()}, "Unknown"),
        (lambda: GaussianNB().fit([[0], [1]], [0, 1]), "GaussianNB, expected a small_network"),
        (lambda: fit(random_table(5, features=3), "small_network").model.estimator, "features"),
        (lambda: b"PK no zip", "zip"),
        (bomb, "bytes unpacked"),
    ],
    ids=["unknown type", "other type", "other features", "damaged", "bomb"],
)
def test_a_stored_model_of_another_kind_is_refused_by_name(tmp_path, make, message):
    path = stored(make(), "small_network", tmp_path)
    with pytest.raises(ValueError, match=message) as error:
        MetaClassifier.read(path)
    assert "classifier.skops is not a stored small_network" in str(error.value)


@pytest.mark.parametrize(
    ("column", "value"), [("left", 0), ("right", 10_000), ("feature_idx", 99), ("feature_idx", -1)]
)
def test_trees_that_point_outside_are_refused(tmp_path, column, value):
    # scikit-learn's compiled code would follow them: out of bounds, or for ever
    estimator = fit(random_table(6, segments=300), "gradient_boosted_trees").model.estimator
    estimator._predictors[3][0].nodes[column][0] = value
    path = stored(estimator, "gradient_boosted_trees", tmp_path)
    with pytest.raises(ValueError, match="point outside"):
        MetaClassifier.read(path)


def test_a_forest_is_no_known_classifier(tmp_path):
    forest = RandomForestClassifier(2, random_state=0).fit([[0], [1]], [0, 1])
    with pytest.raises(ValueError, match="is not a stored gradient_boosted_trees"):
        MetaClassifier.read(stored(forest, "gradient_boosted_trees", tmp_path))


def test_the_stored_model_belongs_to_its_json(tmp_path):
    path = tmp_path / "classifier.json"
    fit(random_table(7), "small_network").write(path)
    fit(random_table(8), "small_network").write(tmp_path / "other.json")
    (tmp_path / "other.skops").replace(tmp_path / "classifier.skops")
    with pytest.raises(ValueError, match=r"classifier\.skops is missing or another one"):
        MetaClassifier.read(path)
    (tmp_path / "classifier.skops").unlink()
    with pytest.raises(ValueError, match=r"classifier\.skops is missing or another one"):
        MetaClassifier.read(path)


def test_another_origin_is_a_warning_and_other_classes_are_refused():
    names = ("road", "car")
    fitted = replace(fit(random_table(9)), network="a", variant="baseline", class_names=names)
    fitted = replace(fitted, score="entropy", threshold=0.7)
    assert fitted.differences("a", "baseline", names, "entropy", 0.7) == []
    found = fitted.differences("b", "baseline", names, "entropy", 0.8)
    assert ["network" in found[0], "threshold" in found[1]] == [True, True]
    with pytest.raises(ValueError, match="classes road, car; the network predicts road, bus"):
        fitted.differences("a", "baseline", ("road", "bus"), "entropy", 0.7)
    # a file of version 0.1 does not know its origin
    assert fit(random_table(9)).differences("a", "b", names, "entropy", 0.7) == []
