"""Inference: from frames to predictions."""

from meta_ood.inference.prediction import average_logits, predict, write_behind
from meta_ood.inference.processes import is_first_process, processes

__all__ = ["average_logits", "is_first_process", "predict", "processes", "write_behind"]
