"""Variety of cameras, light and weather, drawn for each sample: the target stays as it is."""

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from PIL.ImageFilter import GaussianBlur
from torch import Tensor

# standard deviations at strength 1 of the logarithms of gamma, contrast, saturation and of each channel's factor, and
# of what is added to all pixels, for values in [0, 1]
_GAMMA, _CONTRAST, _SATURATION, _CAST, _BRIGHTNESS = 0.25, 0.2, 0.3, 0.08, 0.06
_PROBABILITY = 0.4  # of blur and of noise, each at strength 1


def photometric(image: Tensor, strength: float, generator: np.random.Generator) -> Tensor:
    """Change gamma, contrast, brightness, colour cast and saturation of an image; sometimes blur it or add noise.

    Args:
        image: ``(3, H, W) uint8``, not changed.
        strength: Factor of all standard deviations and of the probabilities of blur and noise; 0 changes nothing.
        generator: Source of all draws.
    """
    normal, uniform = strength * generator.standard_normal(7), generator.random(4).tolist()
    # 1. gamma, contrast about the mean, brightness, and a factor for each channel
    gamma, contrast, saturation = np.exp(normal[:3] * (_GAMMA, _CONTRAST, _SATURATION))
    cast = np.exp(_CAST * normal[4:])[:, None, None]
    table = (np.arange(256) / 255) ** gamma
    pixels = table.astype(np.float32).take(image.numpy())
    mean = pixels.mean(dtype=np.float64)
    pixels *= (contrast * cast).astype(np.float32)
    pixels += ((mean - contrast * mean + _BRIGHTNESS * normal[3]) * cast).astype(np.float32)
    # 2. saturation: the distance from grey
    grey = pixels.mean(0)
    pixels -= grey
    pixels *= np.float32(saturation)
    pixels += grey
    # 3. out of focus, or a noisy sensor; sigma in pixels, and as a part of full white
    if uniform[0] < _PROBABILITY * strength:
        sharp = Image.fromarray(_bytes(pixels).transpose(1, 2, 0))
        blurred = sharp.filter(GaussianBlur(0.3 + 1.4 * strength * uniform[1]))
        pixels = np.asarray(blurred, np.float32).transpose(2, 0, 1) / np.float32(255)
    if uniform[2] < _PROBABILITY * strength:
        noise = generator.standard_normal(pixels.shape, np.float32)
        pixels = pixels + noise * np.float32(0.04 * strength * uniform[3])
    return torch.from_numpy(_bytes(pixels))


def _bytes(pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Return values in [0, 1] as uint8, rounded; others are clipped."""
    return np.rint(pixels.clip(0, 1) * np.float32(255)).astype(np.uint8)
