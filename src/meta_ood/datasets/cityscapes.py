"""Cityscapes: fine or coarse labels, as label ids or as the train ids of the official script."""

from collections.abc import Iterator
from pathlib import Path

from meta_ood.data.images import write_image
from meta_ood.data.labels import CITYSCAPES, IGNORE
from meta_ood.datasets.reader import Layout, listed, locate, one_of, read_target

# option -> folder and number of frames of each split, or end of the names and meaning of the values
_ANNOTATIONS = {
    "fine": ("gtFine", {"train": 2975, "val": 500, "test": 1525}),
    "coarse": ("gtCoarse", {"train": 2975, "val": 500, "train_extra": 19998}),
}
_LABELS = {
    "label_ids": ("labelIds", CITYSCAPES.train_ids),
    "train_ids": ("labelTrainIds", {**{index: index for index in range(len(CITYSCAPES.names))}, 255: IGNORE}),
}


def cityscapes(*, annotation: str = "fine", labels: str = "label_ids") -> Layout:
    """Describe Cityscapes below a root with ``leftImg8bit`` and ``gtFine`` (or ``gtCoarse``, annotation coarse).

    `labels` is ``label_ids`` (in the archives) or ``train_ids`` (written by the official script).
    """
    folder, splits = one_of("cityscapes", "annotation", annotation, _ANNOTATIONS)
    suffix, table = one_of("cityscapes", "labels", labels, _LABELS)
    return Layout(
        name="Cityscapes",
        images="leftImg8bit/{split}/{folder}/{id}_leftImg8bit.png",
        targets=f"{folder}/{{split}}/{{folder}}/{{id}}_{folder}_{suffix}.png",
        labels=table,
        splits=splits,
        size=(2048, 1024),
    )


def write_train_ids(root: Path, annotation: str = "fine") -> Iterator[Path]:
    """Write the official script's train ids beside the label ids where they are missing; yield each file written."""
    by_id, by_train_id = (cityscapes(annotation=annotation, labels=labels) for labels in _LABELS)
    for split in by_id.splits:
        for fields, path in listed(by_id.targets.replace("{split}", split), root):
            target = locate(by_train_id.targets.replace("{split}", split), root, fields)
            if not target.exists():
                write_image(target, read_target(path, by_id.labels))
                yield target
