"""LostAndFound, read as published (road against hazards) or as SegmentMeIfYouCan does."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from meta_ood.data.images import read_label_map
from meta_ood.data.labels import IGNORE, IN, NEUTRAL, OOD
from meta_ood.datasets.reader import Layout, one_of, read_target

NAMES = {
    0: "unlabelled", 1: "free", 2: "Crate (black)", 3: "Crate (black - stacked)", 4: "Crate (black - upright)",
    5: "Crate (gray)", 6: "Crate (gray - stacked)", 7: "Crate (gray - upright)", 8: "Bumper", 9: "Cardboard box 1",
    10: "Crate (blue)", 11: "Crate (blue - small)", 12: "Crate (green)", 13: "Crate (green - small)",
    14: "Exhaust Pipe", 15: "Headlight", 16: "Euro Pallet", 17: "Pylon", 18: "Pylon (large)", 19: "Pylon (white)",
    20: "Rearview mirror", 21: "Tire", 22: "Ball", 23: "Bicycle", 24: "Dog (black)", 25: "Dog (white)", 26: "Kid dummy",
    27: "Bobby car (gray)", 28: "Bobby Car (red)", 29: "Bobby Car (yellow)", 30: "Cardboard box 2",
    31: "Marker Pole (lying)", 32: "Plastic bag (bloated)", 33: "Post (red - lying)", 34: "Post Stand",
    35: "Styrofoam", 36: "Timber (small)", 37: "Timber (squared)", 38: "Wheel Cap", 39: "Wood (thin)",
    40: "Kid (walking)", 41: "Kid (on a bobby car)", 42: "Kid (small bobby)", 43: "Kid (crawling)",
}  # fmt: skip
"""Label id -> the dataset's name for it."""

NON_HAZARDS = (31, 33, 34, 36, 37, 38, 39)  # may be driven over: no part of the published pixel metrics

_PUBLISHED = {0: IGNORE, 1: IN, **dict.fromkeys(range(2, 44), OOD), **dict.fromkeys(NON_HAZARDS, NEUTRAL)}
_SMIYC = {0: IGNORE, 1: IN, **dict.fromkeys(range(2, 201), OOD)}
_TRAIN_IDS = {0: NEUTRAL, 1: IN, 2: OOD, 255: IGNORE}


# beginnings of ids of sequences that show children and bicycles (SegmentMeIfYouCan's NoKnown)
_KNOWN = (
    "15_Rechbergstr_Deckenpfronn", "01_Hanns_Klemm_Str_45_000006", "01_Hanns_Klemm_Str_45_000007",
    "10_Schlossberg_9_000004",
)  # fmt: skip
# positions, in the order of ids, of frames without a single label (SegmentMeIfYouCan's Valid)
_INVALID_TEST = (17, 37, 55, 72, 91, 110, 129, 153, 174, 197, 218, 353, 490, 618, 686, 792, 793)
_INVALID_TRAIN = (44, 67, 88, 109, 131, 614)


def lost_and_found(*, reading: str = "published", labels: str = "label_ids", drop: Sequence[str] = ()) -> Layout:
    """Describe LostAndFound below a root with ``leftImg8bit`` and ``gtCoarse``.

    ``trainValid`` and ``testValid`` lack the frames without labels; ``testNoKnown`` lacks the sequences that show known
    objects too. All three are SegmentMeIfYouCan's.

    Args:
        reading: ``published``: free road is in-distribution, hazards are OoD, non-hazards are neutral, all else is
            void. ``smiyc``: every object is OoD.
        labels: ``label_ids``, or ``train_ids`` as stored (their non-hazards may differ from the table).
        drop: Ids of frames to leave out.
    """
    table = one_of("lost_and_found", "reading", reading, {"published": _PUBLISHED, "smiyc": _SMIYC})
    suffix = one_of("lost_and_found", "labels", labels, {"label_ids": "labelIds", "train_ids": "labelTrainIds"})
    if labels == "train_ids" and reading == "smiyc":
        reason = "the train ids do not tell non-hazards apart"
        raise ValueError(f"lost_and_found reader: reading smiyc needs labels label_ids; {reason}")
    if isinstance(drop, str):
        raise ValueError(f"lost_and_found reader: option drop: expected a list, got {drop!r}")
    return Layout(
        name="LostAndFound",
        images="leftImg8bit/{split}/{folder}/{id}_leftImg8bit.png",
        targets=f"gtCoarse/{{split}}/{{folder}}/{{id}}_gtCoarse_{suffix}.png",
        labels=_TRAIN_IDS if labels == "train_ids" else table,
        splits={"train": 1036, "test": 1203, "trainValid": 1030, "testValid": 1186, "testNoKnown": 1043},
        size=(2048, 1024),
        folders={"trainValid": "train", "testValid": "test", "testNoKnown": "test"},
        without={"testNoKnown": _KNOWN},
        skip={"trainValid": _INVALID_TRAIN, "testValid": _INVALID_TEST, "testNoKnown": _INVALID_TEST},
        drop=tuple(drop),
        names=NAMES if labels == "label_ids" else {},
    )


def train_ids_that_differ(path: Path) -> list[int]:
    """Return the label ids to which the train ids beside a file give another meaning; either file may be given."""
    stem = path.name.rpartition("_")[0]
    files = [path.with_name(f"{stem}_{kind}.png") for kind in ("labelIds", "labelTrainIds")]
    if not all(file.is_file() for file in files):
        return []
    # non-hazards are compared as void: the stored train ids mix the two up in places
    by_id, by_train_id = (
        read_target(file, {key: IGNORE if value == NEUTRAL else value for key, value in table.items()})
        for file, table in zip(files, (_PUBLISHED, _TRAIN_IDS), strict=True)
    )
    if by_id.shape != by_train_id.shape:
        raise ValueError(f"{files[1]}: {by_train_id.shape} px, its label ids have {by_id.shape}")
    return [int(value) for value in np.unique(read_label_map(files[0])[by_id != by_train_id])]
