"""The model card of a version, in Markdown; each evaluation adds a row to its table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from meta_ood.tracking.description import RunDescription

NAME = "model_card.md"

_ABOUT = """\
Semantic segmentation of street scenes that says where it does not know: classes of Cityscapes, a
score of being out-of-distribution (OoD) for every pixel, OoD segments, and for each segment the
probability of being a false alarm. Each version is one set of weights; aliases are `baseline`,
`ood_trained` and `champion`.
"""
_USE = """\
## Intended use

Research on unknown objects in street scenes, and offline screening of recordings. Not for control
of a vehicle: nothing here was validated for safety, and the scores are no calibrated probabilities.

## Limits

Trained on the streets, cameras and daylight of the training set only. Small or distant objects are
missed more often; segments at class boundaries are the usual false alarms. The meta classifier is
fitted on segments of one dataset: elsewhere its probabilities shift.

## Data and licences

Code: Apache-2.0. Weights inherit the terms of the data that they were trained on (Cityscapes:
non-commercial research; COCO: CC BY 4.0 annotations, images under their own terms; demo data:
drawn by this package, no restriction).
"""
_HEADER = "| dataset | frames | AUROC | AUPRC | FPR95 | FP, with meta | FN, with meta | mIoU | run |"
_RULE = "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"


def about(network: str) -> str:
    """Return the description of the registered model `network`."""
    return f"**{network}**: {_ABOUT}"


def new_card(network: str, variant: str, about: RunDescription, hashes: Mapping[str, str]) -> str:
    """Return the card of a new version.

    Args:
        about: The run that made the weights.
        hashes: Hashes of the weights by name.
    """
    named = ("git.sha", "git.dirty", "dvc.stage", "dvc.exp.name")
    origin = {name: about.tags[name] for name in named if name in about.tags} | dict(hashes)
    lines = [
        f"# {network}, {variant}",
        "",
        _ABOUT,
        "## Metrics",
        "",
        "Pixels by the score below, exact protocol; FP and FN: segments, with and without",
        "meta classification.",
        "",
        _HEADER,
        _RULE,
        "",
        _USE,
        "## Origin",
        "",
        f"- made by: `{about.name}`",
        *(f"- {name}: `{value}`" for name, value in origin.items()),
        *(f"- {entry.name}: `{entry.path}` `{entry.digest}`" for entry in about.inputs),
        "",
    ]
    lines += ["| parameter | value |", "| --- | --- |"] if about.params else []
    lines += [f"| {name} | {value} |" for name, value in about.params.items()]
    return "\n".join(lines) + "\n"


def with_evaluation(text: str, dataset: str, values: Mapping[str, Any], run_id: str) -> str:
    r"""Return a card with the row of `dataset` put in, or put in place of its older one.

    Examples:
        >>> card = f"# mini\\n{_HEADER}\\n{_RULE}\\n"
        >>> once = with_evaluation(card, "laf", {"auroc": 0.9}, "r1")
        >>> with_evaluation(once, "laf", {"auroc": 0.8}, "r2").count("| laf |")
        1
    """
    row = " | ".join(
        [
            dataset,
            _number(values.get("frames"), 0),
            *(_number(values.get(name), 4) for name in ("auroc", "auprc", "fpr95")),
            _pair(values, "segment_false_positives"),
            _pair(values, "segment_false_negatives"),
            _number(values.get("miou"), 4),
            f"`{run_id}`",
        ]
    )
    lines = [line for line in text.splitlines() if not line.startswith(f"| {dataset} |")]
    place = lines.index(_RULE) + 1 if _RULE in lines else len(lines)
    lines.insert(place, f"| {row} |")
    return "\n".join(lines) + "\n"


def _pair(values: Mapping[str, Any], name: str) -> str:
    return f"{_number(values.get(name), 0)}, {_number(values.get(f'{name}_after_meta'), 0)}"


def _number(value: object, digits: int) -> str:
    if not isinstance(value, int | float) or math.isnan(value):
        return "–"
    return f"{value:.{digits}f}"
