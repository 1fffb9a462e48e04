"""ResNet with a deep stem and dilated upper layers: the backbone of DualGCNNet.

Names, order and shapes of the parameters are the published ones.
"""

import math
from collections.abc import Sequence

from torch import Tensor, nn

from meta_ood.models.pixels import conv_bn_relu

EXPANSION = 4  # output channels of a bottleneck per inner channel
# The published backbone: layers 3 and 4 are dilated instead of strided, which leaves stride 8.
PLANES = (64, 128, 256, 512)
STRIDES = (1, 2, 1, 1)
DILATIONS = (1, 1, 2, 4)
MULTI_GRID = (1, 2, 4)  # factors on the dilation of layer4's blocks


class Bottleneck(nn.Module):
    """1x1, 3x3 (with stride and dilation) and 1x1 convolution, added to a shortcut; 4 `planes` output channels."""

    def __init__(self, in_width: int, planes: int, stride: int, dilation: int) -> None:
        super().__init__()
        width = planes * EXPANSION
        self.conv1 = nn.Conv2d(in_width, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride=stride, padding=dilation, dilation=dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or in_width != width:
            projection = nn.Conv2d(in_width, width, 1, stride=stride, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, in_width, h, w)`` to ``(N, 4 * planes, h / stride, w / stride)``."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        out: Tensor = self.relu(self.bn3(self.conv3(x)).add_(shortcut))
        return out


class ResNet(nn.Module):
    """A stem of three convolutions and four layers of bottlenecks.

    Args:
        blocks: Blocks of each layer: (3, 4, 6, 3) is ResNet50, (3, 4, 23, 3) is ResNet101.
        stem_width: Channels of the first two stem convolutions; the third has twice as many.
        planes, strides, dilations, multi_grid: Inner channels, stride and dilation of each layer, and layer4's factors
            on its dilation.
    """

    def __init__(
        self,
        blocks: Sequence[int],
        stem_width: int = 64,
        planes: Sequence[int] = PLANES,
        strides: Sequence[int] = STRIDES,
        dilations: Sequence[int] = DILATIONS,
        multi_grid: Sequence[int] = MULTI_GRID,
    ) -> None:
        super().__init__()
        per_layer = {"blocks": blocks, "planes": planes, "strides": strides, "dilations": dilations}
        for name, values in per_layer.items():
            if len(values) != 4:
                raise ValueError(f"{name}: expected one entry for each of 4 layers, got {values!r}")
        self.conv1 = nn.Sequential(
            *conv_bn_relu(3, stem_width, stride=2),
            *conv_bn_relu(stem_width, stem_width),
            nn.Conv2d(stem_width, 2 * stem_width, 3, padding=1, bias=False),
        )
        self.bn1 = nn.BatchNorm2d(2 * stem_width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True)
        width = 2 * stem_width
        for layer in range(4):
            grid = multi_grid if layer == 3 else (1,)
            bottlenecks = nn.Sequential()
            for index in range(blocks[layer]):
                stride = strides[layer] if index == 0 else 1
                dilation = dilations[layer] * grid[index % len(grid)]
                bottlenecks.append(Bottleneck(width, planes[layer], stride, dilation))
                width = planes[layer] * EXPANSION
            self.add_module(f"layer{layer + 1}", bottlenecks)
        self.output_stride = 4 * math.prod(strides)
        self.backbone_width = width

    def backbone(self, x: Tensor) -> Tensor:
        """Map a normalised ``(N, 3, H, W)`` to layer4's output, ``(N, backbone_width, h, w)``."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for layer in range(1, 5):
            x = self.get_submodule(f"layer{layer}")(x)
        return x
