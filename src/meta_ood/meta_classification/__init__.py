"""Meta classification: is a predicted OoD segment a false positive? (METHOD.md G5).

:func:`fit` makes a :class:`MetaClassifier` from a table of segments, :func:`cross_validate` says
what such a classifier is worth on segments that it has not seen.
"""

from meta_ood.meta_classification.classifier import MetaClassifier, fit
from meta_ood.meta_classification.families import CLASSIFIERS
from meta_ood.meta_classification.features import degenerate_columns, false_positives
from meta_ood.meta_classification.folds import FOLDS, OutOfFold, cross_validate, out_of_fold

__all__ = [
    "CLASSIFIERS",
    "FOLDS",
    "MetaClassifier",
    "OutOfFold",
    "cross_validate",
    "degenerate_columns",
    "false_positives",
    "fit",
    "out_of_fold",
]
