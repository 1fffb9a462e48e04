"""Augmentations of an image together with its target, each with random draws of its own."""

import math
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
import torch
from scipy.ndimage import find_objects, label, maximum_filter
from torch import Tensor
from torch.nn.functional import pad
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as joint

from meta_ood.config import OptimisationParams
from meta_ood.data.labels import IGNORE, OOD
from meta_ood.training.pasting import Pasting
from meta_ood.training.photometric import photometric


@dataclass(frozen=True)
class Augmentation:
    """Scale jitter, crop, flip and changes of colours, in this order.

    An image that is smaller than the crop is padded, never stretched: black in the image, IGNORE in the target.
    """

    crop: int | tuple[int, int]  # side of the square that comes out, or its height and width [px]
    scale_jitter: float = 0.0  # s: enlarged by a factor drawn log-uniformly from [1 - s, 1 / (1 - s)]
    colour_jitter: float = 0.0  # c: brightness, contrast and saturation are each times a factor from [1 - c, 1 + c]
    flip: float = 0.5  # probability of a horizontal flip
    photometric: float = 0.0  # strength of the changes of :func:`photometric`
    proxy_margin: int = 0  # OoD pixels that are no further than this from others become IGNORE [px]

    @classmethod
    def of(cls, settings: OptimisationParams) -> Self:
        """Return the augmentation that the section `pretrain` or `train` describes."""
        names = {field.name for field in fields(cls)} & set(type(settings).model_fields)
        return cls(**{name: getattr(settings, name) for name in names})

    def __call__(
        self,
        image: Tensor,
        target: Tensor,
        generator: np.random.Generator,
        scale: float = 1.0,
        pasting: Pasting | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return ``(3, H, W)`` and ``(H, W) uint8`` as ``(3, height, width)`` and ``(height, width)`` of the crop.

        The number of draws of the crop does not depend on the image.

        Args:
            image, target: Not changed.
            generator: Source of all draws.
            scale: Factor by which the image is enlarged besides the jitter.
            pasting: Pastes objects into the crop, before its colours change.
        """
        draws = generator.random(7)  # all at once, so that options do not shift later draws
        enlarge = scale * math.exp((2 * draws[0] - 1) * -math.log(1 - self.scale_jitter))
        image, target = _cut(image, target, enlarge, sides(self.crop), draws[1], draws[2])
        if draws[3] < self.flip:
            image, target = image.flip(-1), target.flip(-1)
        if pasting is not None:
            image, target = image.clone(), target.clone()  # the crop may be a part of the image itself
            pasting(image, target, generator)
        if self.colour_jitter:
            brightness, contrast, saturation = (1 + self.colour_jitter * (2 * draws[4:] - 1)).tolist()
            image = joint.adjust_contrast(joint.adjust_brightness(image, brightness), contrast)
            image = joint.adjust_saturation(image, saturation)
        if self.photometric:
            image = photometric(image, self.photometric, generator)
        if self.proxy_margin:
            other = torch.from_numpy(maximum_filter(target.numpy() != OOD, 2 * self.proxy_margin + 1))
            target = target.masked_fill((target == OOD) & other, IGNORE)
        return image.contiguous(), target.contiguous()


def sides(crop: int | tuple[int, int]) -> tuple[int, int]:
    """Return height and width of a crop [px], of which a square has one number."""
    return (crop, crop) if isinstance(crop, int) else crop


def _cut(
    image: Tensor, target: Tensor, enlarge: float, crop: tuple[int, int], down: float, across: float
) -> tuple[Tensor, Tensor]:
    """Cut a window at a relative position in [0, 1), resize it to `crop`, pad it if the image is smaller."""
    window = tuple(max(1, round(side / enlarge)) for side in crop)  # [px] height and width of the part that is cut out
    height, width = target.shape
    rows, columns = min(window[0], height), min(window[1], width)
    top, left = int(down * (height - rows + 1)), int(across * (width - columns + 1))
    image = image[:, top : top + rows, left : left + columns]
    target = target[top : top + rows, left : left + columns]
    if window != crop:
        size = [max(1, round(rows * crop[0] / window[0])), max(1, round(columns * crop[1] / window[1]))]
        image = joint.resize(image, size, InterpolationMode.BILINEAR, antialias=True)
        target = joint.resize(target[None], size, InterpolationMode.NEAREST_EXACT)[0]
    below, right = crop[0] - target.shape[0], crop[1] - target.shape[1]
    if below or right:  # the image lies at a drawn place within the padding
        above, before = int(down * (below + 1)), int(across * (right + 1))
        edges = (before, right - before, above, below - above)
        image, target = pad(image, edges), pad(target, edges, value=IGNORE)
    return image, target


def paste(
    image: Tensor, target: Tensor, proxy: Tensor, proxy_target: Tensor, generator: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Paste one object of a proxy into a street scene.

    The object is one connected region of the proxy's OoD pixels, drawn with a probability that grows with its area. It
    stands on a row between 45 % and 100 % of the height; its height is 10 % to 50 % of the image's, times how far that
    row lies below a horizon at 35 %, so that near objects are large. At least half of it lies within the image. The
    edge is blended over about two pixels, and the object's brightness moves up to halfway to that of the place.

    Args:
        image, target: ``(3, H, W) uint8`` and ``(H, W) uint8``, not changed; returned anew with the object as OOD.
        proxy, proxy_target: The same of a proxy of any size; without OoD pixels nothing is pasted.
        generator: Source of all draws.
    """
    # 1. a connected region of the proxy's OoD pixels
    draws = generator.random(5)
    regions, number = label(proxy_target.numpy() == OOD)
    if not number:
        return image, target
    areas = np.bincount(regions.ravel())[1:]
    chosen = 1 + int(np.searchsorted(np.cumsum(areas) / areas.sum(), draws[0], side="right"))
    where = find_objects(regions)[chosen - 1]
    shape = torch.from_numpy(regions[where] == chosen)[None].float()
    cut = proxy[:, where[0], where[1]].float()

    # 2. its place and size in the image, see above
    height, width = target.shape
    base = int((0.45 + 0.55 * draws[1]) * (height - 1))
    nearness = (base / height - 0.35) / 0.65
    rows = max(4, round(height * 0.1 * math.exp(draws[2] * math.log(5.0)) * nearness))
    columns = max(4, round(rows * shape.shape[2] / shape.shape[1]))
    cut = joint.resize(cut, [rows, columns], InterpolationMode.BILINEAR, antialias=True)
    alpha = joint.resize(shape, [rows, columns], InterpolationMode.BILINEAR, antialias=True)
    left = int(draws[3] * width) - columns // 2
    top = base + 1 - rows
    inside = (slice(max(0, top), base + 1), slice(max(0, left), min(width, left + columns)))
    own = (slice(max(0, -top), rows), slice(max(0, -left), min(columns, width - left)))
    alpha, cut = alpha[:, own[0], own[1]], cut[:, own[0], own[1]]
    # 3. part of the way to the place's brightness, then blended with `alpha` as opacity
    place = image[:, inside[0], inside[1]].float()
    cut = (cut + draws[4] * 0.5 * (place.mean() - cut.mean())).clamp(0, 255)
    image, target = image.clone(), target.clone()
    image[:, inside[0], inside[1]] = (alpha * cut + (1 - alpha) * place).round().to(torch.uint8)
    target[inside][alpha[0] >= 0.5] = OOD
    return image, target
