"""What OoD training and meta classification changed, in plain words computed from the figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from meta_ood.report.markup import signed, tone_of
from meta_ood.report.results import Cell, Results
from meta_ood.report.tables import COLUMNS, Column

_COLUMN = {column.key: column for column in COLUMNS}
_NAMES = {"auroc": "AUROC", "auprc": "AUPRC", "fpr95": "FPR95", "miou": "mIoU"}
_GOOD = {"higher": "rose", "lower": "fell"}


@dataclass(frozen=True)
class Tile:
    """One big figure: what, its value before and after, and whether that is good.

    Attributes
    ----------
    name, before, after
        As printed; `before` may be empty.
    note
        What was counted.
    tone
        ``good``, ``bad`` or ``same``.
    """

    name: str
    before: str
    after: str
    note: str
    tone: str


@dataclass(frozen=True)
class Verdict:
    """The headline, the sentences below it, what got worse, and the tiles."""

    headline: str
    sentences: tuple[str, ...]
    worse: tuple[str, ...]
    tiles: tuple[Tile, ...]


def verdict(results: Results) -> Verdict:
    """Say what changed between baseline and OoD-trained networks; also when it got worse.

    Means are over all pairs of network and evaluation set for which both variants have the figure.

    Examples
    --------
    >>> before = Cell("mini", "baseline", "fs", {"auprc": 0.4, "fpr95": 0.2})
    >>> after = Cell("mini", "ood_trained", "fs", {"auprc": 0.7, "fpr95": 0.1})
    >>> cells = {("mini", c.variant, "fs"): c for c in (before, after)}
    >>> verdict(Results(("mini",), ("baseline", "ood_trained"), ("fs",), cells)).headline
    'OoD training helped: AUPRC 40.0 → 70.0 %, FPR95 20.0 → 10.0 %.'
    """
    pairs = results.pairs
    tiles = [tile for key in ("auroc", "fpr95", "auprc") if (tile := _mean_tile(key, pairs))]
    with_ood = [pair for pair in pairs if _has_objects(pair[1])]
    meta = _meta(
        [after for _, after in with_ood] or [c for c in results.ordered if _has_objects(c)]
    )
    if meta is not None:
        tiles.append(meta[1])
    miou = _mean_tile("miou", pairs)
    if miou is not None:
        tiles.append(miou)
    sentences = [_counted(key, pairs) for key in ("auroc", "auprc", "fpr95")]
    sentences += [
        _closed_set(pairs),
        meta[0] if meta else "",
        _together(with_ood),
        _false_alarms([pair for pair in pairs if not _has_objects(pair[1])]),
    ]
    return Verdict(
        _headline(pairs, bool(results.cells)),
        tuple(sentence for sentence in sentences if sentence),
        tuple(_worse(pairs)),
        tuple(tiles),
    )


def _has_objects(cell: Cell) -> bool:
    """Return whether there is anything OoD to find; where it is not said, there is."""
    return cell.value("components") != 0


def _values(key: str, pairs: Sequence[tuple[Cell, Cell]]) -> list[tuple[float, float]]:
    found = ((before.value(key), after.value(key)) for before, after in pairs)
    return [(b, a) for b, a in found if b is not None and a is not None]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _mean_tile(key: str, pairs: Sequence[tuple[Cell, Cell]]) -> Tile | None:
    values = _values(key, pairs)
    if not values:
        return None
    before, after = _mean([b for b, _ in values]), _mean([a for _, a in values])
    column = _COLUMN[key]
    note = f"{signed(column, after - before)} points"
    if len(values) > 1:
        note += f", mean of {len(values)}"
    tone = tone_of(column, before, after)
    return Tile(_NAMES[key], column.text(before), f"{column.text(after)} %", note, tone)


def _headline(pairs: Sequence[tuple[Cell, Cell]], is_any: bool) -> str:
    parts, tones = [], []
    for key in ("auprc", "fpr95"):
        values = _values(key, pairs)
        if values:
            before, after = _mean([b for b, _ in values]), _mean([a for _, a in values])
            column = _COLUMN[key]
            parts.append(f"{_NAMES[key]} {column.text(before)} → {column.text(after)} %")
            tones.append(tone_of(column, before, after))
    if not parts:
        if not is_any:
            return "There are no results yet."
        return "No pair of baseline and OoD-trained network to compare."
    heard = set(tones) - {"same"}
    if not heard:
        what = "OoD training changed next to nothing"
    elif len(heard) == 2:
        what = "OoD training gave a mixed picture"
    else:
        what = "OoD training helped" if heard == {"good"} else "OoD training hurt"
    return f"{what}: {', '.join(parts)}."


def _counted(key: str, pairs: Sequence[tuple[Cell, Cell]]) -> str:
    """Say how often a figure rose, fell and stayed."""
    values = _values(key, pairs)
    if not values:
        return ""
    column = _COLUMN[key]
    tones = ["same" if tone_of(column, b, a) == "same" else a > b for b, a in values]
    counts = {"rose": tones.count(True), "fell": tones.count(False), "stayed": tones.count("same")}
    verbs = sorted((v for v in counts if counts[v]), key=lambda v: v != _GOOD[column.better])
    if len(verbs) == 1:
        many = {1: "", 2: " in both comparisons"}
        where = many.get(len(values), f" in all {len(values)} comparisons")
        return f"{_NAMES[key]} {verbs[0]}{where}."
    first, *others = (f"{verb} in {counts[verb]}" for verb in verbs)
    return f"{_NAMES[key]} {first} of {len(values)} comparisons, {', '.join(others)}."


def _closed_set(pairs: Sequence[tuple[Cell, Cell]]) -> str:
    values = _values("miou", pairs)
    if not values:
        return ""
    change = 100 * _mean([a - b for b, a in values])
    if abs(change) < 0.05:
        return "Segmentation of the known classes did not change (mIoU)."
    verb = "cost" if change < 0 else "gained"
    return f"Segmentation of the known classes {verb} {abs(change):.1f} points of mIoU."


def _meta(cells: Sequence[Cell]) -> tuple[str, Tile] | None:
    """Return what meta classification did to the segments of `cells`, summed over them."""
    keys = (
        "segment_false_positives",
        "segment_false_positives_after_meta",
        "segment_false_negatives",
        "segment_false_negatives_after_meta",
    )
    rows = [[cell.value(key) for key in keys] for cell in cells]
    known = [[v for v in row if v is not None] for row in rows if None not in row]
    if not known:
        return None
    fp, fp_after, fn, fn_after = (int(sum(row[i] for row in known)) for i in range(4))
    if fp == 0:
        return None
    removed = cells_removed(cells)
    share = 100 * (fp - fp_after) / fp
    text = f"Meta classification removed {fp - fp_after} of {fp} false segments ({share:.0f} %)"
    if removed is not None:
        text += f" and {removed} true ones"
    text += f"; missed objects went from {fn} to {fn_after}."
    tone = "good" if share >= 50 else "same" if share > 0 else "bad"
    note = f"{share:.0f} % removed by meta classification"
    return text, Tile("false segments", str(fp), str(fp_after), note, tone)


def _together(pairs: Sequence[tuple[Cell, Cell]]) -> str:
    """Compare the baseline's raw segments with what both halves of the method leave."""
    fp, fn = "segment_false_positives", "segment_false_negatives"
    rows = [
        (b.value(fp), a.value(f"{fp}_after_meta"), b.value(fn), a.value(f"{fn}_after_meta"))
        for b, a in pairs
    ]
    known = [[v for v in row if v is not None] for row in rows if None not in row]
    if not known:
        return ""
    first, last, missed, still = (int(sum(row[i] for row in known)) for i in range(4))
    return (
        f"Both together, against the plain baseline: false segments {first} → {last}, "
        f"missed objects {missed} → {still}."
    )


def _false_alarms(pairs: Sequence[tuple[Cell, Cell]]) -> str:
    """Say what happened on sets without any OoD object, where every segment is false."""
    key = "segment_false_positives_after_meta"
    values = _values(key, pairs)
    if not values:
        return ""
    names = ", ".join(dict.fromkeys(after.dataset for _, after in pairs))
    first, last = (int(sum(v[i] for v in values)) for i in range(2))
    return f"Where there is nothing to find ({names}), false segments went from {first} to {last}."


def cells_removed(cells: Sequence[Cell]) -> int | None:
    """Return how many true segments meta classification removed in all, None if unknown.

    Examples
    --------
    >>> cells_removed([Cell("n", "v", "d", {"true_segments_removed": 3})])
    3
    """
    values = [v for cell in cells if (v := cell.value("true_segments_removed")) is not None]
    return int(sum(values)) if values else None


def _worse(pairs: Sequence[tuple[Cell, Cell]]) -> list[str]:
    """Name every headline fraction that OoD training made worse, one text a pair."""
    found = []
    for before, after in pairs:
        parts = []
        for key, name in _NAMES.items():
            column: Column = _COLUMN[key]
            b, a = before.value(key), after.value(key)
            if b is not None and a is not None and tone_of(column, b, a) == "bad":
                parts.append(f"{name} {column.text(b)} → {column.text(a)} %")
        if parts:
            found.append(f"{after.network} on {after.dataset}: {', '.join(parts)}")
    return found
