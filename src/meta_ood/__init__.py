"""OoD segmentation: entropy maximisation and meta classification. These names are the public API.

They are imported when they are first used, so that ``import meta_ood`` itself is quick and needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from meta_ood.data.labels import IGNORE, IN, NEUTRAL, OOD
    from meta_ood.data.predictions import Prediction
    from meta_ood.datasets import READERS, read
    from meta_ood.detector.detector import Detector
    from meta_ood.meta_classification import MetaClassifier, fit, out_of_fold
    from meta_ood.metrics.pixel import ScoreHistogram, pixel_metrics
    from meta_ood.metrics.segment import segment_errors
    from meta_ood.models import MODELS, build
    from meta_ood.scores import SCORES
    from meta_ood.segments import SegmentTable, measure_segments
    from meta_ood.training.losses import LOSSES

_MODULES = {
    "Detector": "detector.detector",
    "IGNORE": "data.labels",
    "IN": "data.labels",
    "LOSSES": "training.losses",
    "MODELS": "models",
    "MetaClassifier": "meta_classification",
    "NEUTRAL": "data.labels",
    "OOD": "data.labels",
    "Prediction": "data.predictions",
    "READERS": "datasets",
    "SCORES": "scores",
    "ScoreHistogram": "metrics.pixel",
    "SegmentTable": "segments",
    "build": "models",
    "fit": "meta_classification",
    "measure_segments": "segments",
    "out_of_fold": "meta_classification",
    "pixel_metrics": "metrics.pixel",
    "read": "datasets",
    "segment_errors": "metrics.segment",
}
"""Name -> the module that defines it, below ``meta_ood``."""

__all__ = [
    "IGNORE",
    "IN",
    "LOSSES",
    "MODELS",
    "NEUTRAL",
    "OOD",
    "READERS",
    "SCORES",
    "Detector",
    "MetaClassifier",
    "Prediction",
    "ScoreHistogram",
    "SegmentTable",
    "build",
    "fit",
    "measure_segments",
    "out_of_fold",
    "pixel_metrics",
    "read",
    "segment_errors",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _MODULES:
        raise AttributeError(f"module 'meta_ood' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"meta_ood.{_MODULES[name]}"), name)
    globals()[name] = value  # the next use finds it without this function
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
