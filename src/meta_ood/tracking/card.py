"""The model card of a version, in Markdown; each evaluation adds a row to its table."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Template

from meta_ood.meta_classification.promise import Promise
from meta_ood.tracking.description import RunDescription

NAME = "model_card.md"
_TEMPLATE = Path(__file__).with_name("model_card.md.j2")
_HEADER = "| dataset | frames | AUROC | AUPRC | FPR95 | FP | FN | mIoU | run |"
_RULE = "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"


def new_card(network: str, variant: str, run: RunDescription, hashes: Mapping[str, str]) -> str:
    """Return the card of weights that `run` made and that have these hashes (name -> digits)."""
    shown = ("git.sha", "git.dirty", "dvc.stage", "dvc.exp.name")
    origin = {name: run.tags[name] for name in shown if name in run.tags} | dict(hashes)
    template = Template(_TEMPLATE.read_text(encoding="utf-8"))  # Markdown: nothing to escape
    table = f"{_HEADER}\n{_RULE}"
    return str(template.render(network=network, variant=variant, table=table, run=run, origin=origin))


def with_evaluation(text: str, dataset: str, values: Mapping[str, Any], run_id: str) -> str:
    """Return a card with the row of `dataset` put in, or put in place of its older one."""

    def shown(name: str, digits: int = 4) -> str:
        value = values.get(name)
        known = isinstance(value, int | float) and not math.isnan(value)
        return f"{value:.{digits}f}" if known else "–"

    segments = [
        f"{shown(name, 0)}, {shown(f'{name}_after_meta', 0)}"
        for name in ("segment_false_positives", "segment_false_negatives")
    ]
    cells = [dataset, shown("frames", 0), *map(shown, ("auroc", "auprc", "fpr95"))]
    row = " | ".join([*cells, *segments, shown("miou"), f"`{run_id}`"])
    lines = [line for line in text.splitlines() if not line.startswith(f"| {dataset} |")]
    place = lines.index(_RULE) + 1 if _RULE in lines else len(lines)
    lines.insert(place, f"| {row} |")
    return "\n".join(lines) + "\n"


def with_promise(text: str, promise: Promise | None) -> str:
    """Return a card with a section on the false alarms that a detector promises, if it does."""
    if promise is None:
        return text
    threshold = f"Segments whose severity, {promise.severity}, is at least {promise.threshold:.4g} raise an alarm:"
    chosen = f"Chosen on {promise.frames} frames of {', '.join(promise.calibrate_on)} ({promise.units} {promise.unit}s)"
    seen = f"{promise.alarms} with a false alarm, upper bound of the rate {promise.bound:.4f}; for frames like those."
    return f"{text.rstrip()}\n\n## False alarms\n\n{threshold} {promise.text}. {chosen}, {seen}\n"
