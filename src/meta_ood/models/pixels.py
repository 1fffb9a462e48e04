"""Layers that all networks share: normalisation of the input, up-sampling, a convolution block."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

# Mean and standard deviation of red, green and blue over ImageNet, for values in [0, 1].
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def upsample(logits: Tensor, size: Sequence[int], align_corners: bool = True) -> Tensor:
    """Interpolate floats ``(N, C, h, w)`` bilinearly to ``(N, C, H, W)``, where `size` is ``(H, W)`` [px].

    Examples:
        >>> upsample(torch.tensor([[[[0.0, 2.0]]]]), (1, 3))
        tensor([[[[0., 1., 2.]]]])
    """
    if logits.shape[-2:] == tuple(size):
        return logits
    return functional.interpolate(logits, tuple(size), mode="bilinear", align_corners=align_corners)


def padded(image: Tensor, multiple: int) -> Tensor:
    """Return ``(N, C, H, W)`` with zeros below and on the right, so that H and W are multiples of `multiple`."""
    height, width = image.shape[2:]
    return functional.pad(image, (0, -width % multiple, 0, -height % multiple))


@contextmanager
def batches_of_one_explained() -> Iterator[None]:
    """Say what to do where BatchNorm, after image pooling, gets one value per channel."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{error}: this network cannot train on one image; use a batch_size of at least 2") from error


def conv_bn_relu(in_width: int, width: int, kernel: int = 3, dilation: int = 1, stride: int = 1) -> nn.Sequential:
    """Return a convolution without bias that keeps the size (but for `stride`), BatchNorm and ReLU."""
    conv = nn.Conv2d(in_width, width, kernel, stride, dilation * (kernel // 2), dilation, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(width), nn.ReLU(inplace=True))


class Normalisation(nn.Module):
    """Computes (image - mean) / std per channel, for images in [0, 1].

    The constants are in no state dict, so that published weights load strictly.
    """

    def __init__(self, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD) -> None:
        super().__init__()
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise ValueError(
                f"normalisation: expected three means and three positive deviations, got {tuple(mean)}, {tuple(std)}"
            )
        self.mean: Tensor
        self.std: Tensor
        for name, values in (("mean", mean), ("std", std)):
            # Always on the CPU: a network built on the meta device gets its other tensors from a
            # checkpoint, but no checkpoint holds these.
            constant = torch.tensor(tuple(values), dtype=torch.float32, device="cpu")
            self.register_buffer(name, constant.reshape(3, 1, 1), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Normalise ``(N, 3, H, W)`` in [0, 1]."""
        return (image - self.mean) / self.std

    def describe(self) -> dict[str, list[float]]:
        """Return mean and std as plain numbers, for metadata."""
        return {name: [round(float(v), 6) for v in getattr(self, name).flatten()] for name in ("mean", "std")}
