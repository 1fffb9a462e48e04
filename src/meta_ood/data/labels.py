"""One label encoding for all datasets, and the label space of Cityscapes.

A target is a ``(H, W) uint8`` map. Values ``0 .. C-1`` are train ids; the values below are the only others that occur
after ``prepare``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

LabelMap = npt.NDArray[np.uint8]


# Above all train ids, below 256; 255 is the void of Cityscapes' own train ids.
NEUTRAL = 252
"""LostAndFound's non-hazards: left out of pixel metrics, but no void and no OoD for segments."""


IN = 253
"""In-distribution without class: LostAndFound's free road, everything known in Fishyscapes."""


OOD = 254
"""Out-of-distribution: what a network must not know."""


IGNORE = 255
"""Void: neither trained on nor evaluated; cuts segments."""


@dataclass(frozen=True)
class LabelSpace:
    """Names and colours of the train ids, and the table from a dataset's label ids to our encoding.

    Attributes:
        names: One name per train id, ``C`` in all.
        palette: One ``(red, green, blue)`` triple in ``[0, 255]`` per train id.
        train_ids: Label id in the raw files -> train id, ``NEUTRAL``, ``IN``, ``OOD`` or ``IGNORE``.
    """

    names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    train_ids: Mapping[int, int]

    def encode(self, label_ids: npt.NDArray[np.integer]) -> LabelMap:
        """Translate raw label ids into our encoding.

        Args:
            label_ids: ``(H, W)`` integers; every value must be a key of ``train_ids``.

        Returns:
            ``(H, W) uint8`` target.

        Raises:
            ValueError: If a label id is not in the table; the ids are named.

        Examples:
            >>> CITYSCAPES.encode(np.array([[7, 0, 26]]))
            array([[  0, 255,  13]], dtype=uint8)
        """
        # a table by label id, shifted because Cityscapes has the label id -1
        low, high = int(label_ids.min(initial=0)), int(label_ids.max(initial=0))
        table = np.zeros(high - low + 1, np.uint8)
        known = np.zeros(high - low + 1, bool)
        for label_id, train_id in self.train_ids.items():
            if low <= label_id <= high:
                table[label_id - low] = train_id
                known[label_id - low] = True
        shifted = label_ids.astype(np.int64) - low
        if not known[shifted].all():
            unknown = sorted({int(v) for v in np.unique(label_ids)} - set(self.train_ids))
            raise ValueError(f"label ids {unknown} are not in the table; known: {sorted(self.train_ids)}")
        return table[shifted]


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


CITYSCAPES = LabelSpace(
    names=tuple(name for name, _, _ in _CITYSCAPES_CLASSES),
    palette=tuple(colour for _, _, colour in _CITYSCAPES_CLASSES),
    train_ids={
        **dict.fromkeys(range(-1, 34), IGNORE),
        **{label_id: index for index, (_, label_id, _) in enumerate(_CITYSCAPES_CLASSES)},
    },
)
"""Cityscapes: 19 train ids; label ids -1 .. 33, those without train id are void."""
