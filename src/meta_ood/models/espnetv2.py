"""ESPNetv2 for segmentation (Mehta et al., CVPR 2019): depth-wise dilated convolutions in pyramids.

Names, order and shapes of the parameters are the published ones.
"""

import math
from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, avg_pool2d

from meta_ood.models.pixels import IMAGENET_MEAN, IMAGENET_STD, Normalisation, upsample

BRANCHES = 4  # dilated convolutions side by side in an EESP unit, and groups of its 1x1 convolutions
SCALES = (2.0, 1.5, 1.0, 0.5, 0.1)  # of the decoder's pyramid, relative to its input
SMALLEST = 5  # [px] least height and width of a level of that pyramid
LEVELS = (2, 3, 4)  # of the decoder that take features of the encoder


def named(**layers: nn.Module) -> nn.Sequential:
    """Return layers one after another, with the names that they have in published files."""
    return nn.Sequential(OrderedDict(layers))


def conv_bn(in_width: int, width: int, kernel: int, stride: int = 1, groups: int = 1, act: bool = True) -> nn.Module:
    """Return a convolution that keeps the size (but for `stride`), BatchNorm and, with `act`, PReLU."""
    conv = nn.Conv2d(in_width, width, kernel, stride, kernel // 2, groups=groups, bias=False)
    layers = named(conv=conv, bn=nn.BatchNorm2d(width))
    if act:
        layers.add_module("act", nn.PReLU(width))
    return layers


def bn_prelu(width: int) -> nn.Sequential:
    """Return BatchNorm and PReLU."""
    return nn.Sequential(nn.BatchNorm2d(width), nn.PReLU(width))


def conv_bn_prelu(in_width: int, width: int, kernel: int, groups: int = 1) -> nn.Module:
    """Return a convolution of the decoder, BatchNorm and PReLU."""
    conv = nn.Conv2d(in_width, width, kernel, padding=kernel // 2, groups=groups, bias=False)
    return named(cbr=nn.Sequential(conv, *bn_prelu(width)))


def halved(x: Tensor) -> Tensor:
    """Return averages of 3x3 pixels at every second one: ``(N, C, h / 2, w / 2)``, rounded up."""
    return avg_pool2d(x, 3, padding=1, stride=2)


class EESP(nn.Module):
    """Extremely efficient spatial pyramid: reduce, dilate in branches, add them up, expand.

    Args:
        in_width, width: Channels of input and output.
        stride: 2 halves height and width; then nothing is added, and no activation follows.
        largest: Largest receptive field of a branch [px]; branches beyond it fall back to 3.
    """

    def __init__(self, in_width: int, width: int, stride: int, largest: int) -> None:
        super().__init__()
        branch = width // BRANCHES
        self.proj_1x1 = conv_bn(in_width, branch, 1, groups=BRANCHES)
        self.spp_dw = nn.ModuleList()
        for field in sorted(f if f <= largest else 3 for f in range(3, 3 + 2 * BRANCHES, 2)):
            d = field // 2  # a 3x3 convolution of dilation d sees 2 d + 1 pixels
            self.spp_dw.append(named(conv=nn.Conv2d(branch, branch, 3, stride, d, d, groups=branch, bias=False)))
        self.conv_1x1_exp = conv_bn(width, width, 1, groups=BRANCHES, act=False)
        self.br_after_cat = named(bn=nn.BatchNorm2d(width), act=nn.PReLU(width))
        self.module_act = nn.PReLU(width)  # in published files also where nothing is added
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, in_width, h, w)`` to ``(N, width, h / stride, w / stride)``."""
        reduced = self.proj_1x1(x)
        first, *others = self.spp_dw
        branches = [first(reduced)]
        for dilated in others:  # hierarchical fusion: each adds the one before, against gridding artefacts
            branches.append(dilated(reduced) + branches[-1])
        y: Tensor = self.conv_1x1_exp(self.br_after_cat(torch.cat(branches, 1)))
        if self.stride == 1:
            y = self.module_act(y + x)
        return y


class Downsampler(nn.Module):
    """Halves height and width: average pooling beside EESP, to which features of the image are added."""

    def __init__(self, in_width: int, width: int, largest: int) -> None:
        super().__init__()
        self.eesp = EESP(in_width, width - in_width, 2, largest)
        self.inp_reinf = nn.Sequential(conv_bn(3, 3, 3), conv_bn(3, width, 1, act=False))
        self.act = nn.PReLU(width)

    def forward(self, x: Tensor, image: Tensor) -> Tensor:
        """Map ``(N, in_width, h, w)`` and the image at half that size to ``(N, width, h / 2, w / 2)``."""
        y: Tensor = self.act(torch.cat([halved(x), self.eesp(x)], 1) + self.inp_reinf(image))
        return y


class Encoder(nn.Module):
    """The paper's classification network up to stride 16; `widths` are the channels of its four levels."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.level1 = conv_bn(3, widths[0], 3, 2)
        self.level2_0 = Downsampler(widths[0], widths[1], 13)
        self.level3_0 = Downsampler(widths[1], widths[2], 11)
        self.level3 = nn.Sequential(*(EESP(widths[2], widths[2], 1, 9) for _ in range(3)))
        self.level4_0 = Downsampler(widths[2], widths[3], 9)
        self.level4 = nn.Sequential(*(EESP(widths[3], widths[3], 1, 7) for _ in range(7)))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Map ``(N, 3, H, W)`` to features at strides 2, 4, 8 and 16."""
        quarter = halved(halved(image))
        eighth = halved(quarter)
        level1 = self.level1(image)
        level2 = self.level2_0(level1, quarter)
        level3 = self.level3(self.level3_0(level2, eighth))
        level4 = self.level4(self.level4_0(level3, halved(eighth)))
        return level1, level2, level3, level4


class PyramidPooling(nn.Module):
    """Depth-wise convolutions of the input at several scales, merged.

    Args:
        in_width, inner, width: Channels of the input, of each scale, and of the output.
        last: Whether the output are logits: then no BatchNorm and PReLU follow.
    """

    def __init__(self, in_width: int, inner: int, width: int, last: bool = False) -> None:
        super().__init__()
        each = (nn.Conv2d(inner, inner, 3, padding=1, groups=inner, bias=False) for _ in SCALES)
        self.stages = nn.ModuleList(each)
        self.projection_layer = conv_bn_prelu(in_width, inner, 1)
        scales = len(SCALES)
        self.merge_layer = nn.Sequential(
            named(br=bn_prelu(inner * scales)),
            nn.ChannelShuffle(scales),  # then each group of the convolution sees one channel at all scales
            conv_bn_prelu(inner * scales, inner, 3, groups=inner),
            nn.Conv2d(inner, width, 1, bias=last),
        )
        self.br = nn.Identity() if last else named(br=bn_prelu(width))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, in_width, h, w)`` to ``(N, width, h, w)``."""
        x = self.projection_layer(x)
        size = (x.shape[2], x.shape[3])
        scaled = []
        for scale, stage in zip(SCALES, self.stages, strict=True):
            own = (max(math.ceil(size[0] * scale), SMALLEST), max(math.ceil(size[1] * scale), SMALLEST))
            # bilinear towards more pixels, averages towards fewer
            if scale < 1:
                scaled.append(upsample(stage(adaptive_avg_pool2d(x, own)), size))
            elif scale > 1:
                scaled.append(adaptive_avg_pool2d(stage(upsample(x, own)), size))
            else:
                scaled.append(stage(x))
        y: Tensor = self.br(self.merge_layer(torch.cat(scaled, 1)))
        return y


class Merge(nn.Module):
    """Features of an encoder level in the decoder's width, each channel weighted by its average."""

    def __init__(self, in_width: int, width: int) -> None:
        super().__init__()
        project = nn.Conv2d(in_width, width, 1, bias=False)
        self.wt_layer = nn.Sequential(nn.AdaptiveAvgPool2d(1), project, nn.Sigmoid())
        self.expansion_layer = conv_bn_prelu(in_width, width, 3, groups=math.gcd(in_width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, in_width, h, w)`` to ``(N, width, h, w)``."""
        y: Tensor = self.expansion_layer(x) * self.wt_layer(x)
        return y


class ESPNetv2(nn.Module):
    """ESPNetv2 for segmentation, at stride 2.

    Args:
        num_classes: C.
        void_output: As for :class:`meta_ood.models.erfnet.ERFNet`.
        scale: Factor on the encoder's widths; 2 is the largest published network.
        decoder_width: Base width of the decoder.
        mean, std: Normalisation of the input.
    """

    align_corners = True
    output_stride = 2

    def __init__(
        self,
        num_classes: int,
        void_output: bool = False,
        scale: float = 2.0,
        decoder_width: int = 16,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        outputs = num_classes + void_output
        base = math.ceil(int(32 * scale) / BRANCHES) * BRANCHES
        widths = (min(32, base), 2 * base, 4 * base, 8 * base)
        decoder = (4 * decoder_width, 3 * decoder_width, 2 * decoder_width)
        inner = min(outputs // 2, decoder_width)
        self.num_classes = num_classes
        self.normalisation = Normalisation(mean, std)
        # order and names of the modules are the published ones: they make the state dict
        self.base_net = Encoder(widths)
        self.bu_dec_l1 = PyramidPooling(widths[3], inner, decoder[0])
        self.bu_dec_l2 = PyramidPooling(decoder[0], inner, decoder[1])
        self.bu_dec_l3 = PyramidPooling(decoder[1], inner, decoder[2])
        self.bu_dec_l4 = PyramidPooling(decoder[2], inner, outputs, last=True)
        for level, features, width in zip(LEVELS, widths[2::-1], decoder, strict=True):
            self.add_module(f"merge_enc_dec_l{level}", Merge(features, width))
        for level, width in zip(LEVELS, decoder, strict=True):
            self.add_module(f"bu_br_l{level}", bn_prelu(width))

    def forward(self, image: Tensor) -> Tensor:
        """Map ``(N, 3, H, W)`` in [0, 1] to logits ``(N, C, H / 2, W / 2)``."""
        level1, level2, level3, level4 = self.base_net(self.normalisation(image))
        x: Tensor = self.bu_dec_l1(level4)
        for level, features in zip(LEVELS, (level3, level2, level1), strict=True):
            x = upsample(x, (features.shape[2], features.shape[3]))
            x = self.get_submodule(f"merge_enc_dec_l{level}")(features) + x
            x = self.get_submodule(f"bu_br_l{level}")(x)
            x = self.get_submodule(f"bu_dec_l{level}")(x)
        return x[:, : self.num_classes]  # void comes last
