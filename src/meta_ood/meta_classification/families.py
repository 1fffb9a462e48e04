"""The kinds of meta classifiers: how each is fitted, what it computes, its plain JSON values."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from scipy.special import expit

from meta_ood.meta_classification import logistic
from meta_ood.meta_classification.features import Flags, Floats, Integers


class Model(Protocol):
    """What stands behind a meta classifier: scaled features to log odds, and plain values."""

    def log_odds(self, scaled: Floats) -> Floats:
        """Return ``(S,)`` log odds of being a false positive from ``(S, F)`` scaled features."""

    def to_values(self, names: tuple[str, ...]) -> dict[str, Any]:
        """Return plain JSON values; `names` are the features' names."""


@dataclass(frozen=True)
class LinearModel:
    """Log odds ``= x w + b``.

    Attributes
    ----------
    weights
        ``(F,) float64``.
    bias
        The constant term.
    """

    weights: Floats
    bias: float

    def log_odds(self, scaled: Floats) -> Floats:
        """Return ``(S,)`` log odds from ``(S, F)`` scaled features."""
        odds: Floats = scaled @ self.weights + self.bias
        return odds

    def to_values(self, names: tuple[str, ...]) -> dict[str, Any]:
        """Return ``{"bias": b, "weights": {name: w}}``."""
        weights = (float(w) for w in self.weights)
        return {"bias": float(self.bias), "weights": dict(zip(names, weights, strict=True))}

    @classmethod
    def from_values(cls, values: Mapping[str, Any], names: tuple[str, ...]) -> LinearModel:
        """Undo :meth:`to_values`."""
        return cls(np.array([float(values["weights"][n]) for n in names]), float(values["bias"]))


@dataclass(frozen=True)
class Tree:
    """A regression tree as arrays over its nodes; node 0 is the root.

    Attributes
    ----------
    feature
        ``(M,)`` column that a node looks at; -1 in a leaf.
    threshold
        ``(M,)`` a segment goes left if its value is at most this.
    left, right
        ``(M,)`` child nodes.
    value
        ``(M,)`` what a leaf adds to the log odds.
    """

    feature: Integers
    threshold: Floats
    left: Integers
    right: Integers
    value: Floats

    def __call__(self, scaled: Floats) -> Floats:
        """Return ``(S,)`` leaf values."""
        node = np.zeros(len(scaled), np.int64)
        rows = np.arange(len(scaled))
        while (inner := self.feature[node] >= 0).any():
            goes_left = scaled[rows, self.feature[node]] <= self.threshold[node]
            child = np.where(goes_left, self.left[node], self.right[node])
            node = np.where(inner, child, node)
        leaves: Floats = self.value[node]
        return leaves


@dataclass(frozen=True)
class TreesModel:
    """Log odds ``= b + sum of trees``."""

    bias: float
    trees: tuple[Tree, ...]

    def log_odds(self, scaled: Floats) -> Floats:
        """Return ``(S,)`` log odds from ``(S, F)`` scaled features."""
        return sum((tree(scaled) for tree in self.trees), start=np.full(len(scaled), self.bias))

    def to_values(self, names: tuple[str, ...]) -> dict[str, Any]:
        """Return ``{"bias": b, "trees": [{"feature": [...], ...}]}``; "" marks a leaf."""
        trees = [
            {
                "feature": [names[f] if f >= 0 else "" for f in tree.feature],
                "threshold": tree.threshold.tolist(),
                "left": tree.left.tolist(),
                "right": tree.right.tolist(),
                "value": tree.value.tolist(),
            }
            for tree in self.trees
        ]
        return {"bias": self.bias, "trees": trees}

    @classmethod
    def from_values(cls, values: Mapping[str, Any], names: tuple[str, ...]) -> TreesModel:
        """Undo :meth:`to_values`; a child that does not stand behind its parent is refused."""
        column = {name: index for index, name in enumerate(names)} | {"": -1}
        trees = []
        for tree in values["trees"]:
            feature = np.array([column[name] for name in tree["feature"]], np.int64)
            left, right = (np.array(tree[side], np.int64) for side in ("left", "right"))
            threshold, value = (np.array(tree[key], np.float64) for key in ("threshold", "value"))
            inner = np.flatnonzero(feature >= 0)
            lengths = {len(a) for a in (feature, left, right, threshold, value)}
            if len(lengths) != 1 or not len(feature):
                raise ValueError("a tree's arrays differ in length or are empty")
            for child in (left[inner], right[inner]):
                if (child <= inner).any() or (child >= len(feature)).any():
                    raise ValueError("a tree's children must stand behind their parent")
            trees.append(Tree(feature, threshold, left, right, value))
        return cls(float(values["bias"]), tuple(trees))


@dataclass(frozen=True)
class LayersModel:
    """Log odds of a small network: ``tanh`` between its layers, none behind the last."""

    weights: tuple[Floats, ...]
    biases: tuple[Floats, ...]

    def log_odds(self, scaled: Floats) -> Floats:
        """Return ``(S,)`` log odds from ``(S, F)`` scaled features."""
        values = scaled
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            values = np.tanh(values @ weight + bias)
        odds: Floats = (values @ self.weights[-1] + self.biases[-1])[:, 0]
        return odds

    def to_values(self, names: tuple[str, ...]) -> dict[str, Any]:
        """Return ``{"weights": [[[...]]], "biases": [[...]]}``, inputs in the features' order."""
        del names
        return {
            "weights": [weight.tolist() for weight in self.weights],
            "biases": [bias.tolist() for bias in self.biases],
        }

    @classmethod
    def from_values(cls, values: Mapping[str, Any], names: tuple[str, ...]) -> LayersModel:
        """Undo :meth:`to_values`; layers that do not fit together are refused."""
        weights = tuple(np.array(weight, np.float64) for weight in values["weights"])
        biases = tuple(np.array(bias, np.float64) for bias in values["biases"])
        widths = [len(names), *(len(bias) for bias in biases)]
        shapes = [weight.shape for weight in weights]
        if shapes != list(itertools.pairwise(widths)) or widths[-1] != 1:
            raise ValueError(f"layers of shapes {shapes} do not fit {len(names)} features")
        return cls(weights, biases)


def logistic_regression(scaled: Floats, false: Flags, *, penalty: float = 1.0) -> LinearModel:
    """Fit the published classifier: L2, intercept penalised, C = 1 / penalty (METHOD.md G5)."""
    weights = logistic.newton(logistic.with_ones(scaled), false, penalty=penalty)
    return LinearModel(weights[:-1], float(weights[-1]))


def sparse_logistic_regression(
    scaled: Floats, false: Flags, *, penalty: float = 1.0
) -> LinearModel:
    """Fit logistic regression with an L1 penalty on all weights but the bias."""
    weights = logistic.lasso(logistic.with_ones(scaled), false, penalty=penalty)
    return LinearModel(weights[:-1], float(weights[-1]))


def gradient_boosted_trees(
    scaled: Floats,
    false: Flags,
    *,
    trees: int = 60,
    leaves: int = 7,
    learning_rate: float = 0.1,
    least_segments: int = 10,
    penalty: float = 1.0,
) -> TreesModel:
    """Fit scikit-learn's histogram gradient boosting and take its trees over as plain arrays."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    fitted = HistGradientBoostingClassifier(
        max_iter=trees,
        max_leaf_nodes=leaves,
        learning_rate=learning_rate,
        min_samples_leaf=least_segments,
        l2_regularization=penalty,
        early_stopping=False,
        random_state=0,
    ).fit(scaled, false)
    taken = []
    for (predictor,) in fitted._predictors:
        nodes = predictor.nodes
        is_leaf = nodes["is_leaf"].astype(bool)
        inner = ~is_leaf
        taken.append(
            Tree(
                feature=np.where(is_leaf, -1, nodes["feature_idx"]).astype(np.int64),
                threshold=np.where(inner, nodes["num_threshold"], 0.0).astype(np.float64),
                left=np.where(inner, nodes["left"], 0).astype(np.int64),
                right=np.where(inner, nodes["right"], 0).astype(np.int64),
                value=np.where(is_leaf, nodes["value"], 0.0).astype(np.float64),
            )
        )
    return TreesModel(float(np.ravel(fitted._baseline_prediction)[0]), tuple(taken))


def small_network(
    scaled: Floats, false: Flags, *, width: int = 8, penalty: float = 1.0, seed: int = 0
) -> LayersModel:
    """Fit one hidden layer of `width` tanh units with scikit-learn (L-BFGS, L2 penalty)."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    network = MLPClassifier(
        (width,), activation="tanh", solver="lbfgs", alpha=penalty, max_iter=300, random_state=seed
    )
    with warnings.catch_warnings():
        # stopped after max_iter: a fitted network all the same, judged out of fold like any other
        warnings.simplefilter("ignore", ConvergenceWarning)
        network.fit(scaled, false)
    return LayersModel(tuple(network.coefs_), tuple(network.intercepts_))


@dataclass(frozen=True)
class Family:
    """One kind of meta classifier: how to fit it and how to read it back."""

    fit: Callable[..., Model]
    from_values: Callable[[Mapping[str, Any], tuple[str, ...]], Model]


CLASSIFIERS: dict[str, Family] = {
    "logistic_regression": Family(logistic_regression, LinearModel.from_values),
    "sparse_logistic_regression": Family(sparse_logistic_regression, LinearModel.from_values),
    "gradient_boosted_trees": Family(gradient_boosted_trees, TreesModel.from_values),
    "small_network": Family(small_network, LayersModel.from_values),
}
"""Name in params.yaml -> kind of meta classifier."""


def probability(model: Model, scaled: Floats) -> Floats:
    """Return ``(S,)`` probabilities of being a false positive from scaled features."""
    odds: Floats = expit(model.log_odds(scaled))
    return odds
