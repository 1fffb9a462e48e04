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

    def metrics(dataset: str, which: str) -> Metrics:
        path = layout.stage_paths("evaluate", params, network, which, dataset).outputs["metrics"]
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing; `dvc repro evaluate` makes it")
        values: Metrics = read_json(path)
        return values

    cells = itertools.product((gate.dataset, gate.miou_dataset), (variant, "baseline"))
    candidate, baseline, candidate_streets, baseline_streets = (metrics(*cell) for cell in cells)
    result = compare(candidate, baseline, candidate_streets, baseline_streets, gate)
    if gate.promise_dataset is None:
        return result
    ok, line = check_promise(metrics(gate.promise_dataset, variant), gate.promise_dataset)
    return GateResult(result.passed and ok, (*result.lines, line))


def check_promise(metrics: Metrics, dataset: str) -> tuple[bool, str]:
    """Return whether an evaluation leaves the promise of false alarms standing, and a line about it.

    It does not if a rate as high as there would have a probability below 1 - confidence if the promise held.
    """
    promise, place = metrics.get("promise"), f"promise on {dataset}"
    if not promise:
        return False, f"no   {place}: nothing is promised, operating_point is null"
    if promise["p_value"] is None:
        return False, f"no   {place}: the set has OoD objects, the promise is about ordinary frames"
    if promise["is_calibration"]:
        return False, f"no   {place}: the set chose the threshold, it cannot test it"
    ok = promise["p_value"] >= 1 - promise["confidence"]
    found = f"{promise['rate']:.4f} of {promise['units']} units, p = {promise['p_value']:.3g}"
    return ok, f"{'ok' if ok else 'no':4} {place}: {found}; {promise['text']}"


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
