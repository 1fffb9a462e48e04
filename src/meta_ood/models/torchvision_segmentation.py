"""torchvision's segmentation networks, at their own stride and without any download."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from meta_ood.models.pixels import IMAGENET_MEAN, IMAGENET_STD, Normalisation


class TorchvisionSegmentation(nn.Module):
    """One of torchvision's networks without its final up-sampling.

    Entries of the state dict are named as in torchvision's own files: ``backbone.*``,
    ``classifier.*`` and, with `auxiliary`, ``aux_classifier.*``.

    Parameters
    ----------
    model
        What torchvision's builder returned.
    mean, std
        Normalisation of the input.
    output_stride
        H / h of the logits.

    Attributes
    ----------
    align_corners
        False, as torchvision up-samples.
    """

    align_corners = False
    backbone_prefixes = ("backbone.",)

    def __init__(
        self,
        model: nn.Module,
        mean: Sequence[float],
        std: Sequence[float],
        output_stride: int = 8,
    ) -> None:
        super().__init__()
        self.output_stride = output_stride
        self.normalisation = Normalisation(mean, std)
        for name, module in model.named_children():
            self.add_module(name, module)
        if "aux_classifier" in dict(self.named_children()):
            self.get_submodule("aux_classifier").requires_grad_(False)
        self._one_map = not hasattr(self.get_submodule("classifier"), "low_classifier")

    def forward(self, image: Tensor) -> Tensor:
        """Map ``(N, 3, H, W)`` in [0, 1] to logits ``(N, C, H / stride, W / stride)``.

        Raises
        ------
        ValueError
            For a batch of one in training mode where there is an image pooling branch.
        """
        features = self.get_submodule("backbone")(self.normalisation(image))
        classifier = self.get_submodule("classifier")
        try:
            logits: Tensor = classifier(features["out"] if self._one_map else features)
        except ValueError as error:  # BatchNorm of one value a channel
            raise ValueError(
                f"{error}: this network cannot train on a batch of one; use a batch_size of at "
                "least 2 and drop a last batch of one"
            ) from error
        return logits


def build_torchvision(
    builder: str,
    num_classes: int,
    auxiliary: bool = False,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    **options: Any,
) -> TorchvisionSegmentation:
    """Build a network of ``torchvision.models.segmentation`` with fresh weights.

    Parameters
    ----------
    builder
        Name of torchvision's builder.
    num_classes
        C.
    auxiliary
        Whether the auxiliary classifier exists; files of torchvision's own weights hold one.
        Nothing runs it.
    mean, std
        Normalisation of the input; torchvision's weights use the default.
    **options
        Further options of torchvision's builder.
    """
    from torchvision.models import segmentation

    if not builder.startswith("lraspp"):
        options["aux_loss"] = auxiliary
    model = getattr(segmentation, builder)(
        weights=None, weights_backbone=None, num_classes=num_classes, **options
    )
    stride = 16 if builder == "deeplabv3_mobilenet_v3_large" else 8
    return TorchvisionSegmentation(model, mean, std, stride)


fcn_resnet50 = partial(build_torchvision, "fcn_resnet50")
fcn_resnet101 = partial(build_torchvision, "fcn_resnet101")
deeplabv3_resnet50 = partial(build_torchvision, "deeplabv3_resnet50")
deeplabv3_resnet101 = partial(build_torchvision, "deeplabv3_resnet101")
deeplabv3_mobilenet = partial(build_torchvision, "deeplabv3_mobilenet_v3_large")
lraspp_mobilenet = partial(build_torchvision, "lraspp_mobilenet_v3_large")
