"""The top of the page: what OoD training changed, in sentences computed from the metrics.

Every comparison is of the baseline with the OoD-trained network, both with meta classification, over the same datasets.
Datasets without OoD objects (ordinary street frames, where every segment is false) stay apart from the others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from meta_ood.metrics.catalogue import METRICS
from meta_ood.report.compare import Difference, Tone, difference
from meta_ood.report.results import Evaluation, Pair, Results

FALSE = "segment_false_positives_after_meta"
MISSED = "segment_false_negatives_after_meta"
_NAMES = {FALSE: "false segments", MISSED: "missed objects"}


@dataclass(frozen=True)
class Tile:
    """One metric in large print: name, values before and after as printed, note and tone."""

    name: str
    before: str
    after: str
    note: str
    tone: Tone


@dataclass(frozen=True)
class Headline:
    """The title, the sentences and tiles below it, and one text per pair for what got worse."""

    title: str
    sentences: Sequence[str]
    tiles: Sequence[Tile]
    worse: Sequence[str]


def summarise(results: Results) -> Headline:
    """Compare baselines and OoD-trained networks.

    Examples:
        >>> before = Evaluation("mini", "baseline", "fs", {"auprc": 0.4, "fpr95": 0.2})
        >>> after = Evaluation("mini", "ood_trained", "fs", {"auprc": 0.7, "fpr95": 0.1})
        >>> found = {one.key: one for one in (before, after)}
        >>> summarise(Results(("mini",), ("baseline", "ood_trained"), ("fs",), found)).title
        'OoD training improved the detection of pixels: AUPRC 40.0 → 70.0 %, FPR95 20.0 → 10.0 %.'
    """
    pairs = results.pairs
    with_objects = [pair for pair in pairs if pair[1].has_ood_objects]
    ordinary = [pair for pair in pairs if not pair[1].has_ood_objects]
    tiles = [
        *(_mean_tile(key, pairs) for key in ("auroc", "fpr95", "auprc", "miou")),
        _missed_tile(with_objects),
        _false_tile("false segments per frame", with_objects),
        _false_tile("false segments per ordinary frame", ordinary),
    ]
    trained = [after for _, after in with_objects]
    sentences = [
        *(_directions(key, pairs) for key in ("auroc", "auprc", "fpr95")),
        _known_classes(pairs),
        _of_meta_classification(trained or [o for o in results.ordered if o.has_ood_objects]),
        _of_segments(with_objects),
        _of_ordinary_frames(ordinary),
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
    return f"{what}: {', '.join(_arrow(d) for d in changes)}."


def _arrow(d: Difference) -> str:
    """Return a change as text, say ``AUPRC 40.0 → 70.0 %``."""
    name = _NAMES.get(d.metric.key, d.metric.name)
    unit = " %" if d.metric.unit == "percent" else ""
    return f"{name} {d.metric.text(d.before)} → {d.metric.text(d.after)}{unit}"


def _chance(d: Difference) -> str:
    return ", could be chance" if d.could_be_chance and d.tone != "unchanged" else ""


def _mean_tile(key: str, pairs: Sequence[Pair]) -> Tile | None:
    d = difference(key, *pairs)
    if d is None:
        return None
    count = sum(difference(key, pair) is not None for pair in pairs)
    note = f"{d.signed(d.change)} points" + (f", mean of {count}" if count > 1 else "")
    text = d.metric.text
    return Tile(d.metric.name, text(d.before), f"{text(d.after)} %", note + _chance(d), d.tone)


def _missed_tile(pairs: Sequence[Pair]) -> Tile | None:
    d = difference(MISSED, *pairs)
    if d is None:
        return None
    objects = sum(after.value("components") or 0 for _, after in pairs)
    note = f"{d.signed(d.change)} of {objects:.0f}" if objects else d.signed(d.change)
    return Tile("missed objects", f"{d.before:.0f}", f"{d.after:.0f}", note + _chance(d), d.tone)


def _false_tile(name: str, pairs: Sequence[Pair]) -> Tile | None:
    d = difference(FALSE, *pairs)
    frames = sum(after.value("frames") or 0 for _, after in pairs)
    if d is None or not frames:
        return None
    before, after = (f"{value / frames:.2f}" for value in (d.before, d.after))
    note = f"{d.before:.0f} → {d.after:.0f} in {frames:.0f} frames{_chance(d)}"
    return Tile(name, before, after, note, d.tone)


def _directions(key: str, pairs: Sequence[Pair]) -> str:
    """Return in how many comparisons a metric rose, fell and stayed."""
    changes = [d for pair in pairs if (d := difference(key, pair))]
    if not changes:
        return ""
    metric = METRICS[key]
    wanted, unwanted = ("rose", "fell") if metric.better == "higher" else ("fell", "rose")
    verbs: dict[Tone, str] = {"better": wanted, "worse": unwanted, "unchanged": "stayed"}
    counts = Counter(d.tone for d in changes)
    found = [(verbs[tone], counts[tone]) for tone in verbs if counts[tone]]
    if len(found) == 1:
        many = {1: "", 2: " in both comparisons"}
        where = many.get(len(changes), f" in all {len(changes)} comparisons")
        return f"{metric.name} {found[0][0]}{where}."
    (verb, count), *others = found
    rest = ", ".join(f"{verb} in {count}" for verb, count in others)
    return f"{metric.name} {verb} in {count} of {len(changes)} comparisons, {rest}."


def _known_classes(pairs: Sequence[Pair]) -> str:
    d = difference("miou", *pairs)
    if d is None:
        return ""
    if d.tone == "unchanged":
        return "Segmentation of the known classes did not change (mIoU)."
    verb = "lost" if d.tone == "worse" else "gained"
    return f"Segmentation of the known classes {verb} {100 * abs(d.change):.1f} points of mIoU."


def _of_meta_classification(evaluations: Sequence[Evaluation]) -> str:
    """Return how segments changed by meta classification alone, summed over evaluations."""
    keys = ("segment_false_positives", FALSE, "segment_false_negatives", MISSED)
    rows = [[one.value(key) for key in keys] for one in evaluations]
    known = [[value for value in row if value is not None] for row in rows if None not in row]
    if not known:
        return ""
    false, kept, missed_before, missed = (int(sum(column)) for column in zip(*known, strict=True))
    if not false:
        return ""
    lost = [one.value("true_segments_removed") for one in evaluations]
    of_true = "" if None in lost else f" and {sum(v for v in lost if v is not None):.0f} true ones"
    return (
        f"Meta classification removed {false - kept} of {false} false segments "
        f"({100 * (false - kept) / false:.0f} %){of_true}; "
        f"missed objects went from {missed_before} to {missed}."
    )


def _of_segments(pairs: Sequence[Pair]) -> str:
    changes = [d for key in (FALSE, MISSED) if (d := difference(key, *pairs))]
    if not changes:
        return ""
    texts = (_arrow(d) + _chance(d) for d in changes)
    return f"OoD-trained against baseline, both with meta classification: {'; '.join(texts)}."


def _of_ordinary_frames(pairs: Sequence[Pair]) -> str:
    d = difference(FALSE, *pairs)
    if d is None:
        return ""
    names = ", ".join(dict.fromkeys(after.dataset for _, after in pairs))
    return f"On frames without OoD objects ({names}): {_arrow(d)}{_chance(d)}."


def _worse(pairs: Sequence[Pair]) -> list[str]:
    """Return one text per pair for all metrics that OoD training made worse, the surest first."""
    keys = ("auroc", "auprc", "fpr95", FALSE, MISSED, "miou", "calibration_error")
    found = []
    for pair in pairs:
        changes = [d for key in keys if (d := difference(key, pair)) and d.tone == "worse"]
        if changes:
            texts = (_arrow(d) + _chance(d) for d in changes)
            text = f"{pair[1].network} on {pair[1].dataset}: {'; '.join(texts)}"
            found.append((all(d.could_be_chance for d in changes), text))
    return [text for _, text in sorted(found, key=lambda entry: entry[0])]
