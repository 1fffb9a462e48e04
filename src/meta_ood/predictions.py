"""The import path of version 0.1 for :mod:`meta_ood.data.predictions`."""

from meta_ood.data.predictions import FloatMap, Prediction

__all__ = ["FloatMap", "Prediction"]
