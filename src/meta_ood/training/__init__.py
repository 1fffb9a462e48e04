"""Training: the loop on Lightning Fabric, losses, optimisation, validation."""

from meta_ood.training.loop import DivergedError, fit, seeded
from meta_ood.training.validation import Validation, evaluate_once

__all__ = ["DivergedError", "Validation", "evaluate_once", "fit", "seeded"]
