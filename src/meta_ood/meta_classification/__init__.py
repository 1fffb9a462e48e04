"""Meta classification: is a predicted OoD segment a false positive? (docs/method.md, section 5).

:func:`fit` returns a :class:`MetaClassifier` for new data, :func:`out_of_fold` returns the probabilities of segments
that their classifiers were not fitted on.
"""

from meta_ood.meta_classification.classifier import MetaClassifier, fit
from meta_ood.meta_classification.folds import FOLDS, OutOfFold, out_of_fold
from meta_ood.meta_classification.models import CLASSIFIERS

__all__ = ["CLASSIFIERS", "FOLDS", "MetaClassifier", "OutOfFold", "fit", "out_of_fold"]
