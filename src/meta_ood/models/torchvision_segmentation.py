"""torchvision's segmentation networks, at their own stride and without any download."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from meta_ood.models.pixels import IMAGENET_MEAN, IMAGENET_STD, Normalisation, batches_of_one_explained

# Name of torchvision's builder -> H / h of its logits.
STRIDES = {"fcn_resnet50": 8, "fcn_resnet101": 8, "deeplabv3_resnet50": 8, "deeplabv3_resnet101": 8}
STRIDES |= {"deeplabv3_mobilenet_v3_large": 16, "lraspp_mobilenet_v3_large": 8}


class TorchvisionSegmentation(nn.Module):
    """One of torchvision's networks with fresh weights, without its final up-sampling.

    Entries of the state dict are named as in torchvision's own files: ``backbone.*``, ``classifier.*`` and, with
    `auxiliary`, ``aux_classifier.*``.

    Args:
        builder: Name of torchvision's builder, a key of :data:`STRIDES`.
        num_classes: C.
        auxiliary: Whether the auxiliary classifier exists, which files of torchvision's weights hold. It is never run
            and its parameters require no gradient.
        mean, std: Normalisation of the input; torchvision's weights use the default.
        **options: Further options of torchvision's builder.
    """

    align_corners = False  # as torchvision up-samples
    backbone_prefixes = ("backbone.",)

    def __init__(
        self,
        builder: str,
        num_classes: int,
        auxiliary: bool = False,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        **options: Any,
    ) -> None:
        super().__init__()
        from torchvision.models import segmentation  # here: the import takes a second

        if not builder.startswith("lraspp"):  # which has no auxiliary classifier
            options["aux_loss"] = auxiliary
        model = getattr(segmentation, builder)(weights=None, weights_backbone=None, num_classes=num_classes, **options)
        self.output_stride = STRIDES[builder]
        self.normalisation = Normalisation(mean, std)
        for name, module in model.named_children():
            self.add_module(name, module)
        if auxiliary:
            self.get_submodule("aux_classifier").requires_grad_(False)
        # LR-ASPP's classifier takes two feature maps, the others take one
        self._one_map = not builder.startswith("lraspp")

    def forward(self, image: Tensor) -> Tensor:
        """Map ``(N, 3, H, W)`` in [0, 1] to logits ``(N, C, H / stride, W / stride)``."""
        features = self.get_submodule("backbone")(self.normalisation(image))
        classifier = self.get_submodule("classifier")
        with batches_of_one_explained():
            logits: Tensor = classifier(features["out"] if self._one_map else features)
        return logits
