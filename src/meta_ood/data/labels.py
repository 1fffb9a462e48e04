"""One label encoding for all datasets, and the label space of Cityscapes.

A target is a ``(H, W) uint8`` map. Values ``0 .. C-1`` are train ids; the values below are the only others that occur
after ``prepare``.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

LabelMap = npt.NDArray[np.uint8]


# Above all train ids, below 256; 255 is the void of Cityscapes' own train ids.
NEUTRAL = 252
"""LostAndFound's non-hazards: left out of pixel metrics, but no void and no OoD for segments."""
IN = 253
"""In-distribution without class: LostAndFound's free road, Fishyscapes' known, frames without labels."""
OOD = 254
"""Out-of-distribution: what a network must not know."""
IGNORE = 255
"""Void: neither trained on nor evaluated; cuts segments."""

BINARY: Mapping[int, int] = {0: IN, 1: OOD, 255: IGNORE}
"""Value in the label maps of Fishyscapes and SegmentMeIfYouCan -> target value."""


@dataclass(frozen=True)
class LabelSpace:
    """Names and colours of the train ids, and the table from a dataset's label ids to our encoding."""

    names: tuple[str, ...]  # one per train id, C in all
    palette: tuple[tuple[int, int, int], ...]  # (red, green, blue) in [0, 255] per train id
    train_ids: Mapping[int, int]  # label id in the raw files -> train id, NEUTRAL, IN, OOD or IGNORE

    def encode(self, label_ids: npt.NDArray[np.integer]) -> LabelMap:
        """Return the ``(H, W) uint8`` target for ``(H, W)`` integers; label ids without a train id are a ValueError."""
        # a table by label id: it begins at the lowest, as Cityscapes has the id -1, and ends with -1 for all others
        low, size = min(self.train_ids), max(self.train_ids) - min(self.train_ids) + 1
        table = np.full(size + 1, -1, np.int16)
        for label_id, train_id in self.train_ids.items():
            table[label_id - low] = train_id
        target = table[np.clip(label_ids.astype(np.int64) - low, -1, size)]
        if (target < 0).any():
            unknown = sorted({int(v) for v in np.unique(label_ids)} - set(self.train_ids))
            raise ValueError(f"label ids {unknown} are not in the table; known: {sorted(self.train_ids)}")
        return target.astype(np.uint8)


_CITYSCAPES_CLASSES: tuple[tuple[str, int, tuple[int, int, int]], ...] = (
    # name, label id in the raw files, colour; in the order of the train ids
    ("road", 7, (128, 64, 128)),
    ("sidewalk", 8, (244, 35, 232)),
    ("building", 11, (70, 70, 70)),
    ("wall", 12, (102, 102, 156)),
    ("fence", 13, (190, 153, 153)),
    ("pole", 17, (153, 153, 153)),
    ("traffic light", 19, (250, 170, 30)),
    ("traffic sign", 20, (220, 220, 0)),
    ("vegetation", 21, (107, 142, 35)),
    ("terrain", 22, (152, 251, 152)),
    ("sky", 23, (70, 130, 180)),
    ("person", 24, (220, 20, 60)),
    ("rider", 25, (255, 0, 0)),
    ("car", 26, (0, 0, 142)),
    ("truck", 27, (0, 0, 70)),
    ("bus", 28, (0, 60, 100)),
    ("train", 31, (0, 80, 100)),
    ("motorcycle", 32, (0, 0, 230)),
    ("bicycle", 33, (119, 11, 32)),
)

# 19 train ids; label ids -1 .. 33, those without train id are void
CITYSCAPES = LabelSpace(
    names=tuple(name for name, _, _ in _CITYSCAPES_CLASSES),
    palette=tuple(colour for _, _, colour in _CITYSCAPES_CLASSES),
    train_ids={
        **dict.fromkeys(range(-1, 34), IGNORE),
        **{label_id: index for index, (_, label_id, _) in enumerate(_CITYSCAPES_CLASSES)},
    },
)
