"""DualGCNNet: graph convolutions over positions and over features (Zhang et al., BMVC 2019).

Names, order and shapes of the parameters are the published ones.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from meta_ood.models.pixels import IMAGENET_MEAN, IMAGENET_STD, Normalisation, conv_bn_relu, upsample
from meta_ood.models.resnet import EXPANSION, PLANES, ResNet


class SpatialGCN(nn.Module):
    """Graph convolution over the positions of a coarse map.

    With K, V, Q (P/2 x n), three 1x1 convolutions of s: A = softmax over the last axis of Q Vᵀ, T = BN(1x1 of AᵀK),
    result = ReLU(BN(1x1 of T) + s).
    """

    def __init__(self, planes: int) -> None:
        super().__init__()
        inner = planes // 2
        self.node_k = nn.Conv2d(planes, inner, 1)
        self.node_v = nn.Conv2d(planes, inner, 1)
        self.node_q = nn.Conv2d(planes, inner, 1)
        self.conv_wg = nn.Conv1d(inner, inner, 1, bias=False)
        self.bn_wg = nn.BatchNorm1d(inner)
        self.out = nn.Sequential(nn.Conv2d(inner, planes, 1), nn.BatchNorm2d(planes))

    def forward(self, s: Tensor) -> Tensor:
        """Map ``(N, P, h, w)`` to ``(N, P, h, w)``."""
        k, v, q = (node(s).flatten(2) for node in (self.node_k, self.node_v, self.node_q))  # (N, P/2, n)
        attention = (q @ v.transpose(1, 2)).softmax(-1)  # (N, P/2, P/2)
        t = attention.transpose(1, 2) @ k  # (N, P/2, n)
        t = self.bn_wg(self.conv_wg(t)).unflatten(2, s.shape[2:])  # (N, P/2, h, w)
        return functional.relu(self.out(t) + s)


class DualGCN(nn.Module):
    """The spatial and the feature branch on the same map of P (`planes`) channels, fused by a 1x1 convolution."""

    def __init__(self, planes: int) -> None:
        super().__init__()
        if planes % 4:
            raise ValueError(f"planes: expected a multiple of 4, got {planes}")
        phi, theta = planes // 2, planes // 4  # channels
        self.phi = nn.Conv2d(planes, phi, 1, bias=False)
        self.bn_phi = nn.BatchNorm2d(phi)
        self.theta = nn.Conv2d(planes, theta, 1, bias=False)
        self.bn_theta = nn.BatchNorm2d(theta)
        self.conv_adj = nn.Conv1d(theta, theta, 1, bias=False)
        self.bn_adj = nn.BatchNorm1d(theta)
        self.conv_wg = nn.Conv1d(phi, phi, 1, bias=False)
        self.bn_wg = nn.BatchNorm1d(phi)
        self.conv3 = nn.Conv2d(phi, planes, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(planes)
        self.local = nn.Sequential()
        for _ in range(3):  # depthwise, each halves the map
            self.local.append(nn.Conv2d(planes, planes, 3, stride=2, padding=1, groups=planes, bias=False))
            self.local.append(nn.BatchNorm2d(planes))
        self.gcn_local_attention = SpatialGCN(planes)
        self.final = nn.Sequential(nn.Conv2d(2 * planes, planes, 1, bias=False), nn.BatchNorm2d(planes))

    def forward(self, a: Tensor) -> Tensor:
        """Map ``(N, P, h, w)`` to ``(N, P, h, w)``."""
        out: Tensor = self.final(torch.cat((self._spatial(a), self._feature(a)), 1))
        return out

    def _spatial(self, a: Tensor) -> Tensor:
        height, width = a.shape[2:]
        if self.training and len(a) == 1 and max(height, width) <= 8:
            raise ValueError(
                f"DualGCNNet cannot train on a batch of one with a feature map of {height} x {width}: three strides "
                "of 2 leave one value per channel, BatchNorm needs two. Use a batch_size of at least 2 or a larger crop"
            )
        s = self.gcn_local_attention(self.local(a))  # (N, P, h / 8, w / 8)
        return a * upsample(s, (height, width)) + a

    def _feature(self, a: Tensor) -> Tensor:
        phi = self.bn_phi(self.phi(a)).flatten(2)  # (N, P/2, n)
        theta = self.bn_theta(self.theta(a)).flatten(2)  # (N, P/4, n)
        z = phi @ theta.transpose(1, 2)  # (N, P/2, P/4), grows with the number of positions
        z = z + self.bn_adj(self.conv_adj(z.transpose(1, 2))).transpose(1, 2)
        z = self.bn_wg(self.conv_wg(z))
        y = (z @ theta).unflatten(2, a.shape[2:])  # (N, P/2, h, w)
        return functional.relu(a + self.bn3(self.conv3(y)))


class DualGCNHead(nn.Module):
    """The head on features x: a = 3x3 of x; b = 3x3 of DualGCN(a); logits = 1x1 of 3x3 of (x, b)."""

    def __init__(self, in_width: int, planes: int, num_classes: int) -> None:
        super().__init__()
        self.conva = conv_bn_relu(in_width, planes)
        self.dualgcn = DualGCN(planes)
        self.convb = conv_bn_relu(planes, planes)
        self.bottleneck = conv_bn_relu(in_width + planes, planes)
        self.bottleneck.append(nn.Conv2d(planes, num_classes, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, in_width, h, w)`` to logits ``(N, C, h, w)``."""
        b = self.convb(self.dualgcn(self.conva(x)))
        logits: Tensor = self.bottleneck(torch.cat((x, b), 1))
        return logits


class DualGCNNet(ResNet):
    """DualGCNNet with a ResNet backbone; stride 8 by default, as published.

    Args:
        num_classes: C.
        head_planes: P, a multiple of 4.
        auxiliary: Whether the published auxiliary head `dsn` on layer3 exists, so that published checkpoints load
            strictly. The forward pass never uses it and its parameters require no gradient.
        mean, std: Normalisation of the input.
        blocks, planes, **backbone: Options of :class:`ResNet`.
    """

    align_corners = True
    backbone_prefixes = ("conv1.", "bn1.", "layer1.", "layer2.", "layer3.", "layer4.")

    def __init__(
        self,
        num_classes: int,
        blocks: Sequence[int] = (3, 4, 6, 3),
        head_planes: int = 512,
        auxiliary: bool = True,
        planes: Sequence[int] = PLANES,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        **backbone: Any,
    ) -> None:
        super().__init__(blocks, planes=planes, **backbone)
        self.normalisation = Normalisation(mean, std)
        self.head = DualGCNHead(self.backbone_width, head_planes, num_classes)
        if auxiliary:
            self.dsn = nn.Sequential(
                nn.Conv2d(planes[2] * EXPANSION, head_planes, 3, padding=1),
                nn.BatchNorm2d(head_planes),
                nn.Dropout2d(0.1),
                nn.Conv2d(head_planes, num_classes, 1),
            ).requires_grad_(False)

    def forward(self, image: Tensor) -> Tensor:
        """Map ``(N, 3, H, W)`` in [0, 1] to logits ``(N, C, H / stride, W / stride)``."""
        logits: Tensor = self.head(self.backbone(self.normalisation(image)))
        return logits


# Stride 4, few channels: a step on the demo's crops takes a fraction of a second on one core.
MINI: dict[str, Any] = {"blocks": (1, 1, 1, 1), "stem_width": 12, "planes": (12, 16, 24, 32), "strides": (1, 1, 1, 1)}
MINI |= {"dilations": (1, 2, 2, 4), "multi_grid": (1,), "head_planes": 64, "auxiliary": False}


def dualgcn_mini(num_classes: int, **options: Any) -> DualGCNNet:
    """Return the demo's DualGCNNet; `options` replace those of :data:`MINI`."""
    return DualGCNNet(num_classes, **{**MINI, **options})


def dualgcnnet_r101(num_classes: int, **options: Any) -> DualGCNNet:
    """Return DualGCNNet on ResNet101."""
    return DualGCNNet(num_classes, **{"blocks": (3, 4, 23, 3), **options})
