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
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.neural_network import MLPClassifier

from meta_ood.data.registry import lookup
from meta_ood.meta_classification.models import CLASSIFIERS

FORMAT: Final = "meta-ood meta classifier, version 2"
_FORMAT_1 = "meta-ood meta classifier, version 1"

NOTE = (
    "fitted on all training segments; the report and metrics.json use classifiers fitted without "
    "the segment's fold, which decide differently on `differing_decisions` of them"
)

# A classifier of 75 features takes 10 kB, its trees 300 kB: more is no meta classifier.
MOST_BYTES = 16 * 2**20

_ESTIMATORS = {"gradient_boosted_trees": HistGradientBoostingClassifier, "small_network": MLPClassifier}
# skops asks for trust because indices in a tree are not checked when it predicts; we check them.
_TRUSTED = ["sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor"]


class _Entry(BaseModel):
    """Every key is known, every number finite, no value is converted to another type."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Feature(_Entry):
    """Name, mean and standard deviation (0 = constant) of a feature on the training segments."""

    name: str
    mean: float
    scale: Annotated[float, Field(ge=0)]


class Linear(_Entry):
    """A linear model: log odds = bias + sum of weights times scaled features."""

    bias: float
    weights: dict[str, float]


class Stored(_Entry):
    """A model in the skops file: its SHA-256 as hexadecimal digits."""

    sha256: str


class ClassifierFile(_Entry):
    """The contents of classifier.json, see ``MetaClassifier`` for most keys."""

    format: Literal["meta-ood meta classifier, version 2"]
    note: str = NOTE
    classifier: str
    operating_point: Annotated[float, Field(ge=0, le=1)]
    fit_failure: str
    score: str
    threshold: float | None
    network: str = ""
    variant: str = ""
    class_names: list[str] = []
    segments: int | None = None
    differing_decisions: int | None = None
    features: list[Feature]
    model: Linear | Stored

    @field_validator("classifier")
    @classmethod
    def _is_known(cls, name: str) -> str:
        lookup("classifier", CLASSIFIERS, name)
        return name

    @model_validator(mode="before")
    @classmethod
    def _from_version_1(cls, values: Any) -> Any:
        if not isinstance(values, dict) or values.get("format") != _FORMAT_1:
            return values
        if values.get("classifier") in _ESTIMATORS:
            raise ValueError(
                f"a {values['classifier']} of version 0.1 cannot be read: fit it again with `dvc repro meta`"
            )
        values = {**values, "format": FORMAT}
        if "keep_everything" in values:
            values["fit_failure"] = values.pop("keep_everything")
        return values

    @model_validator(mode="after")
    def _fits_together(self) -> ClassifierFile:
        names = [feature.name for feature in self.features]
        if len(set(names)) != len(names):
            raise ValueError("features: expected different names")
        if isinstance(self.model, Linear) and sorted(self.model.weights) != sorted(names):
            raise ValueError("model.weights: expected the names of the features")
        if isinstance(self.model, Stored) != (self.classifier in _ESTIMATORS):
            raise ValueError(f"model: not that of a {self.classifier}")
        return self


def parse(text: str, source: str) -> ClassifierFile:
    """Return the checked contents of classifier.json, also of version 0.1.

    Raises:
        ValueError: If it is no meta classifier; `source`, the key and what is expected are named.
    """
    try:
        if len(text) > MOST_BYTES:
            raise ValueError(f"{len(text)} characters, expected at most {MOST_BYTES}")
        return ClassifierFile.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        message = f"{key}: {first['msg']}" if key else first["msg"]
        raise ValueError(f"{source} is not a meta classifier: {message}") from None
    except ValueError as error:
        raise ValueError(f"{source} is not a meta classifier: {error}") from None


def dump_estimator(estimator: Any) -> bytes:
    """Return a fitted estimator as the bytes of a skops file; equal estimators, equal bytes."""
    import skops.io

    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(skops.io.dumps(estimator))) as source,
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        # skops names objects by their address in memory and dates the entries: number the objects
        # in the order of the schema instead
        schema = source.read("schema.json").decode()
        numbers: dict[str, str] = {}
        for address in re.findall(r'"__id__": (\d+)', schema):
            numbers.setdefault(address, str(len(numbers) + 1))

        def renamed(found: re.Match[str]) -> str:
            return found[1] + numbers[found[2]] + found[3]

        schema = re.sub(r'("__id__": )(\d+)()', renamed, schema)
        schema = re.sub(r'("file": ")(\d+)(\.npy")', renamed, schema)
        entries = {re.sub(r"()(\d+)(\.npy)", renamed, name): source.read(name) for name in source.namelist()} | {
            "schema.json": schema.encode()
        }
        for name in sorted(entries):
            target.writestr(zipfile.ZipInfo(name), entries[name], zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def load_estimator(data: bytes, classifier: str, features: int, source: str) -> Any:
    """Undo :func:`dump_estimator`.

    Raises:
        ValueError: If the file is damaged, holds a type that is not trusted, or not such a classifier of `features`
            features; `source` and the type are named.
    """
    import skops.io

    try:
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            size = sum(entry.file_size for entry in file.infolist())
        if size > MOST_BYTES:
            raise ValueError(f"{size} bytes unpacked, expected at most {MOST_BYTES}")
        estimator = skops.io.loads(data, trusted=_TRUSTED)
        if type(estimator) is not _ESTIMATORS[classifier]:
            raise ValueError(f"a {type(estimator).__name__}, expected a {classifier}")
        if classifier == "gradient_boosted_trees":
            _check_trees(estimator, features)
        if estimator.predict_proba(np.zeros((1, features))).shape != (1, 2):
            raise ValueError("expected probabilities of two classes")
    except Exception as error:  # a damaged file fails in many ways inside zipfile, skops and numpy
        message = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{source} is not a stored {classifier}: {message}") from None
    return estimator


def _check_trees(estimator: HistGradientBoostingClassifier, features: int) -> None:
    """Refuse trees whose nodes point outside or in a circle: compiled code would follow them."""
    for (tree,) in estimator._predictors:
        nodes = tree.nodes
        number = np.arange(len(nodes))
        inner = nodes["is_leaf"] == 0
        children = np.stack([nodes["left"], nodes["right"]])[:, inner]
        if (
            not len(nodes)
            or (children <= number[inner]).any()
            or (children >= len(nodes)).any()
            or (nodes["feature_idx"][inner] >= features).any()
            or (nodes["feature_idx"][inner] < 0).any()
            or nodes["is_categorical"].any()
        ):
            raise ValueError("a tree's nodes point outside of it")
