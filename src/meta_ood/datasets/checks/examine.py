"""The checks of a dataset, by its entry in params or by a folder alone."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from meta_ood.datasets import READERS, check_options
from meta_ood.datasets.checks.archives import check_archives
from meta_ood.datasets.checks.coco import check_coco
from meta_ood.datasets.checks.findings import Report, find
from meta_ood.datasets.checks.layouts import check_layout
from meta_ood.datasets.reader import LayoutReader, list_frames

SAMPLE = 64  # frames that the fast mode decodes: some seconds, and most faults are systematic
# reader -> options that change where its files lie
_VARIANTS: dict[str, Sequence[Mapping[str, Any]]] = {
    "cityscapes": ({}, {"labels": "train_ids"}),
    "fishyscapes_static": ({"version": "v1"}, {"version": "v2"}, {"version": "v3"}),
}


def examine(
    name: str, reader: str, root: Path, split: str, options: Mapping[str, Any], full: bool = False, workers: int = 1
) -> Report:
    """Check one split of a raw dataset; nothing is written.

    Args:
        name: The dataset's name in the report.
        reader, root, split, options: As an entry under ``datasets`` in params; what is unknown is a ``ValueError``.
        full: Decode every file and read the archives, instead of a sample.
        workers: Processes.
    """
    check_options(reader, options)
    if not root.is_dir():
        return Report(name, str(root), split, {}, tuple(find("root_missing", root=root)))
    sample = 0 if full else SAMPLE
    function = READERS[reader]
    if isinstance(function, LayoutReader):
        facts, findings = check_layout(function.layout(**options), root, split, sample, workers)
    else:
        facts, findings = check_coco(root, split, options, sample, workers)
    findings += check_archives(root, full)
    findings.sort(key=lambda finding: ("error", "warning", "note").index(finding.level))
    return Report(name, str(root), split, facts, tuple(findings))


def recognise(root: Path) -> list[tuple[str, str, dict[str, Any]]]:
    """Return ``(reader, split, options)`` of every split that has files in a folder, best guesses first."""
    if not root.is_dir():
        return []
    found: list[tuple[str, str, dict[str, Any]]] = [
        ("coco", path.name, {})
        for path in sorted(root.iterdir())
        if path.is_dir() and (root / "annotations" / f"instances_{path.name}.json").is_file()
    ]
    for reader, function in READERS.items():
        if not isinstance(function, LayoutReader):
            continue
        for options in _VARIANTS.get(reader, ({},)):
            layout = function.layout(**options)
            for split in layout.splits:
                # splits that share another one's folder are parts of it
                first = [] if split in layout.folders else list_frames(layout, root, split)[:1]
                if first and first[0].is_complete:
                    found.append((reader, split, dict(options)))
    return found
