"""Optimizer, learning rate and weight averaging."""

import math

import torch
from torch import nn

from meta_ood.config import OptimisationParams


def learning_rate(params: OptimisationParams, step: int, steps: int) -> float:
    """Return the learning rate of a step: constant, half a cosine, or (1 - step/steps)^0.9."""
    done = step / steps
    factors = {
        "constant": 1.0,
        "cosine": (1 + math.cos(math.pi * done)) / 2,
        "poly": math.pow(1 - done, 0.9),  # the exponent of DeepLab (Chen et al., 2018)
    }
    return params.learning_rate * factors[params.schedule]


def make_optimizer(network: nn.Module, params: OptimisationParams) -> torch.optim.Optimizer:
    """Return the optimizer; biases and parameters of normalisation have no weight decay."""
    weights = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    groups = [{"params": weights, "weight_decay": params.weight_decay}, {"params": others, "weight_decay": 0.0}]
    if params.optimizer == "sgd":
        return torch.optim.SGD(groups, params.learning_rate, momentum=0.9, fused=True)
    kind = torch.optim.AdamW if params.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, params.learning_rate, fused=True)


@torch.no_grad()
def update_ema(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Move the exponential moving average of the weights by a step; copy the buffers."""
    for own, new in zip(average.parameters(), network.parameters(), strict=True):
        own.lerp_(new, 1 - decay)
    for kept, buffer in zip(average.buffers(), network.buffers(), strict=True):
        kept.copy_(buffer)


@torch.no_grad()
def interpolate(network: nn.Module, start: nn.Module, share: float) -> None:
    """Move the weights to `share` times their own plus (1 - `share`) times those of `start`, which is not changed.

    Running statistics too; integers stay. (WiSE-FT: Wortsman et al., CVPR 2022.)
    """
    before = start.state_dict()
    for name, own in network.state_dict().items():
        if own.is_floating_point():
            own.mul_(share).add_(before[name], alpha=1 - share)


def train_mode(network: nn.Module, batch_norm: str) -> None:
    """Put a network into training mode; with ``frozen`` BatchNorm keeps its running statistics."""
    network.train()
    if batch_norm == "frozen":
        for module in network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
