"""The gate of the registry: whether a variant may become champion, and why or why not."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from meta_ood.config import GateParams, Params
from meta_ood.data.files import read_json
from meta_ood.pipeline import paths as layout

Metrics = Mapping[str, Any]  # values of a metrics.json


@dataclass(frozen=True)
class GateResult:
    """Whether the gate is passed, and a line for each comparison."""

    passed: bool
    lines: tuple[str, ...]


def check(params: Params, network: str, variant: str = "ood_trained") -> GateResult:
    """Compare a variant with the baseline by the evaluations in data/; FileNotFoundError if one is missing."""
    gate = params.tracking.champion
    cells = []
    for dataset, which in itertools.product((gate.dataset, gate.miou_dataset), (variant, "baseline")):
        path = layout.stage_paths("evaluate", params, network, which, dataset).outputs["metrics"]
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing: dvc repro evaluate")
        cells.append(read_json(path))
    return compare(cells[0], cells[1], cells[2], cells[3], gate)


def compare(
    candidate: Metrics, baseline: Metrics, candidate_streets: Metrics, baseline_streets: Metrics, gate: GateParams
) -> GateResult:
    """Compare a candidate with the baseline, on `gate.dataset` and (streets) on `gate.miou_dataset`."""
    results = [
        _compare("AUPRC", candidate, baseline, gate.auprc_gain, 1, gate),
        _compare("FPR95", candidate, baseline, gate.fpr95_gain, -1, gate),
        _compare("mIoU", candidate_streets, baseline_streets, -gate.miou_loss, 1, gate),
    ]
    return GateResult(all(ok for ok, _ in results), tuple(line for _, line in results))


def _compare(title: str, new: Metrics, old: Metrics, gain: float, sign: int, gate: GateParams) -> tuple[bool, str]:
    """Return whether a metric changed by `gain` in the direction `sign`, and a line about it."""
    name = title.lower()
    place = f"{title} on {gate.miou_dataset if name == 'miou' else gate.dataset}"
    after, before = new.get(name), old.get(name)
    if not isinstance(after, int | float) or not isinstance(before, int | float):
        return False, f"no   {place}: not measured ({before} -> {after})"
    # rounding must not decide between equal metrics
    ok = sign * (after - before) >= gain - 1e-12
    direction = "rise" if sign > 0 else "fall"
    demand = f"fall by at most {-gain:g}" if gain < 0 else f"{direction} by at least {gain:g}"
    was, now = _interval(old, name), _interval(new, name)
    text = f"{before:.4f}{_text(was)} -> {after:.4f}{_text(now)}, must {demand}"
    # a metric that may get worse within limits need not be apart from the baseline's
    if gate.criterion == "interval" and gain >= 0:
        if was is None or now is None:
            return False, f"no   {place}: {text}; no confidence interval is known"
        if not (now[0] > was[1] if sign > 0 else now[1] < was[0]):
            return False, f"no   {place}: {text}; the intervals overlap"
    return ok, f"{'ok' if ok else 'no':4} {place}: {text}"


def _interval(metrics: Metrics, name: str) -> tuple[float, float] | None:
    found = (metrics.get("intervals") or {}).get(name) or [None]
    return None if None in found else (float(found[0]), float(found[1]))


def _text(interval: tuple[float, float] | None) -> str:
    return f" [{interval[0]:.4f}, {interval[1]:.4f}]" if interval else ""
