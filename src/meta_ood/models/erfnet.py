"""ERFNet (Romera et al., T-ITS 2018): a residual encoder and decoder of factorised convolutions.

Names, order and shapes of the parameters are the published ones.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d, relu

from meta_ood.models.pixels import Normalisation

EPS = 1e-3  # of every BatchNorm, as published; PyTorch's default is 1e-5
DILATIONS = (2, 4, 8, 16, 2, 4, 8, 16)  # of the eight residual blocks at stride 8


class Downsampler(nn.Module):
    """Halves height and width, rounded up: a strided convolution beside max pooling, then BatchNorm and ReLU."""

    def __init__(self, in_width: int, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_width, width - in_width, 3, stride=2, padding=1)
        self.bn = nn.BatchNorm2d(width, eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, in_width, h, w)`` to ``(N, width, h / 2, w / 2)``."""
        # the published code rounds pooling down and fails on odd sizes; on even ones both are the same
        pooled = max_pool2d(x, 2, stride=2, ceil_mode=True)
        return relu(self.bn(torch.cat([self.conv(x), pooled], 1)))


class Residual(nn.Module):
    """Two pairs of a 3x1 and a 1x3 convolution, the second pair dilated, added to the input."""

    def __init__(self, width: int, dropout: float, dilation: int) -> None:
        super().__init__()
        d = dilation
        self.conv3x1_1 = nn.Conv2d(width, width, (3, 1), padding=(1, 0))
        self.conv1x3_1 = nn.Conv2d(width, width, (1, 3), padding=(0, 1))
        self.bn1 = nn.BatchNorm2d(width, eps=EPS)
        self.conv3x1_2 = nn.Conv2d(width, width, (3, 1), padding=(d, 0), dilation=(d, 1))
        self.conv1x3_2 = nn.Conv2d(width, width, (1, 3), padding=(0, d), dilation=(1, d))
        self.bn2 = nn.BatchNorm2d(width, eps=EPS)
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, width, h, w)`` to the same shape."""
        y = relu(self.bn1(self.conv1x3_1(relu(self.conv3x1_1(x)))))
        y = self.bn2(self.conv1x3_2(relu(self.conv3x1_2(y))))
        return relu(self.dropout(y) + x)


class Upsampler(nn.Module):
    """Doubles height and width: a transposed convolution, BatchNorm and ReLU."""

    def __init__(self, in_width: int, width: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(in_width, width, 3, stride=2, padding=1, output_padding=1)
        self.bn = nn.BatchNorm2d(width, eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, in_width, h, w)`` to ``(N, width, 2 h, 2 w)``."""
        return relu(self.bn(self.conv(x)))


class Encoder(nn.Module):
    """From an image to features at stride 8."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.initial_block = Downsampler(3, 16)
        self.layers = nn.ModuleList([Downsampler(16, 64), *(Residual(64, 0.03, 1) for _ in range(5))])
        self.layers.extend([Downsampler(64, 128), *(Residual(128, 0.3, dilation) for dilation in DILATIONS)])
        # the published code trains the encoder alone at first, with this layer; here it is never run
        self.output_conv = nn.Conv2d(128, outputs, 1).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, 3, H, W)`` to ``(N, 128, H / 8, W / 8)``."""
        x = self.initial_block(x)
        for layer in self.layers:
            x = layer(x)
        return x


class Decoder(nn.Module):
    """From features at stride 8 to logits at full size."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Upsampler(128, 64), Residual(64, 0.0, 1), Residual(64, 0.0, 1)])
        self.layers.extend([Upsampler(64, 16), Residual(16, 0.0, 1), Residual(16, 0.0, 1)])
        self.output_conv = nn.ConvTranspose2d(16, outputs, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, 128, h, w)`` to ``(N, outputs, 8 h, 8 w)``."""
        for layer in self.layers:
            x = layer(x)
        logits: Tensor = self.output_conv(x)
        return logits


class ERFNet(nn.Module):
    """ERFNet, at stride 1.

    Args:
        num_classes: C.
        void_output: Whether the weights have an output for void after those of the C classes, as the published ones of
            Cityscapes have. It is in the state dict and not among the logits.
        mean, std: Normalisation of the input; the published weights take values in [0, 1] as they are.
    """

    align_corners = False  # without effect at stride 1
    output_stride = 1

    def __init__(
        self,
        num_classes: int,
        void_output: bool = False,
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (1.0, 1.0, 1.0),
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.normalisation = Normalisation(mean, std)
        self.encoder = Encoder(num_classes + void_output)
        self.decoder = Decoder(num_classes + void_output)

    def forward(self, image: Tensor) -> Tensor:
        """Map ``(N, 3, H, W)`` in [0, 1] to logits ``(N, C, H, W)``."""
        logits: Tensor = self.decoder(self.encoder(self.normalisation(image)))
        # void comes last; a side that is no multiple of 8 was rounded up
        return logits[:, : self.num_classes, : image.shape[2], : image.shape[3]]
