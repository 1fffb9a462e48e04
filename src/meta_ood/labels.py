"""The import path of version 0.1 for :mod:`meta_ood.data.labels`."""

from meta_ood.data.labels import CITYSCAPES, IGNORE, IN, NEUTRAL, OOD, LabelMap, LabelSpace

__all__ = ["CITYSCAPES", "IGNORE", "IN", "NEUTRAL", "OOD", "LabelMap", "LabelSpace"]
