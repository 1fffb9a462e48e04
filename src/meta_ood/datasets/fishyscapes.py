"""Fishyscapes validation data in the layouts that are in use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from meta_ood.datasets.reader import Layout, RawFrame, read_layout
from meta_ood.labels import IGNORE, IN, OOD

LABELS = {0: IN, 1: OOD, 255: IGNORE}

PAIRS = Layout(
    name="Fishyscapes",
    images="{split}/{id}.jpg",
    targets="{split}/{id}.png",
    labels=LABELS,
    splits={"Static": 30, "LostAndFound": 100},
    lead="targets",
)
"""``Static/*.png`` labels beside ``.jpg`` images of the same name."""


def fishyscapes(root: Path, split: str) -> Iterator[RawFrame]:
    """Read Fishyscapes from pre-built pairs of ``.jpg`` and ``.png``.

    Parameters
    ----------
    root
        Folder with ``Static`` and ``LostAndFound``.
    split
        ``Static`` or ``LostAndFound``.
    """
    yield from read_layout(PAIRS, root, split)
