"""Networks: ``(N, 3, H, W)`` images in [0, 1] -> ``(N, C, h, w)`` logits at their own stride."""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from meta_ood.data.registry import known_names, resolve
from meta_ood.models.deeplabv3plus import DeepLabV3Plus, deeplabv3plus_mini
from meta_ood.models.dual_gcn import DualGCNNet, dualgcn_mini, dualgcnnet_r101
from meta_ood.models.erfnet import ERFNet
from meta_ood.models.espnetv2 import ESPNetv2
from meta_ood.models.pixels import Normalisation, upsample
from meta_ood.models.torchvision_segmentation import STRIDES, TorchvisionSegmentation

__all__ = ["MODELS", "Normalisation", "build", "upsample"]

MODELS: dict[str, Callable[..., nn.Module]] = {
    "deeplabv3plus_wrn38": DeepLabV3Plus,
    "dualgcnnet_r50": DualGCNNet,
    "dualgcnnet_r101": dualgcnnet_r101,
    "deeplabv3plus_mini": deeplabv3plus_mini,
    "dualgcn_mini": dualgcn_mini,
    "erfnet": ERFNet,
    "espnetv2": ESPNetv2,
    **{f"torchvision/{name}": partial(TorchvisionSegmentation, name) for name in STRIDES},
}
"""Architecture -> ``builder(num_classes, **options)``."""


def build(name: str, num_classes: int, **options: Any) -> nn.Module:
    """Return a network of C classes with fresh weights.

    It maps ``(N, 3, H, W)`` images in [0, 1] to ``(N, C, h, w)`` logits, and has the attributes ``align_corners`` (how
    its logits are up-sampled) and ``output_stride`` (H / h).

    Args:
        name: A key of :data:`MODELS`, or ``package.module:builder`` for a network of your own.
        num_classes, **options: Arguments of the builder.

    The option ``features`` names the module of the network whose output scores of features take; it becomes an
    attribute.

    Raises:
        ValueError: If the name, an option or that module is unknown, or the builder returns something else.
    """
    builder = resolve("architecture", MODELS, name)
    features = options.pop("features", None)
    try:
        network = builder(num_classes, **options)
    except TypeError as error:
        raise ValueError(f"architecture {name}: options {options}: {error}") from error
    if not isinstance(network, nn.Module):
        raise ValueError(f"architecture {name}: returned {type(network).__name__}, no nn.Module")
    missing = [a for a in ("align_corners", "output_stride") if not hasattr(network, a)]
    if missing:
        raise ValueError(
            f"architecture {name}: {type(network).__name__} has no attribute {', '.join(missing)}; "
            "set align_corners (bool: how its logits are up-sampled) and output_stride (int)"
        )
    if features is not None:
        check_module(network, features)
        network.features = features
    return network


def check_module(network: nn.Module, name: str) -> None:
    """Refuse a name that is no module of a network; the ValueError lists those in its deepest known parent."""
    known = dict(network.named_modules())
    if name in known:
        return
    parent = name
    while parent not in known:
        parent = parent.rpartition(".")[0]
    names = [f"{parent}.{child}".lstrip(".") for child, _ in known[parent].named_children()]
    raise ValueError(f"options.features: no module {name!r}; {known_names(name, names)}")
