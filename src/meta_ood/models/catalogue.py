"""Size and cost of a network: parameters, operations, memory."""

from collections.abc import Mapping
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
    "torchvision/fcn_resnet50": 2.0,
    "torchvision/fcn_resnet101": 2.1,
    "torchvision/deeplabv3_resnet50": 2.0,
    "torchvision/deeplabv3_resnet101": 2.1,
    "torchvision/deeplabv3_mobilenet_v3_large": 1.3,
    "torchvision/lraspp_mobilenet_v3_large": 1.2,
}


@dataclass(frozen=True)
class NetworkFacts:
    """Size and cost of a network.

    Attributes:
        parameters: Number of parameters, those of an auxiliary head included.
        output_stride: H / h of its logits.
        gflop: Floating point operations for one frame [10^9]; a multiply-add counts as two.
    """

    parameters: int
    output_stride: int
    gflop: float


def network_facts(
    architecture: str, num_classes: int = 19, options: Mapping[str, Any] | None = None, size: tuple[int, int] = FRAME
) -> NetworkFacts:
    """Return size and cost of a network, counted on the meta device: no memory, no arithmetic.

    Args:
        architecture, num_classes, options: Arguments of :func:`meta_ood.models.build`.
        size: ``(H, W)`` of one frame [px].

    Examples:
        >>> network_facts("dualgcn_mini", size=(128, 256)).output_stride
        4
    """
    with torch.device("meta"):
        network = build(architecture, num_classes, **(options or {})).eval().to("meta")
        image = torch.empty(1, 3, *size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(image)
    stride: Any = network.output_stride
    return NetworkFacts(
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        output_stride=int(stride),
        gflop=counter.get_total_flops() / 1e9,
    )
