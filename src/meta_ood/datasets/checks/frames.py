"""Checks of single frames, and of what a set of them has in common."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from meta_ood.data.context import progress
from meta_ood.datasets.checks.findings import Finding, find
from meta_ood.datasets.inspection import PROBLEMS, Inspected, inspect
from meta_ood.datasets.lost_and_found import train_ids_that_differ
from meta_ood.datasets.pool import ordered_map
from meta_ood.datasets.reader import RawFrame


def check_frame(raw: RawFrame) -> Inspected:
    """Decode a frame and list what is wrong with it; the arrays are not kept."""
    found, labels = inspect(raw), raw.labels
    if labels is None:  # then the target is made up
        found.problems.pop("labels_empty", None)
        found = replace(found, values=())
    elif labels.name.endswith(("_gtCoarse_labelIds.png", "_gtCoarse_labelTrainIds.png")):
        try:
            if ids := train_ids_that_differ(labels):
                found.problems["labels_disagree"] = f"label ids {ids} have other train ids than in the table"
        except ValueError as error:
            found.problems["labels_disagree"] = str(error)
    return replace(found, target=None, label_ids=None, pixels=None)


def check_frames(
    name: str, frames: Sequence[RawFrame], sample: int, workers: int
) -> tuple[list[Inspected], list[Finding]]:
    """Check frames that are evenly spread over all of them, `sample` at most; 0 = all.

    Returns:
        The frames, and one finding for each kind of problem.
    """
    chosen = frames if sample <= 0 else frames[:: max(1, -(-len(frames) // sample))]
    results = ordered_map(check_frame, chosen, workers)
    checked = list(progress(results, f"check {name}", len(chosen)))

    files: dict[str, list[Path]] = defaultdict(list)
    examples: dict[str, str] = defaultdict(str)
    by_md5: dict[str, list[Path]] = defaultdict(list)
    for raw, frame in zip(chosen, checked, strict=True):
        for code, text in frame.problems.items():
            is_of_labels = code.startswith(("label", "overlay"))
            files[code].append(raw.labels if is_of_labels and raw.labels else raw.image)
            examples.setdefault(code, text.removeprefix(f"{files[code][-1]}: "))
        if frame.size != (0, 0):
            by_md5[frame.image_md5].append(raw.image)
    findings = [f for code in PROBLEMS for f in find(code, files[code], example=examples.get(code, ""))]
    if len(files["labels_empty"]) == sum(raw.labels is not None for raw in chosen):
        # not one frame with labels: this cannot be ground truth
        findings = [replace(f, level="error") if f.code == "labels_empty" else f for f in findings]
    copies = [path for paths in by_md5.values() if len(paths) > 1 for path in paths]
    return checked, findings + find("duplicate", copies)


def most_common_sizes(checked: Iterable[Inspected]) -> dict[str, int]:
    """Return the four most frequent image sizes and how often each occurs."""
    sizes = Counter(frame.size for frame in checked if frame.size != (0, 0))
    return {f"{width}x{height}": count for (width, height), count in sizes.most_common(4)}
