"""Prediction: the logits of a network for one image, with the target."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import numpy.typing as npt

from meta_ood.data.labels import LabelMap

FloatMap = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Prediction:
    """The logits of a network for one image, at the network's own output stride."""

    image_id: str  # within its dataset
    logits: npt.NDArray[np.float32]  # (C, h, w), finite
    size: tuple[int, int]  # (H, W) of the image and the target [px]
    align_corners: bool  # how the network's logits are up-sampled bilinearly to `size`
    target: LabelMap  # (H, W) uint8, see meta_ood.data.labels
    scene: str = ""  # unit of grouped cross validation
    is_softmax: bool = False  # `logits` is a given full-size (C, H, W) softmax, taken as it is
    label_ids: LabelMap | None = None  # (H, W) uint8, the dataset's own ids, if they say which object lies on the road
    # score -> (h', w') map that was computed beside the logits, at a stride of its own; up-sampled as the logits are
    stored: Mapping[str, FloatMap] = field(default_factory=dict)
    features: FloatMap | None = None  # (F, h', w') of the network's pass, for embeddings; in no file

    def __post_init__(self) -> None:
        """Check shapes and dtypes once, where data enters."""
        if self.logits.ndim != 3:
            raise ValueError(f"{self.image_id}: logits must be (C, h, w), got shape {self.logits.shape}")
        for name, labels in (("target", self.target), ("label_ids", self.label_ids)):
            if labels is not None and labels.dtype != np.uint8:
                raise ValueError(f"{self.image_id}: {name} must be uint8, got {labels.dtype}")
            if labels is not None and labels.shape != tuple(self.size):
                raise ValueError(f"{self.image_id}: {name} has shape {labels.shape}, expected {self.size}")
        # it is taken pixel by pixel: nothing is up-sampled
        if self.is_softmax and self.logits.shape[1:] != tuple(self.size):
            raise ValueError(f"{self.image_id}: a given softmax must have the full size {self.size}")

    @classmethod
    def from_softmax(
        cls,
        image_id: str,
        softmax: npt.NDArray[np.floating],
        target: LabelMap,
        scene: str = "",
        label_ids: LabelMap | None = None,
    ) -> Self:
        """Wrap a softmax made elsewhere: ``(C, H, W)`` probabilities in [0, 1], taken as they are."""
        height, width = target.shape
        logits = np.asarray(softmax, np.float32)
        return cls(image_id, logits, (height, width), True, target, scene, is_softmax=True, label_ids=label_ids)
