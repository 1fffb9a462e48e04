"""Findings of the checks: every kind with its level, text and advice, and the report."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

Level = Literal["error", "warning", "note"]

KINDS: dict[str, tuple[Level, str, str]] = {
    # place
    "root_missing": ("error", "{root} is no folder", "check the path, or link the dataset"),
    "wrong_level": ("error", "no file of split {split!r} here, but there are some below {place}",
        "use {place} as the root"),
    "split_missing": ("error", "split {split!r} is empty; {other} is there", "unpack the rest, or use split {first}"),
    "nothing_found": ("error", "no file of split {split!r} below {root}; expected {expected}",
        "unpack the archive here; docs/datasets.md lists the folders of each dataset"),
    "archive_damaged": ("error", "{count} archive(s) differ from the published size or checksum",
        "download it again; what was unpacked from it cannot be trusted"),
    "archive_present": ("note", "{count} known archive(s) lie here", ""),
    "stray_files": ("warning", "{count} file(s) of another kind lie among the data",
        "left-overs of a copy or of another system: delete them"),
    "unmatched": ("warning", "{count} file(s) beside the images do not fit {images}",
        "they are passed over: correct the option images if they are frames"),
    # pairs
    "no_labels": ("error", "{count} image(s) have no labels", "expected at {expected}"),
    "no_image": ("error", "{count} label file(s) have no image", "expected at {expected}"),
    "train_ids_missing": ("error", "the train ids of {count} image(s) have never been generated",
        "use the reader's option labels: label_ids, or write the files with `meta-ood data train-ids {root}`"),
    "same_id": ("error", "{count} image(s) share their id with another one", "delete the copies"),
    "wrong_split": ("error", "{count} frame(s) of {split} lie in another split too",
        "testing on what was trained on: unpack the splits again"),
    "count": ("warning", "{frames} frames; published are {published}",
        "results do not compare with published ones; if there are more, look for copies"),
    "left_out": ("note", "{count} frame(s) of {split} are left out, as by the benchmark's loader",
        "docs/datasets.md says which splits hold them"),
    "duplicate": ("warning", "{count} image(s) have the same content as another one",
        "they count twice in every metric"),
    # single frames, see checks.frames: `prepare` stops at the first of these that is an error
    "image_empty": ("error", "{count} image(s) have no content", "copy them again"),
    "image_truncated": ("error", "{count} image(s) are damaged", "unpack or copy them again"),
    "image_unreadable": ("error", "{count} image(s) cannot be read", "unpack them again; check who may read them"),
    "image_mode": ("error", "{count} image(s) are not RGB with 8 bits", "convert them"),
    "image_grey": ("warning", "{count} image(s) are grey", "fine for COCO, else convert them"),
    "labels_unreadable": ("error", "{count} label file(s) cannot be read", "unpack them again"),
    "labels_colour": ("error", "{count} label file(s) are colour pictures, not label ids",
        "use the files that end in _labelIds.png, not _color.png"),
    "label_values": ("error", "{count} label file(s) hold values outside the table",
        "name each value in the option labels (value: meaning); of a known format: train ids are not label ids"),
    "size_mismatch": ("error", "{count} image(s) differ in size from their labels",
        "resize both alike, or take both from the same archive"),
    "labels_empty": ("warning", "{count} label file(s) hold nothing but void",
        "labels of a hidden test set look like this; use the validation split"),
    "labels_disagree": ("warning", "{count} label file(s) and their train ids disagree",
        "choose which to trust by the reader's option labels"),
    "overlay": ("error", "{count} overlay(s) are missing or do not fit",
        "unpack the archive of the labels again: each *_labels.png has its *_rgb.npz"),
    "gamma": ("note", "{count} image(s) carry a gamma tag",
        "it is ignored here; some other readers honour it and give other pixels"),
    # the set
    "size": ("warning", "{count} image(s) are not {expected} px but {others}",
        "choose crops that fit; results do not compare with published ones"),
    "classes": ("warning", "{number} of {total} classes occur{where}; not {missing}",
        "IoU is a mean over the classes that occur"),
    "no_ood": ("error", "no pixel is out-of-distribution{where}", "wrong labels, or the wrong reading of them"),
    # COCO
    "json_missing": ("error", "{error}", "unpack annotations_trainval2017.zip here"),
    "json_broken": ("error", "{error}", "download or unpack it again"),
    "json_same_id": ("error", "{count} image id(s) occur twice in the json",
        "the json was edited or put together from several: take the original"),
    "json_category": ("error", "{count} annotation(s) have an unknown category",
        "categories and annotations are from different files"),
    "json_segmentation": ("error", "{count} annotation(s) do not fit their image",
        "the json does not belong to these images, or was edited"),
    "json_orphans": ("warning", "{count} annotation(s) belong to no image of the json",
        "the json was cut to a subset: they are passed over"),
    "json_only": ("warning", "{count} image(s) of the json are not on disk", "they are passed over; unpack the rest"),
    "disk_only": ("warning", "{count} file(s) on disk are not in the json",
        "they are passed over; COCO's unlabelled images belong elsewhere"),
    "street_classes": ("note", "no category {missing} in the json: no image is left out for it",
        "name the street categories of the json in the reader's option exclude"),
}  # fmt: skip
"""Code of a finding -> level, text and advice; braces are filled by :func:`find`."""


@dataclass(frozen=True)
class Finding:
    """An error (`prepare` would stop, or results would be wrong), a warning (not as published) or a note."""

    level: Level
    code: str  # a key of KINDS
    text: str
    advice: str
    files: tuple[str, ...]  # a few of the files that show it
    count: int  # how many files show it


def find(code: str, files: Iterable[object] = (), *, example: str = "", **values: object) -> list[Finding]:
    """Return one finding about all files that show the same thing; none if it needs a file.

    `example` says what is wrong with one of the files; `values` fill the braces of text and advice.
    """
    names = sorted(str(file) for file in files)
    level, text, advice = KINDS[code]
    if "{count}" in text and not names:
        return []
    text, advice = (part.format(count=len(names), **values) for part in (text, advice))
    if example:
        text += f"; for example {example}" if len(names) > 1 else f": {example}"
    return [Finding(level, code, text, advice, tuple(names[:5]), len(names))]


@dataclass(frozen=True)
class Report:
    """The result of the checks of one split of a dataset."""

    name: str
    root: str
    split: str
    facts: Mapping[str, Any]  # frames, scenes, sizes, target values
    findings: tuple[Finding, ...]  # errors first

    @property
    def passed(self) -> bool:
        """Whether there is no error."""
        return all(finding.level != "error" for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """Return plain values for a json file."""
        values = asdict(self)
        return {"dataset": values.pop("name"), "passed": self.passed, **values}
