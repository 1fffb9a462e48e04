"""DeepLabv3+ on WideResNet38: the published network by default, smaller ones by options.

Names, order and shapes of the parameters are the published ones (Zhu et al., CVPR 2019).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from meta_ood.models.pixels import IMAGENET_MEAN, IMAGENET_STD, Normalisation, conv_bn_relu, upsample
from meta_ood.models.wide_resnet38 import WideResNet38


class AtrousSpatialPyramid(nn.Module):
    """Image pooling, a 1x1 convolution and 3x3 convolutions with dilations `rates`, concatenated."""

    def __init__(self, in_width: int, width: int, rates: Sequence[int]) -> None:
        super().__init__()
        self.features = nn.ModuleList([conv_bn_relu(in_width, width, 1)])
        self.features.extend(conv_bn_relu(in_width, width, 3, rate) for rate in rates)
        self.img_conv = conv_bn_relu(in_width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, in_width, h, w)`` to ``(N, (2 + rates) * width, h, w)``; ValueError if N = 1 in training."""
        if len(x) == 1 and self.img_conv.training and self.img_conv[1].training:
            raise ValueError(
                "DeepLabv3+ cannot train on a batch of one: image pooling leaves one value per channel, and BatchNorm "
                "needs two. Use a batch_size of at least 2, or network.aspp.img_conv.eval()"
            )
        pooled = self.img_conv(x.mean((2, 3), keepdim=True))  # (N, width, 1, 1)
        return torch.cat([pooled.expand(-1, -1, *x.shape[2:]), *(feature(x) for feature in self.features)], 1)


class DeepLabV3Plus(WideResNet38):
    """DeepLabv3+ with a WideResNet38 backbone; stride 2 by default, as published.

    Args:
        num_classes: C.
        aspp_width, rates: Width of the pyramid's branches, dilations of its 3x3 convolutions.
        fine_width: Channels taken from `mod2`.
        mean, std: Normalisation of the input.
        **backbone: Options of :class:`WideResNet38`.
    """

    align_corners = True
    backbone_prefixes = ("mod1.", "mod2.", "mod3.", "mod4.", "mod5.", "mod6.", "mod7.")

    def __init__(
        self,
        num_classes: int,
        aspp_width: int = 256,
        rates: Sequence[int] = (12, 24, 36),
        fine_width: int = 48,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        **backbone: Any,
    ) -> None:
        super().__init__(**backbone)
        self.normalisation = Normalisation(mean, std)
        self.output_stride = self.fine_stride
        self.aspp = AtrousSpatialPyramid(self.backbone_width, aspp_width, rates)
        mod2_width: int = self.get_submodule("mod3.block1.bn1.0").num_features  # type: ignore[assignment]
        # names and order of the modules are the published ones: they make the state dict
        self.bot_fine = nn.Conv2d(mod2_width, fine_width, 1, bias=False)
        self.bot_aspp = nn.Conv2d((2 + len(rates)) * aspp_width, aspp_width, 1, bias=False)
        self.final = nn.Sequential(
            *conv_bn_relu(fine_width + aspp_width, aspp_width),
            *conv_bn_relu(aspp_width, aspp_width),
            nn.Conv2d(aspp_width, num_classes, 1, bias=False),
        )

    def forward(self, image: Tensor) -> Tensor:
        """Map ``(N, 3, H, W)`` in [0, 1] to logits ``(N, C, H / stride, W / stride)``."""
        x = self.fine(self.normalisation(image))  # (N, .., H / stride, W / stride)
        fine = self.bot_fine(x)
        x = self.bot_aspp(self.aspp(self.coarse(x)))  # (N, .., H / 8, W / 8) when published
        x = upsample(x, (fine.shape[2], fine.shape[3]))
        logits: Tensor = self.final(torch.cat((fine, x), 1))
        return logits


# Stride 4 and half-size dilations, because the demo's frames are 128 x 256: 16 x 32 features.
MINI: dict[str, Any] = {
    "stem_width": 16,
    "stem_stride": 2,
    "widths": ((24, 24), (48, 48), (64, 64), (64, 96), (48, 64, 128), (64, 96, 160)),
    "blocks": (1, 1, 1, 1, 1, 1),
    "strides": (1, 1, 1, 1, 1, 1),
    "dilations": (1, 1, 1, 2, 2, 2),
    "dropouts": (0.0, 0.0, 0.0, 0.0, 0.0, 0.1),
    "aspp_width": 48,
    "rates": (2, 4, 6),
    "fine_width": 24,
}


def deeplabv3plus_mini(num_classes: int, **options: Any) -> DeepLabV3Plus:
    """Return the demo's DeepLabv3+; `options` replace those of :data:`MINI`."""
    return DeepLabV3Plus(num_classes, **{**MINI, **options})
