"""Size and cost of a network: parameters, operations, memory."""

from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from meta_ood.models import build

FRAME = (1024, 2048)
"""(H, W) of a Cityscapes frame [px]."""

# Measured by `benchmarks/networks.py --memory`: peak of a process that infers one FRAME in float32
# on the CPU, with the weights and torch itself.
PEAK_MEMORY_GB: dict[str, float] = {
    "deeplabv3plus_wrn38": 3.7,
    "dualgcnnet_r50": 2.1,
    "dualgcnnet_r101": 2.2,
    "deeplabv3plus_mini": 0.9,
    "dualgcn_mini": 1.1,
    "erfnet": 1.2,
    "espnetv2": 1.5,
    "torchvision/fcn_resnet50": 2.0,
    "torchvision/fcn_resnet101": 2.1,
    "torchvision/deeplabv3_resnet50": 2.0,
    "torchvision/deeplabv3_resnet101": 2.1,
    "torchvision/deeplabv3_mobilenet_v3_large": 1.3,
    "torchvision/lraspp_mobilenet_v3_large": 1.2,
}


@dataclass(frozen=True)
class NetworkFacts:
    """Size and cost of a network."""

    parameters: int  # those of an auxiliary head included
    output_stride: int  # H / h of its logits
    gflop: float  # 10^9 floating point operations for one frame; a multiply-add counts as two


def network_facts(
    architecture: str, num_classes: int = 19, size: tuple[int, int] = FRAME, **options: Any
) -> NetworkFacts:
    """Return size and cost of a network for frames of `size`, counted on the meta device: no memory, no arithmetic."""
    with torch.device("meta"):
        network = build(architecture, num_classes, **options).eval().to("meta")
        image = torch.empty(1, 3, *size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(image)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    stride: Any = network.output_stride
    return NetworkFacts(parameters, int(stride), counter.get_total_flops() / 1e9)
