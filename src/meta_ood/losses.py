"""The import path of version 0.1 for :mod:`meta_ood.training.losses`."""

from meta_ood.training.losses import LOSSES

__all__ = ["LOSSES"]
