"""The top of the page: what OoD training changed, in sentences computed from the metrics.

Every comparison is of the baseline with the OoD-trained network, both with meta classification,
over the same datasets. Ordinary frames, those of datasets without OoD objects, stay apart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from meta_ood.metrics.catalogue import METRICS
from meta_ood.report.compare import Difference, Tone, difference
from meta_ood.report.results import Evaluation, Pair, Results

_FALSE = "segment_false_positives_after_meta"
_MISSED = "segment_false_negatives_after_meta"
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
    trained = [after for _, after in with_objects]
    tiles = [
        *(_mean_tile(key, pairs) for key in ("auroc", "fpr95", "auprc", "miou")),
        _count_tile(_MISSED, "missed objects", with_objects, "components"),
        _count_tile(_FALSE, "false segments per frame", with_objects, "frames"),
        _count_tile(_FALSE, "false segments per ordinary frame", ordinary, "frames"),
    ]
    alike = "OoD-trained against baseline, both with meta classification"
    names = ", ".join(dict.fromkeys(after.dataset for _, after in ordinary))
    sentences = [
        *(_directions(key, pairs) for key in ("auroc", "auprc", "fpr95", "miou")),
        _of_meta_classification(trained or [o for o in results.ordered if o.has_ood_objects]),
        _counts(alike, (_FALSE, _MISSED), with_objects),
        _counts(f"On frames without OoD objects ({names})", (_FALSE,), ordinary),
    ]
    return Headline(
        _title(pairs, bool(results.evaluations)),
        [sentence for sentence in sentences if sentence],
        [tile for tile in tiles if tile],
        _worse(pairs),
    )


def _title(pairs: Sequence[Pair], is_any: bool) -> str:
    changes = [d for key in ("auprc", "fpr95") if (d := difference(key, *pairs))]
    if not changes:
        if not is_any:
            return "There are no results yet."
        return "There is no pair of baseline and OoD-trained network to compare."
    tones = {d.tone for d in changes} - {"unchanged"}
    if not tones:
        what = "OoD training hardly changed the detection of pixels"
    elif len(tones) == 2:
        what = "OoD training improved one metric of pixels and made another worse"
    elif tones == {"better"}:
        what = "OoD training improved the detection of pixels"
    else:
        what = "OoD training made the detection of pixels worse"
    return f"{what}: {', '.join(map(_text, changes))}."


def _text(d: Difference) -> str:
    """Return a change as text, say ``AUPRC 40.0 → 70.0 %, could be chance``."""
    name, unit = _NAMES.get(d.metric.key, d.metric.name), " %" * (d.metric.unit == "percent")
    return f"{name} {d.metric.text(d.before)} → {d.metric.text(d.after)}{unit}{_chance(d)}"


def _chance(d: Difference) -> str:
    return ", could be chance" if d.could_be_chance else ""


def _mean_tile(key: str, pairs: Sequence[Pair]) -> Tile | None:
    d = difference(key, *pairs)
    if d is None:
        return None
    count = sum(difference(key, pair) is not None for pair in pairs)
    note = f"{d.signed(d.change)} points" + (f", mean of {count}" if count > 1 else "")
    text = d.metric.text
    return Tile(d.metric.name, text(d.before), f"{text(d.after)} %", note + _chance(d), d.tone)


def _count_tile(key: str, name: str, pairs: Sequence[Pair], per: str) -> Tile | None:
    d = difference(key, *pairs)
    total = sum(after.value(per) or 0 for _, after in pairs)
    if d is None or not total:
        return None
    if per == "components":
        before, after = (f"{100 * value / total:.1f}" for value in (d.before, d.after))
        after, unit = f"{after} %", "objects"
    else:
        before, after = (f"{value / total:.2f}" for value in (d.before, d.after))
        unit = "frames"
    note = f"{d.before:.0f} → {d.after:.0f} in {total:.0f} {unit}{_chance(d)}"
    return Tile(name, before, after, note, d.tone)


def _directions(key: str, pairs: Sequence[Pair]) -> str:
    """Return in how many comparisons a metric rose, fell and stayed."""
    counts = Counter(d.tone for pair in pairs if (d := difference(key, pair)))
    wanted, unwanted = ("rose", "fell") if METRICS[key].better == "higher" else ("fell", "rose")
    verbs: dict[Tone, str] = {"better": wanted, "worse": unwanted, "unchanged": "stayed"}
    parts = [f"{verb} in {counts[tone]}" for tone, verb in verbs.items() if counts[tone]]
    if not parts:
        return ""
    return f"{METRICS[key].name} {', '.join(parts)} of {counts.total()} comparisons."


def _of_meta_classification(evaluations: Sequence[Evaluation]) -> str:
    """Return how segments changed by meta classification alone, summed over evaluations."""
    keys = ("segment_false_positives", _FALSE, "segment_false_negatives", _MISSED)
    rows = [[one.value(key) for key in (*keys, "true_segments_removed")] for one in evaluations]
    known = [[value for value in row if value is not None] for row in rows if None not in row]
    if not known or not sum(row[0] for row in known):
        return ""
    false, kept, missed_before, missed, lost = (int(sum(column)) for column in zip(*known, strict=True))
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
    keys = ("auroc", "auprc", "fpr95", _FALSE, _MISSED, "miou", "calibration_error")
    found = []
    for pair in pairs:
        changes = [d for key in keys if (d := difference(key, pair)) and d.tone == "worse"]
        if changes:
            text = f"{pair[1].network} on {pair[1].dataset}: {'; '.join(map(_text, changes))}"
            found.append((all(d.could_be_chance for d in changes), text))
    return [text for _, text in sorted(found, key=lambda entry: entry[0])]
