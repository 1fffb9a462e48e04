"""Stages that tests start in processes of their own, to kill them."""

from __future__ import annotations

from pathlib import Path

import torch

from meta_ood.config import load
from meta_ood.data.context import Machine, no_log
from meta_ood.pipeline import infer

PARAMS = load(Path(__file__).parents[2] / "params.yaml")


def infer_frames(prepared: Path, predictions: Path, machine: Machine = Machine("cpu", 2)) -> None:  # noqa: B008
    torch.set_num_threads(1)
    infer.run(
        PARAMS,
        network="dualgcn_mini",
        variant="baseline",
        dataset="lost_and_found",
        prepared=prepared,
        weights=prepared.parent / "weights.safetensors",
        statistics=prepared.parent / "statistics.safetensors",
        predictions=predictions,
        log=no_log,
        machine=machine,
    )
