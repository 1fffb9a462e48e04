"""MetaClassifier: a fitted classifier of segments, and its file."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy.special import expit

from meta_ood.data import files
from meta_ood.meta_classification import classifier_file
from meta_ood.meta_classification.classifier_file import ClassifierFile
from meta_ood.meta_classification.features import Scaling, false_positives
from meta_ood.meta_classification.models import EstimatorModel, LinearModel, Model, fitter
from meta_ood.metrics import Flags, Floats
from meta_ood.segments import SegmentTable

Formula = Literal["-ln P(false)", "(mean score - threshold) √size"]
OF_CLASSIFIER: Formula = "-ln P(false)"
OF_SCORE: Formula = "(mean score - threshold) √size"


@dataclass(frozen=True)
class MetaClassifier:
    """Decides from its features whether a predicted OoD segment is a false positive."""

    feature_names: tuple[str, ...]  # F names in the order of the table's columns
    scaling: Scaling
    model: Model  # from scaled features to log odds
    classifier: str = "logistic_regression"  # name in CLASSIFIERS
    operating_point: float = 0.5  # a segment is removed if its probability of being a false positive is above
    fit_failure: str = ""  # why no model was fitted, so that nothing is ever removed
    # what made the training segments, and must make those to be classified, if known
    score: str = ""
    threshold: float | None = None
    network: str = ""
    variant: str = ""
    class_names: tuple[str, ...] = ()
    # number of training segments, and on how many of them the classifiers fitted without their fold, whose decisions
    # the report counts, decide differently, if known
    segments: int | None = None
    differing_decisions: int | None = None

    @property
    def mean(self) -> Floats:
        """``(F,)`` mean of each feature over the training segments."""
        return self.scaling.mean

    @property
    def scale(self) -> Floats:
        """``(F,)`` standard deviation of each feature; 0 = constant and not used."""
        return self.scaling.scale

    @property
    def weights(self) -> Floats:
        """``(F,)`` weights of a linear model; ValueError if the model is not linear."""
        if not isinstance(self.model, LinearModel):
            raise ValueError(f"a classifier {self.classifier!r} has no weights: it is not linear")
        return self.model.weights

    @property
    def bias(self) -> float:
        """Bias of a linear model; ValueError if the model is not linear."""
        if not isinstance(self.model, LinearModel):
            raise ValueError(f"a classifier {self.classifier!r} has no bias: it is not linear")
        return self.model.bias

    def log_odds(self, table: SegmentTable) -> Floats:
        """Return ``(S,)`` log odds that the table's segments are false positives.

        All -inf if no model was fitted. ValueError if the table has other features than the classifier was fitted on.
        """
        if tuple(table.feature_names) != self.feature_names:
            raise ValueError(
                f"the table has features {_shortened(table.feature_names)}, "
                f"the meta classifier was fitted on {_shortened(self.feature_names)}"
            )
        if self.fit_failure:
            return np.full(len(table.features), -np.inf)
        return self.model.log_odds(self.scaling(np.asarray(table.features, np.float64)))

    def probability(self, table: SegmentTable) -> Floats:
        """Return ``(S,)`` probabilities in [0, 1] that the table's segments are false positives, see :meth:`log_odds`.

        All 0 if no model was fitted.
        """
        probability: Floats = expit(self.log_odds(table))
        return probability

    @property
    def severity_formula(self) -> Formula:
        """What :meth:`severity` is."""
        return OF_SCORE if self.fit_failure else OF_CLASSIFIER

    def severity(self, table: SegmentTable, log_odds: Floats | None = None) -> Floats:
        """Return ``(S,)`` how surely the table's segments are objects, at least 0: higher ones are kept sooner.

        -ln P(false), from `log_odds` of being false or by :meth:`log_odds`: other than 1 - P(false) it does not end at
        1, where all sure segments would be alike. :attr:`SegmentTable.excess` if no model was fitted.
        """
        if self.fit_failure:
            return table.excess
        severity: Floats = np.logaddexp(0, -(self.log_odds(table) if log_odds is None else log_odds))
        return severity

    def differences(
        self, network: str, variant: str, class_names: Sequence[str], score: str, threshold: float
    ) -> list[str]:
        """Return a clause for each known attribute of what predicted the training segments that differs.

        ValueError if the classes differ: the features would mean other things.
        """
        if self.class_names and tuple(class_names) != self.class_names:
            raise ValueError(
                f"the meta classifier was fitted on segments with the classes "
                f"{_shortened(self.class_names)}; the network predicts {_shortened(class_names)}"
            )
        given = {"network": network, "variant": variant, "score": score, "threshold": threshold}
        return [
            f"the meta classifier was fitted with the {name} {getattr(self, name)}, not {value}"
            for name, value in given.items()
            if getattr(self, name) not in ("", None, value)
        ]

    def to_json(self) -> str:
        """Return the text of classifier.json: the same classifier gives the same bytes."""
        return self._texts()[0]

    def _texts(self) -> tuple[str, bytes]:
        """Return the contents of classifier.json and of classifier.skops (empty if not needed)."""
        values = {name: value for name, value in vars(self).items() if name in ClassifierFile.model_fields}
        columns = zip(self.feature_names, self.mean.tolist(), self.scale.tolist(), strict=True)
        features = [{"name": name, "mean": mean, "scale": scale} for name, mean, scale in columns]
        values |= {"format": classifier_file.FORMAT, "features": features}
        stored = b""
        if isinstance(self.model, LinearModel):
            weights = dict(zip(self.feature_names, self.model.weights.tolist(), strict=True))
            values["model"] = {"bias": self.model.bias, "weights": weights}
        else:
            stored = classifier_file.dump_estimator(self.model.estimator)
            values["model"] = hashlib.sha256(stored).hexdigest()
        return ClassifierFile(**values).model_dump_json(indent=1) + "\n", stored

    @classmethod
    def from_json(cls, text: str, source: str = "the text", stored: bytes | None = None) -> MetaClassifier:
        """Read what :meth:`to_json` returned; ValueError with `source`, the file's name, and key if it does not fit.

        `stored` is the contents of classifier.skops, which a model that is not linear needs. Nothing is executed.
        """
        contents = classifier_file.parse(text, source)
        names = tuple(feature.name for feature in contents.features)
        model: Model
        if not isinstance(contents.model, str):
            weights = np.array([contents.model.weights[name] for name in names], np.float64)
            model = LinearModel(weights, contents.model.bias)
        else:
            beside = str(Path(source).with_suffix(".skops"))
            if stored is None or hashlib.sha256(stored).hexdigest() != contents.model:
                raise ValueError(f"{source}: the model in {beside} is missing or another one")
            model = EstimatorModel(classifier_file.load_estimator(stored, contents.classifier, len(names), beside))
        mean, scale = (np.array([getattr(f, key) for f in contents.features], np.float64) for key in ("mean", "scale"))
        plain = contents.model_dump(exclude={"format", "note", "features", "model"})
        return cls(names, Scaling(mean, scale), model, **plain)

    def write(self, path: Path) -> None:
        """Write classifier.json and, for a model that is not linear, the .skops file beside it."""
        text, stored = self._texts()
        if stored:
            files.write_bytes(path.with_suffix(".skops"), stored)
        files.write_text(path, text)

    @classmethod
    def read(cls, path: Path) -> MetaClassifier:
        """Read what :meth:`write` wrote; errors as in :meth:`from_json`, or FileNotFoundError."""
        beside = path.with_suffix(".skops")
        for file in (path, beside):
            if file.is_file() and file.stat().st_size > classifier_file.MOST_BYTES:
                raise ValueError(f"{file}: too large for a meta classifier")
        stored = beside.read_bytes() if beside.is_file() else None
        return cls.from_json(files.read_text(path), str(path), stored)


def fit_failure(false: Flags) -> str:
    """Return why no classifier can be fitted on training segments with these targets, or ""."""
    if len(false) == 0:
        return "no training segment"
    if false.all():
        return f"all {len(false)} training segments are false positives"
    return "" if false.any() else f"none of {len(false)} training segments is a false positive"


def fit(
    table: SegmentTable, classifier: str = "logistic_regression", *, operating_point: float = 0.5, **options: Any
) -> MetaClassifier:
    """Fit a meta classifier on all segments of a table.

    If the segments are of one class only (or there are none), no model can be fitted: the result is a classifier that
    removes nothing and says why in ``fit_failure``. `classifier` is a name in ``CLASSIFIERS`` and `options` are its
    keywords; ValueError if unknown. A segment is removed if its probability is above `operating_point` in [0, 1].
    """
    fit_model = fitter(classifier, **options)
    features = np.asarray(table.features, np.float64)
    false = false_positives(table)
    scaling = Scaling.of(features)
    model: Model = LinearModel(np.zeros(features.shape[1]), 0.0)
    if failure := fit_failure(false):
        classifier = "logistic_regression"  # what removes nothing is stored as a linear model
    else:
        model = fit_model(scaling(features), false)
    threshold = float(getattr(table, "threshold", math.nan))  # tables made by hand may lack it
    return MetaClassifier(
        *(tuple(table.feature_names), scaling, model, classifier, operating_point, failure),
        score=str(getattr(table, "score", "")),
        threshold=None if math.isnan(threshold) else threshold,
        segments=len(features),
    )


def _shortened(names: Sequence[str]) -> str:
    first = ", ".join(names[:3])
    return f"{first}, … ({len(names)})" if len(names) > 3 else first
