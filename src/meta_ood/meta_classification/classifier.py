"""MetaClassifier: a fitted judge of segments, written as JSON that a person can read."""

from __future__ import annotations

import inspect
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from meta_ood.data.registry import lookup
from meta_ood.meta_classification.families import (
    CLASSIFIERS,
    Family,
    LinearModel,
    Model,
    probability,
)
from meta_ood.meta_classification.features import Flags, Floats, Scaling, Segments, false_positives

_FORMAT = "meta-ood meta classifier, version 1"
_BARE_LIST = re.compile(r"\[[^][{}]*\]")
"""A list of plain values: written in one line."""


@dataclass(frozen=True)
class MetaClassifier:
    """Decides from its features whether a predicted OoD segment is a false positive.

    Attributes
    ----------
    feature_names
        F names, in the order of the table's columns.
    scaling
        Mean and scale of each feature over the training segments.
    model
        From scaled features to log odds.
    classifier
        The model's name in ``CLASSIFIERS``.
    operating_point
        A segment is removed if its probability of being a false positive is above.
    keep_everything
        Why nothing is ever removed, or "" for a classifier that was fitted; see :func:`fit`.
    score, threshold
        What made the training segments, and must make those to be judged; "" and None if unknown.
    """

    feature_names: tuple[str, ...]
    scaling: Scaling
    model: Model
    classifier: str = "logistic_regression"
    operating_point: float = 0.5
    keep_everything: str = ""
    score: str = ""
    threshold: float | None = None

    @property
    def mean(self) -> Floats:
        """``(F,)`` mean of each feature over the training segments."""
        return self.scaling.mean

    @property
    def scale(self) -> Floats:
        """``(F,)`` standard deviation of each feature; 0 = constant, without a say."""
        return self.scaling.scale

    @property
    def weights(self) -> Floats:
        """``(F,)`` weights of a linear model.

        Raises
        ------
        ValueError
            If the model is not linear.
        """
        return self._linear().weights

    @property
    def bias(self) -> float:
        """Bias of a linear model; ValueError if it is none."""
        return self._linear().bias

    def _linear(self) -> LinearModel:
        if not isinstance(self.model, LinearModel):
            raise ValueError(f"a classifier {self.classifier!r} has no weights: it is not linear")
        return self.model

    def probability(self, table: Segments) -> Floats:
        """Return ``(S,)`` probabilities in [0, 1] that the table's segments are false positives.

        All 0 if the classifier keeps everything.

        Raises
        ------
        ValueError
            If the table's features are not those that the classifier was fitted on.
        """
        if tuple(table.feature_names) != self.feature_names:
            raise ValueError(
                f"the table has features {_some(table.feature_names)}, "
                f"the meta classifier was fitted on {_some(self.feature_names)}"
            )
        return self.probability_of(np.asarray(table.features, np.float64))

    def probability_of(self, features: Floats) -> Floats:
        """Do what :meth:`probability` does from ``(S, F)`` features in the classifier's order."""
        if self.keep_everything:
            return np.zeros(len(features))
        return probability(self.model, self.scaling(features))

    def removes(self, table: Segments) -> Flags:
        """Return ``(S,)``: which segments go, being false with more than the operating point."""
        return self.probability(table) > self.operating_point

    def to_json(self) -> str:
        """Return JSON text: the same classifier gives the same bytes."""
        features = [
            {"name": name, "mean": float(mean), "scale": float(scale)}
            for name, mean, scale in zip(self.feature_names, self.mean, self.scale, strict=True)
        ]
        values = {
            "format": _FORMAT,
            "classifier": self.classifier,
            "operating_point": self.operating_point,
            "keep_everything": self.keep_everything,
            "score": self.score,
            "threshold": self.threshold,
            "features": features,
            "model": self.model.to_values(self.feature_names),
        }
        text = json.dumps(values, indent=1, allow_nan=False)
        return _BARE_LIST.sub(lambda found: " ".join(found[0].split()), text) + "\n"

    @classmethod
    def from_json(cls, text: str, source: str = "the text") -> MetaClassifier:
        """Read what :meth:`to_json` wrote; plain values only, nothing is executed.

        Raises
        ------
        ValueError
            If `text` is not a meta classifier; names `source`.
        """
        try:
            values = json.loads(text)
            if not isinstance(values, dict) or values.get("format") != _FORMAT:
                raise ValueError(f"expected JSON with format {_FORMAT!r}")
            names = tuple(str(f["name"]) for f in values["features"])
            columns = [[float(f[key]) for f in values["features"]] for key in ("mean", "scale")]
            name = str(values["classifier"])
            family = lookup("classifier", CLASSIFIERS, name)
            return cls(
                feature_names=names,
                scaling=Scaling(np.array(columns[0]), np.array(columns[1])),
                model=family.from_values(values["model"], names),
                classifier=name,
                operating_point=float(values["operating_point"]),
                keep_everything=str(values["keep_everything"]),
                score=str(values["score"]),
                threshold=None if values["threshold"] is None else float(values["threshold"]),
            )
        except KeyError as error:
            raise ValueError(f"{source} is no meta classifier: {error} is missing") from None
        except (TypeError, ValueError) as error:
            raise ValueError(f"{source} is no meta classifier: {error}") from None

    @classmethod
    def read(cls, path: Path) -> MetaClassifier:
        """Read a classifier.json."""
        return cls.from_json(path.read_text(encoding="utf-8"), str(path))


def why_not_fitted(false: Flags) -> str:
    """Return why these training segments cannot be learnt from, or "".

    Examples
    --------
    >>> why_not_fitted(np.array([True, True]))
    'all 2 training segments are false positives'
    >>> why_not_fitted(np.array([True, False]))
    ''
    """
    if len(false) == 0:
        return "no training segment"
    if false.all():
        return f"all {len(false)} training segments are false positives"
    if not false.any():
        return f"none of {len(false)} training segments is a false positive"
    return ""


def fit(
    table: Segments,
    classifier: str = "logistic_regression",
    *,
    operating_point: float = 0.5,
    **options: Any,
) -> MetaClassifier:
    """Fit a meta classifier on all segments of a table.

    Segments of one kind only (or none at all) cannot be learnt from. The answer is then a
    classifier that keeps everything and says why: a detection is not thrown away on no evidence.

    Parameters
    ----------
    table
        Segments with features and adjusted IoU.
    classifier
        A name in ``CLASSIFIERS``.
    operating_point
        Probability in [0, 1] above which a segment is removed.
    options
        Keywords of the classifier; for ``logistic_regression``: ``penalty``.

    Raises
    ------
    ValueError
        Unknown classifier or option.
    """
    fitted = fit_rows(
        tuple(table.feature_names),
        np.asarray(table.features, np.float64),
        false_positives(table),
        classifier,
        operating_point=operating_point,
        **options,
    )
    threshold = float(getattr(table, "threshold", math.nan))
    return replace(
        fitted,
        score=str(getattr(table, "score", "")),
        threshold=None if math.isnan(threshold) else threshold,
    )


def fit_rows(
    names: tuple[str, ...],
    features: Floats,
    false: Flags,
    classifier: str,
    *,
    operating_point: float = 0.5,
    **options: Any,
) -> MetaClassifier:
    """Do what :func:`fit` says with plain arrays ``(S, F)`` and ``(S,)``; `names` may be empty."""
    family = lookup("classifier", CLASSIFIERS, classifier)
    _check_options(classifier, family, options)
    scaling = Scaling.of(features)
    why = why_not_fitted(false)
    model: Model
    if why:
        model = LinearModel(np.zeros(features.shape[1]), 0.0)
        classifier = "logistic_regression"
    else:
        model = family.fit(scaling(features), false, **options)
    return MetaClassifier(names, scaling, model, classifier, operating_point, why)


def _check_options(classifier: str, family: Family, options: Mapping[str, Any]) -> None:
    known = [
        name
        for name, parameter in inspect.signature(family.fit).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    ]
    for name in options:
        if name not in known:
            raise ValueError(
                f"{classifier}: unknown option {name!r}; known: {', '.join(known) or 'none'}"
            )


def _some(names: Any) -> str:
    names = list(names)
    return f"{', '.join(names[:3])}, … ({len(names)})" if len(names) > 3 else ", ".join(names)
