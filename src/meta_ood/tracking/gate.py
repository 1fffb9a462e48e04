"""The gate of the registry: whether a variant may be champion, and why or why not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from meta_ood.config import GateParams, Params
from meta_ood.pipeline import paths as layout


@dataclass(frozen=True)
class Verdict:
    """What the gate says: a line for each thing it looked at."""

    passed: bool
    lines: tuple[str, ...]


def judge(
    candidate: Mapping[str, Any],
    baseline: Mapping[str, Any],
    candidate_streets: Mapping[str, Any],
    baseline_streets: Mapping[str, Any],
    gate: GateParams,
) -> Verdict:
    """Compare a candidate with the baseline.

    Parameters
    ----------
    candidate, baseline
        Values of metrics.json on `gate.dataset`.
    candidate_streets, baseline_streets
        The same on `gate.miou_dataset`.
    gate
        See :class:`meta_ood.config.GateParams`.

    Examples
    --------
    >>> good, bad = {"auprc": 0.6, "fpr95": 0.1}, {"auprc": 0.4, "fpr95": 0.2}
    >>> streets = {"miou": 0.8}
    >>> judge(good, bad, streets, streets, GateParams()).passed
    True
    >>> judge(bad, good, streets, streets, GateParams()).lines[0]
    'no   AUPRC on lost_and_found: 0.6000 -> 0.4000, must rise by at least 0'
    """
    comparisons = (
        ("auprc", candidate, baseline, gate.auprc_gain, 1.0, gate.dataset),
        ("fpr95", candidate, baseline, gate.fpr95_gain, -1.0, gate.dataset),
        ("miou", candidate_streets, baseline_streets, -gate.miou_loss, 1.0, gate.miou_dataset),
    )
    lines, passed = [], True
    for name, new, old, gain, sign, dataset in comparisons:
        ok, line = _compare(name, new, old, gain, sign, gate.judge_by == "interval")
        passed &= ok
        lines.append(f"{'ok' if ok else 'no':4} {_TITLES[name]} on {dataset}: {line}")
    return Verdict(passed, tuple(lines))


_TITLES = {"auprc": "AUPRC", "fpr95": "FPR95", "miou": "mIoU"}


def _compare(
    name: str,
    new: Mapping[str, Any],
    old: Mapping[str, Any],
    gain: float,
    sign: float,
    by_interval: bool,
) -> tuple[bool, str]:
    values = new.get(name), old.get(name)
    if not all(isinstance(v, int | float) for v in values):
        return False, f"not measured ({values[1]} -> {values[0]})"
    after, before = (float(v) for v in values if v is not None)
    ok = sign * (after - before) >= gain - 1e-12
    if gain < 0:
        demand = f"must fall by at most {-gain:g}"
    else:
        demand = f"must {'rise' if sign > 0 else 'fall'} by at least {gain:g}"
    intervals = _interval(new, name), _interval(old, name)
    said = [f" [{i[0]:.4f}, {i[1]:.4f}]" if i else "" for i in intervals]
    text = f"{before:.4f}{said[1]} -> {after:.4f}{said[0]}, {demand}"
    if by_interval and gain >= 0:
        if intervals[0] is None or intervals[1] is None:
            return False, f"{text}; no confidence interval is known"
        apart = intervals[0][0] > intervals[1][1] if sign > 0 else intervals[0][1] < intervals[1][0]
        ok &= apart
        text += "" if apart else "; the intervals overlap"
    return ok, text


def _interval(values: Mapping[str, Any], name: str) -> tuple[float, float] | None:
    found = (values.get("intervals") or {}).get(name)
    if isinstance(found, list | tuple) and len(found) == 2 and None not in found:
        return float(found[0]), float(found[1])
    return None


def measured(params: Params, network: str, variant: str, dataset: str) -> dict[str, Any]:
    """Return metrics.json of an evaluation.

    Raises
    ------
    FileNotFoundError
        If it is not there: says which stage makes it.
    """
    path = layout.stage_paths("evaluate", params, network, variant, dataset).outputs["metrics"]
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: dvc repro evaluate")
    return dict(json.loads(path.read_text(encoding="utf-8")))


def verdict(params: Params, network: str, variant: str = "ood_trained") -> Verdict:
    """Judge a variant of `network` by the evaluations in data/."""
    gate = params.tracking.champion
    cells = [
        measured(params, network, which, dataset)
        for dataset in (gate.dataset, gate.miou_dataset)
        for which in (variant, "baseline")
    ]
    return judge(cells[0], cells[1], cells[2], cells[3], gate)
