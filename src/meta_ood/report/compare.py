"""Compare evaluations: variants and networks in pairs, over the same resampled scenes."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from meta_ood.metrics.bootstrap import interval

Floats = npt.NDArray[np.float64]
Key = tuple[str, str, str]

METRICS = (
    "auroc",
    "auprc",
    "fpr95",
    "segment_false_positives",
    "segment_false_positives_after_meta",
    "segment_false_negatives",
    "segment_false_negatives_after_meta",
    "segment_f1",
    "segment_f1_after_meta",
    "component_f1",
    "component_f1_after_meta",
    "miou",
)
"""Metrics that are compared, in the order of the table."""


@dataclass(frozen=True)
class Evaluation:
    """One evaluated cell: its headline figures and their bootstrap replicates.

    Attributes
    ----------
    key
        Network, variant, dataset.
    figures
        Metric -> value; NaN where undefined.
    replicates
        Metric -> ``(B,)``, the same resampled scenes in every evaluation of a dataset.
    """

    key: Key
    figures: Mapping[str, float]
    replicates: Mapping[str, Floats]


def read_evaluations(root: Path) -> dict[Key, Evaluation]:
    """Read ``root/<network>/<variant>/<dataset>/{metrics.json, curves/bootstrap.csv}``.

    Raises
    ------
    FileNotFoundError
        If there is no evaluation below `root`.
    ValueError
        If a file cannot be understood.
    """
    found = {}
    for path in sorted(root.glob("*/*/*/metrics.json")):
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path}: not JSON: {error}") from None
        dataset, variant, network = (parent.name for parent in list(path.parents)[:3])
        figures = {
            name: math.nan if values.get(name) is None else float(values[name]) for name in METRICS
        }
        table = path.parent / "curves" / "bootstrap.csv"
        replicates = _columns(table) if table.is_file() else {}
        key = (network, variant, dataset)
        found[key] = Evaluation(key, figures, replicates)
    if not found:
        raise FileNotFoundError(f"{root}: no <network>/<variant>/<dataset>/metrics.json below it")
    return found


def _columns(path: Path) -> dict[str, Floats]:
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = list(csv.reader(file)) or [[]]
    try:
        values = np.array([[float(value) for value in row] for row in rows], np.float64)
    except ValueError as error:
        raise ValueError(f"{path}: not a table of numbers: {error}") from None
    return {name: values[:, i] for i, name in enumerate(header)} if rows else {}


@dataclass(frozen=True)
class Difference:
    """What changes from one evaluation to another on the same scenes.

    Attributes
    ----------
    metric
        Its name.
    before, after, change
        Values and ``after - before``.
    low, high
        95 % interval of the change, from paired replicates; NaN without replicates.
    """

    metric: str
    before: float
    after: float
    change: float
    low: float
    high: float


def paired_differences(before: Evaluation, after: Evaluation) -> list[Difference]:
    """Compare two evaluations of one dataset, replicate by replicate.

    Raises
    ------
    ValueError
        If they are of different datasets or were resampled differently.
    """
    if before.key[2] != after.key[2]:
        raise ValueError(f"{before.key[2]} and {after.key[2]} cannot be compared in pairs")
    result = []
    for name in METRICS:
        a, b = before.figures[name], after.figures[name]
        if math.isnan(a) or math.isnan(b):
            continue
        low = high = math.nan
        if name in before.replicates and name in after.replicates:
            x, y = before.replicates[name], after.replicates[name]
            if x.shape != y.shape:
                raise ValueError(
                    f"{before.key} has {x.size} replicates, {after.key} {y.size}: "
                    "evaluate both with the same evaluate.bootstrap and seed"
                )
            low, high = interval(y - x)
        result.append(Difference(name, a, b, b - a, low, high))
    return result


def comparison_text(run: Mapping[Key, Evaluation]) -> str:
    """Return the paired changes within a run as a table for people.

    Parameters
    ----------
    run
        What :func:`read_evaluations` returns.
    """
    lines: list[str] = []
    for first, second in _pairs(list(run)):
        lines += ["", f"{second[2]}: {first[0]} {first[1]} -> {second[0]} {second[1]}"]
        row = "  {:<36}{:>10}{:>10}{:>10}   {}"
        lines.append(row.format("", "before", "after", "change", "95 % interval over scenes"))
        for d in paired_differences(run[first], run[second]):
            figures = (_short(v) for v in (d.before, d.after, d.change))
            text = "" if math.isnan(d.low) else f"[{_short(d.low)}, {_short(d.high)}]"
            lines.append(row.format(d.metric, *figures, text).rstrip())
    return "\n".join(lines[1:])


def protocols_text(root: Path) -> str:
    """Return the headline score's figures in every protocol as Markdown, one row a cell.

    Raises
    ------
    FileNotFoundError
        If there is no evaluation below `root`.
    """
    rows: list[str] = []
    names: list[str] = []
    for path in sorted(root.glob("*/*/*/metrics.json")):
        values = json.loads(path.read_text(encoding="utf-8"))
        if values.get("auroc") is None:
            continue
        names = names or list(values["protocols"])
        dataset, variant, network = (parent.name for parent in list(path.parents)[:3])
        cells = []
        for name in names:
            one = values["protocols"].get(name, {}).get(values["score"], {})
            figures = (one.get(key) for key in ("auroc", "auprc", "fpr95"))
            cells.append(" / ".join("–" if v is None else f"{100 * v:.2f}" for v in figures))
        rows.append(f"| {dataset} | {network} | {variant} | {' | '.join(cells)} |")
    if not rows:
        raise FileNotFoundError(f"{root}: no evaluation with OoD pixels below it")
    head = f"| dataset | network | variant | {' | '.join(names)} |"
    return "\n".join([head, "|" + " --- |" * (3 + len(names)), *sorted(rows)])


def thresholds_text(root: Path, dataset: str) -> str:
    """Return the thresholds of best F1 on one set as a params section, for use on other sets.

    Raises
    ------
    FileNotFoundError
        If there is no evaluation of the set below `root`.
    ValueError
        If a threshold there was itself given, or the set has no OoD pixels.
    """
    networks: dict[str, list[str]] = {}
    for path in sorted(root.glob(f"*/*/{dataset}/metrics.json")):
        variant, network = path.parts[-3], path.parts[-4]
        found = json.loads(path.read_text(encoding="utf-8"))["component"]["of_score"]
        if not found.get("threshold_is_oracle"):
            raise ValueError(f"{path}: no threshold was chosen on this set")
        networks.setdefault(network, []).append(f"{variant}: {found['threshold']:.9g}")
    if not networks:
        raise FileNotFoundError(f"{root}: no <network>/<variant>/{dataset}/metrics.json below it")
    lines = ["evaluate:", f"  component_thresholds:       # best F1 on {dataset}"]
    lines += [f"    {name}: {{{', '.join(found)}}}" for name, found in networks.items()]
    return "\n".join(lines)


def _pairs(keys: Sequence[Key]) -> list[tuple[Key, Key]]:
    """Return variants of one network, then networks of one variant, on each dataset."""
    order = sorted(keys, key=lambda key: (key[2], key[0], key[1]))
    pairs = [
        (a, b)
        for a in order
        for b in order
        if a[2] == b[2] and ((a[0] == b[0] and a[1] < b[1]) or (a[1] == b[1] and a[0] < b[0]))
    ]
    return sorted(pairs, key=lambda pair: (pair[0][2], pair[0][0] != pair[1][0], pair))


def _short(value: float) -> str:
    if math.isnan(value):
        return "–"
    return f"{value:.4f}" if abs(value) < 1 or value != int(value) else f"{value:.0f}"
