"""The top of the page: what OoD training changed, in sentences computed from the metrics.

Every comparison is of the baseline with the OoD-trained network, both with meta classification, over the same datasets.
Ordinary frames, those of datasets without OoD objects, stay apart. A tile is about one dataset: frames and objects of
two are not alike, so that a mean over them says nothing about either.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from meta_ood.metrics.catalogue import METRICS
from meta_ood.report.compare import Difference, Tone, difference
from meta_ood.report.results import Evaluation, Pair, Results

_FALSE, _MISSED = "segment_false_positives_after_meta", "segment_false_negatives_after_meta"
_NAMES = {_FALSE: "false segments", _MISSED: "missed objects"}


class Tile(NamedTuple):
    """One metric in large print; values as printed."""

    name: str
    before: str
    after: str
    note: str
    tone: Tone


class Headline(NamedTuple):
    """The title, the sentences and tiles below it, and one text per pair for what got worse."""

    title: str
    sentences: Sequence[str]
    tiles: Sequence[Tile]
    worse: Sequence[str]


def summarise(results: Results) -> Headline:
    """Compare baselines and OoD-trained networks."""
    pairs = results.pairs
    with_objects = [pair for pair in pairs if pair[1].has_ood_objects]
    ordinary = [pair for pair in pairs if not pair[1].has_ood_objects]
    names = ", ".join(dict.fromkeys(after.dataset for _, after in ordinary))
    tiles = [
        *(tile for key in ("auroc", "fpr95", "auprc", "miou") for tile in _tiles(partial(_mean_tile, key), pairs)),
        *_tiles(partial(_count_tile, _MISSED, "missed objects", "components"), with_objects),
        *_tiles(partial(_count_tile, _FALSE, "false segments per frame", "frames"), with_objects),
        *_tiles(partial(_count_tile, _FALSE, "false segments per ordinary frame", "frames"), ordinary),
    ]
    sentences = [
        *(_broken(one) for one in results.promised),
        *(_directions(key, pairs) for key in ("auroc", "auprc", "fpr95", "miou")),
        _of_meta_classification([o for _, o in with_objects] or [o for o in results.ordered if o.has_ood_objects]),
        _counts("OoD-trained against baseline, both with meta classification", (_FALSE, _MISSED), with_objects),
        _counts(f"On frames without OoD objects ({names})", (_FALSE,), ordinary),
    ]
    title = _title(pairs) if results.evaluations else "There are no results yet."
    return Headline(title, [*filter(None, sentences)], tiles, _worse(pairs))


def _title(pairs: Sequence[Pair]) -> str:
    changes = [d for key in ("auprc", "fpr95") if (d := difference(key, *pairs))]
    if not changes:
        return "There is no pair of baseline and OoD-trained network to compare."
    what = {
        frozenset[Tone](): "hardly changed the detection of pixels",
        frozenset({"better"}): "improved the detection of pixels",
        frozenset({"worse"}): "made the detection of pixels worse",
        frozenset({"better", "worse"}): "improved one metric of pixels and made another worse",
    }[frozenset(d.tone for d in changes) - {"unchanged"}]
    return f"OoD training {what}: {', '.join(map(_text, changes))}."


def _text(d: Difference) -> str:
    """Return a change as text, say ``AUPRC 40.0 → 70.0 %, could be chance``."""
    name, unit = _NAMES.get(d.metric.key, d.metric.name), " %" if d.metric.unit == "percent" else ""
    return f"{name} {d.metric.text(d.before)} → {d.metric.text(d.after)}{unit}{_chance(d)}"


def _chance(d: Difference) -> str:
    return ", could be chance" if d.could_be_chance else ""


def _tiles(tile_of: Callable[[Sequence[Pair]], Tile | None], pairs: Sequence[Pair]) -> list[Tile]:
    """Return a tile for each dataset, with its name where there are several."""
    groups = {
        name: [pair for pair in pairs if pair[1].dataset == name] for name in dict.fromkeys(o.dataset for _, o in pairs)
    }
    found = {name: tile for name, group in groups.items() if (tile := tile_of(group))}
    return [tile if len(found) == 1 else tile._replace(name=f"{tile.name}, {name}") for name, tile in found.items()]


def _broken(one: Evaluation) -> str:
    """Return that the promise of false alarms is broken on a set, "" if it is not."""
    promise = one.metrics["promise"]
    if one.promise_state != "broken":
        return ""
    rate = METRICS["alarm_rate"].text(promise["alarms"] / promise["frames"])
    return (
        f"The promise ({promise['text']}) is broken for {one.network}, {one.variant}, on {one.dataset}: "
        f"{rate} % of its frames have a false alarm (p = {promise['p_value']:.2g})."
    )


def _mean_tile(key: str, pairs: Sequence[Pair]) -> Tile | None:
    d = difference(key, *pairs)
    if d is None:
        return None
    count = sum(difference(key, pair) is not None for pair in pairs)
    note = f"{d.signed(d.change)} points" + (f", mean of {count}" if count > 1 else "")
    text = d.metric.text
    return Tile(d.metric.name, text(d.before), f"{text(d.after)} %", note + _chance(d), d.tone)


def _count_tile(key: str, name: str, per: str, pairs: Sequence[Pair]) -> Tile | None:
    d = difference(key, *pairs)
    total = sum(after.value(per) or 0 for _, after in pairs)
    if d is None or not total:
        return None
    note = f"{d.before:.0f} → {d.after:.0f} in {total:.0f} {'objects' if per == 'components' else 'frames'}{_chance(d)}"
    if per == "components":
        return Tile(name, f"{100 * d.before / total:.1f}", f"{100 * d.after / total:.1f} %", note, d.tone)
    return Tile(name, f"{d.before / total:.2f}", f"{d.after / total:.2f}", note, d.tone)


def _directions(key: str, pairs: Sequence[Pair]) -> str:
    """Return in how many comparisons a metric rose, fell and stayed."""
    counts = Counter(d.tone for pair in pairs if (d := difference(key, pair)))
    wanted, unwanted = ("rose", "fell") if METRICS[key].better == "higher" else ("fell", "rose")
    verbs: dict[Tone, str] = {"better": wanted, "worse": unwanted, "unchanged": "stayed"}
    parts = [f"{verb} in {counts[tone]}" for tone, verb in verbs.items() if counts[tone]]
    return f"{METRICS[key].name} {', '.join(parts)} of {counts.total()} comparisons." if parts else ""


def _of_meta_classification(evaluations: Sequence[Evaluation]) -> str:
    """Return how segments changed by meta classification alone, summed over evaluations."""
    keys = ("segment_false_positives", _FALSE, "segment_false_negatives", _MISSED, "true_segments_removed")
    rows = [[one.value(key) for key in keys] for one in evaluations]
    known = np.array([row for row in rows if None not in row], int).reshape(-1, len(keys))
    false, kept, missed_before, missed, lost = known.sum(axis=0)
    if not false:
        return ""
    return (
        f"Meta classification removed {false - kept} of {false} false segments "
        f"({100 * (false - kept) / false:.0f} %) and {lost} true ones; "
        f"missed objects went from {missed_before} to {missed}."
    )


def _counts(what: str, keys: Sequence[str], pairs: Sequence[Pair]) -> str:
    texts = [_text(d) for key in keys if (d := difference(key, *pairs))]
    return f"{what}: {'; '.join(texts)}." if texts else ""


def _worse(pairs: Sequence[Pair]) -> list[str]:
    """Return one text per pair for all metrics that OoD training made worse, the surest first."""
    keys = ("auroc", "auprc", "fpr95", _FALSE, _MISSED, "component_f1_after_meta", "miou", "calibration_error")
    sure: list[str] = []
    unsure: list[str] = []
    for pair in pairs:
        if changes := [d for key in keys if (d := difference(key, pair)) and d.tone == "worse"]:
            group = unsure if all(d.could_be_chance for d in changes) else sure
            group.append(f"{pair[1].network} on {pair[1].dataset}: {'; '.join(map(_text, changes))}")
    return sure + unsure
