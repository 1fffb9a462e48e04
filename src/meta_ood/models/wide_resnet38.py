"""WideResNet38 (variant A2, pre-activation blocks): the backbone of DeepLabv3+.

Names, order and shapes of the parameters are the published ones (Wu, Shen & van den Hengel, 2016).
"""

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn

# The published backbone, one entry for each of mod2 to mod7: stride 8 with the two poolings.
MODULES = ("mod2", "mod3", "mod4", "mod5", "mod6", "mod7")
WIDTHS = ((128, 128), (256, 256), (512, 512), (512, 1024), (512, 1024, 2048), (1024, 2048, 4096))
BLOCKS = (3, 3, 6, 3, 1, 1)
STRIDES = (1, 1, 2, 1, 1, 1)
DILATIONS = (1, 1, 1, 2, 4, 4)
DROPOUTS = (0.0, 0.0, 0.0, 0.0, 0.3, 0.5)


def batch_norm_relu(channels: int) -> nn.Sequential:
    """Return BatchNorm and ReLU as one module."""
    return nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(inplace=True))


class ResidualBlock(nn.Module):
    """A pre-activation block: b = ReLU(BN(x)), output = convolutions(b) + shortcut.

    The shortcut is x, or a 1x1 convolution of b where the stride or the width changes.

    Args:
        in_width: Channels of x.
        widths: Output channels of the convolutions: two for 3x3, 3x3; three for 1x1, 3x3, 1x1.
        stride: Of the first convolution.
        dilation: Of the 3x3 convolutions.
        dropout: Probability of the channel dropout before the third convolution.
    """

    def __init__(self, in_width: int, widths: Sequence[int], stride: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.bn1 = batch_norm_relu(in_width)
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        if len(widths) == 2:
            layers["conv1"] = _conv3(in_width, widths[0], stride, dilation)
            layers["bn2"] = batch_norm_relu(widths[0])
            layers["conv2"] = _conv3(widths[0], widths[1], 1, dilation)
        elif len(widths) == 3:
            layers["conv1"] = nn.Conv2d(in_width, widths[0], 1, stride=stride, bias=False)
            layers["bn2"] = batch_norm_relu(widths[0])
            layers["conv2"] = _conv3(widths[0], widths[1], 1, dilation)
            layers["bn3"] = batch_norm_relu(widths[1])
            if dropout:
                layers["dropout"] = nn.Dropout2d(dropout)
            layers["conv3"] = nn.Conv2d(widths[1], widths[2], 1, bias=False)
        else:
            raise ValueError(f"a block has two or three convolutions, got widths {tuple(widths)}")
        self.convs = nn.Sequential(layers)
        self.proj_conv: nn.Conv2d | None = None
        if stride != 1 or in_width != widths[-1]:
            self.proj_conv = nn.Conv2d(in_width, widths[-1], 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, in_width, h, w)`` to ``(N, widths[-1], h / stride, w / stride)``."""
        b = self.bn1(x)
        shortcut = x if self.proj_conv is None else self.proj_conv(b)
        out: Tensor = self.convs(b)
        return out.add_(shortcut)  # in place: `out` is fresh, the shortcut may be x itself


class WideResNet38(nn.Module):
    """The modules `mod1` to `mod7`, with max poolings before `mod2` and `mod3`.

    Args:
        stem_width: Channels of `mod1`, one bare 3x3 convolution.
        stem_stride: Its stride; 1 is the published network.
        widths, blocks, strides, dilations, dropouts: For `mod2` .. `mod7`: channels of a block's convolutions, number
            of blocks, stride of the first block, dilation, channel dropout.
    """

    def __init__(
        self,
        stem_width: int = 64,
        stem_stride: int = 1,
        widths: Sequence[Sequence[int]] = WIDTHS,
        blocks: Sequence[int] = BLOCKS,
        strides: Sequence[int] = STRIDES,
        dilations: Sequence[int] = DILATIONS,
        dropouts: Sequence[float] = DROPOUTS,
    ) -> None:
        super().__init__()
        per_module = {"widths": widths, "blocks": blocks, "strides": strides, "dilations": dilations}
        for name, values in {**per_module, "dropouts": dropouts}.items():
            if len(values) != len(MODULES):
                raise ValueError(f"{name}: expected one entry for each of {', '.join(MODULES)}, got {values!r}")
        self.mod1 = nn.Sequential(OrderedDict(conv1=_conv3(3, stem_width, stem_stride, 1)))
        width = stem_width
        for module, name in enumerate(MODULES):
            layers = nn.Sequential()
            for index in range(blocks[module]):
                stride = strides[module] if index == 0 else 1
                block = ResidualBlock(width, widths[module], stride, dilations[module], dropouts[module])
                layers.add_module(f"block{index + 1}", block)
                width = widths[module][-1]
            self.add_module(name, layers)
        self.pool2 = nn.MaxPool2d(3, stride=2, padding=1)
        self.pool3 = nn.MaxPool2d(3, stride=2, padding=1)
        self.fine_stride = 2 * stem_stride * strides[0]
        self.backbone_width = width

    def fine(self, x: Tensor) -> Tensor:
        """Return the output of `mod2`, ``(N, widths[0][-1], H / fine_stride, ...)``."""
        out: Tensor = self.get_submodule("mod2")(self.pool2(self.mod1(x)))
        return out

    def coarse(self, fine: Tensor) -> Tensor:
        """Map the output of `mod2` to that of `mod7`, ``(N, backbone_width, h, w)``."""
        x: Tensor = self.pool3(fine)
        for name in MODULES[1:]:
            x = self.get_submodule(name)(x)
        return x


def _conv3(in_width: int, width: int, stride: int, dilation: int) -> nn.Conv2d:
    return nn.Conv2d(in_width, width, 3, stride=stride, padding=dilation, dilation=dilation, bias=False)
