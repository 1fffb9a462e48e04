"""classifier.json, the file of a meta classifier, and classifier.skops beside it.

JSON holds everything a person wants to read, and the weights of a linear model under the features' names. Trees and
networks are scikit-learn estimators in a skops file, whose SHA-256 the JSON file gives. Both may come from others:
nothing in them is executed, and what does not fit is refused.
"""

from __future__ import annotations

import io
import re
import zipfile
from typing import Annotated, Any, Final, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, Strict, ValidationError, model_validator

from meta_ood.data.registry import lookup
from meta_ood.meta_classification.models import CLASSIFIERS

FORMAT: Final = "meta-ood meta classifier, version 2"
MOST_BYTES = 16 * 2**20  # a classifier of 75 features takes 10 kB, its trees 300 kB: more is no meta classifier
_ESTIMATORS = ("gradient_boosted_trees", "small_network")  # stored as skops files


class _Entry(BaseModel):
    """Every key is known, every number finite, no value is converted to another type."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


# far beyond any true value, and small enough that no product of two of them overflows
_Number = Annotated[float, Field(ge=-1e100, le=1e100)]


class Feature(_Entry):
    """A feature's mean and standard deviation on the training segments."""

    name: str
    mean: _Number
    scale: Annotated[_Number, Field(ge=0)]  # 0 = constant


class Linear(_Entry):
    """A linear model: log odds = bias + sum of weights times scaled features."""

    bias: _Number
    weights: dict[str, _Number]


class ClassifierFile(_Entry):
    """The contents of classifier.json: attributes of ``MetaClassifier``, and its model."""

    format: Literal["meta-ood meta classifier, version 2"]
    note: str = (
        "fitted on all training segments; the report and metrics.json use classifiers fitted without "
        "the segment's fold, which decide differently on `differing_decisions` of them"
    )
    classifier: str
    operating_point: Annotated[float, Field(ge=0, le=1)]
    fit_failure: str
    score: str
    threshold: float | None
    network: str = ""
    variant: str = ""
    class_names: Annotated[tuple[str, ...], Strict(False)] = ()  # a list in JSON
    segments: int | None = None
    differing_decisions: int | None = None
    features: list[Feature]
    model: Linear | str  # SHA-256 of the skops file if the model is stored there

    @model_validator(mode="before")
    @classmethod
    def _from_version_1(cls, values: Any) -> Any:
        if not isinstance(values, dict) or values.get("format") != "meta-ood meta classifier, version 1":
            return values
        if (kind := values.get("classifier")) in _ESTIMATORS:
            raise ValueError(f"a {kind} of version 0.1 cannot be read: fit it again with `dvc repro meta`")
        renamed = {"keep_everything": "fit_failure"}
        return {renamed.get(key, key): value for key, value in values.items()} | {"format": FORMAT}

    @model_validator(mode="after")
    def _fits_together(self) -> ClassifierFile:
        lookup("classifier", CLASSIFIERS, self.classifier)
        if any(0 < feature.scale < 1e-100 for feature in self.features):
            raise ValueError("features: expected every scale to be 0 or at least 1e-100")
        names = sorted(feature.name for feature in self.features)
        if isinstance(self.model, Linear) and sorted(self.model.weights) != names:
            raise ValueError("model.weights: expected the names of the features, each once")
        if isinstance(self.model, str) != (self.classifier in _ESTIMATORS):
            raise ValueError(f"model: not that of a {self.classifier}")
        return self


def parse(text: str, source: str) -> ClassifierFile:
    """Return the checked contents of classifier.json, also of version 0.1; ValueError names `source` and the key."""
    try:
        return ClassifierFile.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        message = ": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"])))
        raise ValueError(f"{source} is not a meta classifier: {message}") from None


def dump_estimator(estimator: Any) -> bytes:
    """Return a fitted estimator as the bytes of a skops file; equal estimators, equal bytes."""
    import skops.io

    # skops names objects by their address in memory and dates the entries: number the objects in
    # the order of the schema instead, and leave the dates out
    numbers: dict[str, str] = {}

    def numbered(text: str) -> str:
        address = r'(?<="__id__": )\d+|\d+(?=\.npy)'
        return re.sub(address, lambda match: numbers.setdefault(match[0], str(len(numbers))), text)

    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(skops.io.dumps(estimator))) as source, zipfile.ZipFile(buffer, "w") as target:
        schema = numbered(source.read("schema.json").decode())  # first: its order gives the numbers
        entries = {numbered(name): source.read(name) for name in source.namelist()} | {"schema.json": schema.encode()}
        for name, entry in sorted(entries.items()):
            target.writestr(zipfile.ZipInfo(name), entry, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def load_estimator(data: bytes, classifier: str, features: int, source: str) -> Any:
    """Undo :func:`dump_estimator`.

    ValueError if the file is damaged or holds anything but such a classifier of `features` features; `source` is named.
    """
    # scikit-learn takes a second to import, and JSON needs none
    import skops.io
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.neural_network import MLPClassifier

    try:
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            size = sum(entry.file_size for entry in file.infolist())
        if size > MOST_BYTES:
            raise ValueError(f"{size} bytes unpacked, expected at most {MOST_BYTES}")
        # skops asks for trust because indices in a tree are not checked when it predicts; we check them
        trees = "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor"
        estimator = skops.io.loads(data, trusted=[trees])
        types = {"gradient_boosted_trees": HistGradientBoostingClassifier, "small_network": MLPClassifier}
        if type(estimator) is not types[classifier]:
            raise ValueError(f"a {type(estimator).__name__}, expected a {classifier}")
        if classifier == "gradient_boosted_trees":
            _check_trees(estimator, features)
        if estimator.predict_proba(np.zeros((1, features))).shape != (1, 2):
            raise ValueError("expected probabilities of two classes")
    except Exception as error:  # a damaged file fails in many ways inside zipfile, skops and numpy
        message = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{source} is not a stored {classifier}: {message}") from None
    return estimator


def _check_trees(estimator: Any, features: int) -> None:
    """Refuse trees whose nodes point outside or in a circle: compiled code would follow them."""
    for (tree,) in estimator._predictors:
        nodes, inner = tree.nodes, np.flatnonzero(tree.nodes["is_leaf"] == 0)
        children = np.stack([nodes["left"][inner], nodes["right"][inner]])
        feature = nodes["feature_idx"][inner]
        sound = (children > inner) & (children < len(nodes)) & (feature >= 0) & (feature < features)
        if not len(nodes) or not sound.all() or nodes["is_categorical"].any():
            raise ValueError("a tree's nodes point outside of it")
