"""Decode frames and stack them to batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from meta_ood.data.frames import Frame


@dataclass(frozen=True)
class Sample:
    """One image with its target.

    Attributes:
        image: ``(3, H, W) uint8``.
        target: ``(H, W) uint8``, see :mod:`meta_ood.data.labels`.
        image_id: The image's name within its dataset.
        label_ids: ``(H, W) uint8``, where the dataset has them and they were asked for.
    """

    image: Tensor
    target: Tensor
    image_id: str
    label_ids: Tensor | None = None


@dataclass(frozen=True)
class Batch:
    """Samples of one size.

    Attributes:
        images: ``(N, 3, H, W) uint8``.
        targets: ``(N, H, W) uint8``.
        image_ids: N names.
        label_ids: N times ``(H, W) uint8`` or None.
    """

    images: Tensor
    targets: Tensor
    image_ids: list[str]
    label_ids: list[Tensor | None]

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> Batch:
        """Stack samples of one size."""
        return cls(
            torch.stack([s.image for s in samples]),
            torch.stack([s.target for s in samples]),
            [s.image_id for s in samples],
            [s.label_ids for s in samples],
        )


def to_unit_range(images: Tensor) -> Tensor:
    """Bring bytes to floats in [0, 1], which is what every network takes.

    Examples:
        >>> float(to_unit_range(torch.tensor(255, dtype=torch.uint8)))
        1.0
    """
    return images.to(torch.float32).mul_(1 / 255)


def read(frame: Frame, label_ids: bool = False) -> Sample:
    """Decode a frame, and with `label_ids` these too, where it has them.

    Raises:
        FileNotFoundError: If the image, the target or the file of label ids is missing.
        ValueError: If they differ in size, or the target is no 8-bit grey image.
    """
    image = _decode(frame.image, "RGB")
    target = _decode(frame.target, "L")
    if image.shape[:2] != target.shape:
        raise ValueError(f"{frame.image_id}: image {image.shape[:2]} and target {target.shape} differ in size")
    pixels = torch.from_numpy(image).permute(2, 0, 1).contiguous()
    ids = None
    if label_ids and frame.label_ids is not None:
        ids = torch.from_numpy(_decode(frame.label_ids, "L"))
    return Sample(pixels, torch.from_numpy(target), frame.image_id, ids)


def image_size(frame: Frame) -> tuple[int, int]:
    """Return (H, W) of a frame's image from the file's header, without decoding it."""
    with Image.open(frame.image) as picture:
        return picture.height, picture.width


def _decode(path: Path, mode: str) -> npt.NDArray[np.uint8]:
    with Image.open(path) as picture:
        if mode == "L" and picture.mode != "L":
            raise ValueError(f"{path}: expected 8-bit grey labels, got mode {picture.mode}")
        return np.array(picture.convert(mode))
