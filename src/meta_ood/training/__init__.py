"""Training: the loop on Lightning Fabric, optimisation, and validation while it runs."""

from meta_ood.training.loop import DivergedError, fit, seeded
from meta_ood.training.validation import Validation, evaluate_once, write_metrics

__all__ = ["DivergedError", "Validation", "evaluate_once", "fit", "seeded", "write_metrics"]
