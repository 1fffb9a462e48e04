"""Cityscapes: fine or coarse labels, as label ids or as the train ids of the official script."""

from __future__ import annotations

from meta_ood.datasets.reader import Layout, one_of
from meta_ood.labels import CITYSCAPES, IGNORE

ANNOTATIONS = ("fine", "coarse")
LABELS = ("label_ids", "train_ids")
_SPLITS = {
    "fine": {"train": 2975, "val": 500, "test": 1525},
    "coarse": {"train": 2975, "val": 500, "train_extra": 19998},
}
_TRAIN_IDS = {**{index: index for index in range(len(CITYSCAPES.names))}, 255: IGNORE}


def cityscapes(*, annotation: str = "fine", labels: str = "label_ids") -> Layout:
    """Describe Cityscapes below a root with ``leftImg8bit`` and ``gtFine`` (or ``gtCoarse``).

    Parameters
    ----------
    annotation
        ``fine`` or ``coarse``.
    labels
        ``label_ids`` (in the archives), or ``train_ids`` (written by the official script).
    """
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
        size=(2048, 1024),
    )
