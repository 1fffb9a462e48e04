"""Cityscapes: fine or coarse labels, as label ids or as the train ids of the official script."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from meta_ood.datasets.reader import Layout, RawFrame, one_of, read_layout
from meta_ood.labels import CITYSCAPES, IGNORE

ANNOTATIONS = ("fine", "coarse")
LABELS = ("label_ids", "train_ids")
_SPLITS = {
    "fine": {"train": 2975, "val": 500, "test": 1525},
    "coarse": {"train": 2975, "val": 500, "train_extra": 19998},
}
_TRAIN_IDS = {**{index: index for index in range(len(CITYSCAPES.names))}, 255: IGNORE}


def layout(annotation: str = "fine", labels: str = "label_ids") -> Layout:
    """Describe the dataset's files for one kind of labels."""
    one_of("cityscapes", "annotation", annotation, ANNOTATIONS)
    one_of("cityscapes", "labels", labels, LABELS)
    folder = {"fine": "gtFine", "coarse": "gtCoarse"}[annotation]
    suffix = {"label_ids": "labelIds", "train_ids": "labelTrainIds"}[labels]
    return Layout(
        name="Cityscapes",
        images="leftImg8bit/{split}/{folder}/{id}_leftImg8bit.png",
        targets=f"{folder}/{{split}}/{{folder}}/{{id}}_{folder}_{suffix}.png",
        labels=CITYSCAPES.train_ids if labels == "label_ids" else _TRAIN_IDS,
        splits=_SPLITS[annotation],
    )


def cityscapes(
    root: Path, split: str, *, annotation: str = "fine", labels: str = "label_ids"
) -> Iterator[RawFrame]:
    """Read a split of Cityscapes.

    Parameters
    ----------
    root
        Folder with ``leftImg8bit`` and ``gtFine`` (or ``gtCoarse``).
    split
        ``train``, ``val``, ``test``; with coarse labels also ``train_extra``.
    annotation
        ``fine`` or ``coarse``.
    labels
        ``label_ids`` (in the archives), or ``train_ids`` (written by the official script).
    """
    yield from read_layout(layout(annotation, labels), root, split)
