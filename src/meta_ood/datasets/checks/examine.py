"""The examination of a dataset, by its entry in params or by a folder alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from meta_ood.data.labels import CITYSCAPES, OOD
from meta_ood.datasets import READERS, known_options
from meta_ood.datasets.checks.archives import examine_archives
from meta_ood.datasets.checks.coco import examine_coco
from meta_ood.datasets.checks.findings import Finding, Report, ordered
from meta_ood.datasets.checks.layouts import examine_layout
from meta_ood.datasets.reader import Layout, LayoutReader, pairs

SAMPLE = 64
"""Number of pairs that the fast mode decodes."""


def examine(
    name: str,
    reader: str,
    root: Path,
    split: str,
    options: Mapping[str, Any],
    full: bool = False,
    workers: int = 1,
) -> Report:
    """Examine one split of a raw dataset; nothing is written.

    Parameters
    ----------
    name
        What the report calls it.
    reader, root, split, options
        As an entry under ``datasets`` in params.
    full
        Decode every file and read the archives, instead of a sample.
    workers
        Processes.

    Raises
    ------
    ValueError
        If the reader, an option or the split is unknown.
    """
    known = known_options(reader)
    for option in options:
        if option not in known:
            raise ValueError(
                f"{reader} reader: unknown option {option!r}; known: {', '.join(known) or 'none'}"
            )
    sample = 0 if full else SAMPLE
    function = READERS[reader]
    if isinstance(function, LayoutReader):
        layout = function.layout(**options)
        facts, findings = examine_layout(layout, root, split, sample, workers)
        findings += _meaning(layout, reader, facts)
    else:
        facts, findings = examine_coco(root, split, options, sample, workers)
    if root.is_dir():
        findings += examine_archives(root, full)
    return Report(name, str(root), split, facts, ordered(findings))


def _meaning(layout: Layout, reader: str, facts: Mapping[str, Any]) -> list[Finding]:
    """Say what the label values amount to: classes that never occur, sets without OoD."""
    values = {layout.labels[value] for value in facts.get("values", ()) if value in layout.labels}
    if not values or not facts.get("decoded"):
        return []
    whole = facts["decoded"] == facts["frames"]
    where = "" if whole else f" in the {facts['decoded']} frames that were decoded"
    if reader == "cityscapes":
        missing = [name for k, name in enumerate(CITYSCAPES.names) if k not in values]
        if missing:
            have = len(CITYSCAPES.names) - len(missing)
            text = (
                f"{have} of {len(CITYSCAPES.names)} classes occur{where}; not {', '.join(missing)}"
            )
            advice = "IoU is a mean over the classes that occur"
            return [Finding("warning" if whole else "note", "classes", text, advice)]
    elif layout.targets and OOD in layout.labels.values() and OOD not in values:
        text = f"no pixel is out-of-distribution{where}"
        return [Finding("error", "no_ood", text, "wrong labels, or the wrong reading of them")]
    return []


def recognise(root: Path) -> list[tuple[str, str, dict[str, Any]]]:
    """Guess which readers fit a folder.

    Returns
    -------
    ``(reader, split, options)`` for every split that has files, best guesses first.
    """
    found: list[tuple[str, str, dict[str, Any]]] = []
    if not root.is_dir():
        return found
    for split in sorted(p.name for p in root.iterdir() if p.is_dir()):
        if (root / "annotations" / f"instances_{split}.json").is_file():
            found.append(("coco", split, {}))
    for reader, function in READERS.items():
        if not isinstance(function, LayoutReader):
            continue
        for options in _VARIANTS.get(reader, ({},)):
            layout = function.layout(**options)
            for split in layout.splits:
                if split in layout.folders:
                    continue
                some = pairs(layout, root, split)[:1]
                if (
                    some
                    and some[0].image.exists()
                    and (some[0].target is None or some[0].target.exists())
                ):
                    found.append((reader, split, dict(options)))
    return found


_VARIANTS: dict[str, Sequence[Mapping[str, Any]]] = {
    "cityscapes": ({}, {"labels": "train_ids"}),
    "fishyscapes_static": ({"version": "v1"}, {"version": "v2"}, {"version": "v3"}),
}
"""Reader -> options that change where files lie."""
