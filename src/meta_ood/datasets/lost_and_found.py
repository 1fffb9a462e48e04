"""LostAndFound, read as published (road against hazards) or as SegmentMeIfYouCan does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from meta_ood.datasets.reader import Layout, RawFrame, one_of, read_layout
from meta_ood.labels import IGNORE, IN, NEUTRAL, OOD

READINGS = ("published", "smiyc")
LABELS = ("label_ids", "train_ids")

NON_HAZARDS = (31, 33, 34, 36, 37, 38, 39)
"""Label ids of what may be driven over: no part of the published pixel metrics."""

_PUBLISHED = {
    0: IGNORE,
    1: IN,
    **dict.fromkeys(range(2, 44), OOD),
    **dict.fromkeys(NON_HAZARDS, NEUTRAL),
}
_SMIYC = {0: IGNORE, 1: IN, **dict.fromkeys(range(2, 201), OOD)}
_TRAIN_IDS = {0: NEUTRAL, 1: IN, 2: OOD, 255: IGNORE}


def layout(reading: str = "published", labels: str = "label_ids") -> Layout:
    """Describe the dataset's files under one reading of its labels."""
    one_of("lost_and_found", "reading", reading, READINGS)
    one_of("lost_and_found", "labels", labels, LABELS)
    if labels == "train_ids" and reading == "smiyc":
        raise ValueError(
            "lost_and_found reader: reading smiyc needs labels label_ids; "
            "the train ids do not tell non-hazards apart"
        )
    table = (
        _TRAIN_IDS if labels == "train_ids" else {"published": _PUBLISHED, "smiyc": _SMIYC}[reading]
    )
    suffix = {"label_ids": "labelIds", "train_ids": "labelTrainIds"}[labels]
    return Layout(
        name="LostAndFound",
        images="leftImg8bit/{split}/{folder}/{id}_leftImg8bit.png",
        targets=f"gtCoarse/{{split}}/{{folder}}/{{id}}_gtCoarse_{suffix}.png",
        labels=table,
        splits={"train": 1036, "test": 1203},
    )


def lost_and_found(
    root: Path, split: str, *, reading: str = "published", labels: str = "label_ids"
) -> Iterator[RawFrame]:
    """Read a split of LostAndFound.

    Parameters
    ----------
    root
        Folder with ``leftImg8bit`` and ``gtCoarse``.
    split
        ``train`` or ``test``.
    reading
        ``published``: free road is in-distribution, hazards are OoD, non-hazards are neutral, all
        else is void. ``smiyc``: every object is OoD.
    labels
        ``label_ids``, or ``train_ids`` as stored (their non-hazards may differ from the table).
    """
    yield from read_layout(layout(reading, labels), root, split)
