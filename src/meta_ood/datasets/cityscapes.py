"""Cityscapes: fine or coarse labels, as label ids or as the train ids of the official script."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from meta_ood.data.images import write_image
from meta_ood.data.labels import CITYSCAPES, IGNORE
from meta_ood.datasets.reader import Layout, listed, locate, one_of, read_target

ANNOTATIONS = ("fine", "coarse")
LABELS = ("label_ids", "train_ids")
_SPLITS = {
    "fine": {"train": 2975, "val": 500, "test": 1525},
    "coarse": {"train": 2975, "val": 500, "train_extra": 19998},
}
_TRAIN_IDS = {**{index: index for index in range(len(CITYSCAPES.names))}, 255: IGNORE}


def cityscapes(*, annotation: str = "fine", labels: str = "label_ids") -> Layout:
    """Describe Cityscapes below a root with ``leftImg8bit`` and ``gtFine`` (or ``gtCoarse``).

    Args:
        annotation: ``fine`` or ``coarse``.
        labels: ``label_ids`` (in the archives), or ``train_ids`` (written by the official script).
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


def write_train_ids(root: Path, annotation: str = "fine") -> Iterator[Path]:
    """Write the train ids that the official script would write, beside the label ids.

    Args:
        root: Folder with ``gtFine`` or ``gtCoarse``; files that exist are kept.
        annotation: ``fine`` or ``coarse``.

    Yields:
        Each file written.
    """
    by_id, by_train_id = (cityscapes(annotation=annotation), cityscapes(annotation=annotation, labels="train_ids"))
    for split in by_id.splits:
        for fields, path in listed(by_id.targets.replace("{split}", split), root):
            target = locate(by_train_id.targets.replace("{split}", split), root, fields)
            if target.exists():
                continue
            write_image(target, read_target(path, by_id.labels))
            yield target
