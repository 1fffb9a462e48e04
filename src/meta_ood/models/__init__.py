"""Networks: ``(N, 3, H, W)`` images in [0, 1] -> ``(N, C, h, w)`` logits at their own stride."""

from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

from torch import nn

from meta_ood.data.registry import known_names, resolve
from meta_ood.models import smp_segmentation, torchvision_segmentation, transformers_segmentation
from meta_ood.models.deeplabv3plus import DeepLabV3Plus, deeplabv3plus_mini
from meta_ood.models.dual_gcn import DualGCNNet, dualgcn_mini, dualgcnnet_r101
from meta_ood.models.erfnet import ERFNet
from meta_ood.models.espnetv2 import ESPNetv2
from meta_ood.models.pixels import Normalisation, upsample
from meta_ood.models.smp_segmentation import SmpSegmentation
from meta_ood.models.timm_linear import TimmLinear
from meta_ood.models.torchvision_segmentation import TorchvisionSegmentation
from meta_ood.models.transformers_segmentation import TransformersSegmentation

__all__ = ["MODELS", "Normalisation", "build", "upsample"]

MODELS: dict[str, Callable[..., nn.Module]] = {
    "deeplabv3plus_wrn38": DeepLabV3Plus,
    "dualgcnnet_r50": DualGCNNet,
    "dualgcnnet_r101": dualgcnnet_r101,
    "deeplabv3plus_mini": deeplabv3plus_mini,
    "dualgcn_mini": dualgcn_mini,
    "erfnet": ERFNet,
    "espnetv2": ESPNetv2,
    **{f"torchvision/{name}": partial(TorchvisionSegmentation, name) for name in torchvision_segmentation.STRIDES},
    "transformers": TransformersSegmentation,
    **{f"smp/{name}": partial(SmpSegmentation, name) for name in smp_segmentation.NAMES},
}
"""Architecture -> ``builder(num_classes, **options)``; besides these, ``timm/BACKBONE`` for each model of timm."""

LIBRARIES = {"transformers": "transformers", "smp": "segmentation_models_pytorch", "timm": "timm"}
"""How architectures of optional libraries begin, which is also the extra's name -> the package that they need."""


def library_of(name: str) -> str | None:
    """Return the key of :data:`LIBRARIES` for an architecture, None if it needs no optional package."""
    family = name.partition("/")[0]
    return family if family in LIBRARIES else None


def installed(library: str) -> str | None:
    """Return the installed version of a key of :data:`LIBRARIES`, None if it is not installed."""
    return version(LIBRARIES[library].replace("_", "-")) if find_spec(LIBRARIES[library]) else None


def is_ours(name: str) -> bool:
    """Return whether an architecture is code of this package or of a library that it names, not of a user."""
    return name in MODELS or name.startswith("timm/")


def portable(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options from which :func:`build` makes the same network on any machine.

    They replace the ``path`` of a folder of transformers by its contents, but for the weights.

    Raises:
        ValueError: See :func:`meta_ood.models.transformers_segmentation.read_folder`.
    """
    if name != "transformers" or "config" in options:
        return dict(options)
    _require(name)
    if "path" not in options:
        raise ValueError("architecture transformers: options.path is missing, the folder of a network")
    return transformers_segmentation.read_folder(**options)


def build(name: str, num_classes: int, **options: Any) -> nn.Module:
    """Return a network of C classes with fresh weights.

    It maps ``(N, 3, H, W)`` images in [0, 1] to ``(N, C, h, w)`` logits, and has the attributes ``align_corners`` (how
    its logits are up-sampled) and ``output_stride`` (H / h).

    Args:
        name: A key of :data:`MODELS`, ``timm/BACKBONE``, or ``package.module:builder`` for a network of your own.
        num_classes, **options: Arguments of the builder.

    The option ``features`` names the module of the network whose output scores of features take; it becomes an
    attribute.

    Raises:
        ValueError: If the name, an option or that module is unknown, a package is missing, or the builder returns
            something else.
    """
    if name.startswith("timm/"):
        builder: Callable[..., nn.Module] = partial(TimmLinear, name.removeprefix("timm/"))
    else:
        builder = resolve("architecture", MODELS, name)
    _require(name)
    features = options.pop("features", None)
    try:
        network = builder(num_classes, **portable(name, options))
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
    """Refuse a name that is no module of a network.

    The ValueError lists the modules whose names end so, or if there are none those in its deepest known parent.
    """
    known = dict(network.named_modules())
    if name in known:
        return
    parent = name
    while parent not in known:
        parent = parent.rpartition(".")[0]
    names = [full for full in known if full.endswith(f".{name}")]  # library networks are below `model.`
    names = names or [f"{parent}.{child}".lstrip(".") for child, _ in known[parent].named_children()]
    raise ValueError(f"options.features: no module {name!r}; {known_names(name, names)}")


def _require(name: str) -> None:
    """Refuse an architecture whose package is not installed."""
    library = library_of(name)
    if library and find_spec(LIBRARIES[library]) is None:
        package = f"the package {LIBRARIES[library]}, which is not installed"
        raise ValueError(f"architecture {name} needs {package}: pip install 'meta-ood[{library}]'")
