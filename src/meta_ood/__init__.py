"""OoD segmentation: entropy maximisation and meta classification. These names are the public API.

They are imported when they are first used, so that ``import meta_ood`` itself is quick and needs no torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

# isort: off
if TYPE_CHECKING:  # what type checkers see; `as` says that a name is exported
    from meta_ood.data.labels import IGNORE as IGNORE, IN as IN, NEUTRAL as NEUTRAL, OOD as OOD
    from meta_ood.data.predictions import Prediction as Prediction
    from meta_ood.datasets import READERS as READERS, read as read
    from meta_ood.detector.detector import Detector as Detector
    from meta_ood.meta_classification import MetaClassifier as MetaClassifier, fit as fit, out_of_fold as out_of_fold
    from meta_ood.metrics.pixel import ScoreHistogram as ScoreHistogram, pixel_metrics as pixel_metrics
    from meta_ood.metrics.segment import segment_errors as segment_errors
    from meta_ood.models import MODELS as MODELS, build as build
    from meta_ood.scores import SCORES as SCORES
    from meta_ood.segments import SegmentTable as SegmentTable, measure_segments as measure_segments
    from meta_ood.training.losses import LOSSES as LOSSES
# isort: on

_NAMES = {
    "data.labels": ("IGNORE", "IN", "NEUTRAL", "OOD"),
    "data.predictions": ("Prediction",),
    "datasets": ("READERS", "read"),
    "detector.detector": ("Detector",),
    "meta_classification": ("MetaClassifier", "fit", "out_of_fold"),
    "metrics.pixel": ("ScoreHistogram", "pixel_metrics"),
    "metrics.segment": ("segment_errors",),
    "models": ("MODELS", "build"),
    "scores": ("SCORES",),
    "segments": ("SegmentTable", "measure_segments"),
    "training.losses": ("LOSSES",),
}
"""Module below ``meta_ood`` -> the public names that it defines."""
_MODULES = {name: module for module, names in _NAMES.items() for name in names}
__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _MODULES:
        raise AttributeError(f"module 'meta_ood' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"meta_ood.{_MODULES[name]}"), name)
    globals()[name] = value  # the next use finds it without this function
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
