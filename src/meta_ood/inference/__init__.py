"""Inference: from frames to predictions."""

from meta_ood.inference.prediction import average_logits, logits_and_maps, predict, write_behind
from meta_ood.inference.processes import is_first_process, processes

__all__ = ["average_logits", "is_first_process", "logits_and_maps", "predict", "processes", "write_behind"]
