"""The page's tables: headline results, and comparisons of scores, protocols and components."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from html import escape

from meta_ood.report.differences import could_be_chance
from meta_ood.report.markup import WORDS, chip, head_cells, tone_of, wide
from meta_ood.report.results import Cell, Results
from meta_ood.report.tables import COLUMNS, Column

_BY_KEY = {column.key: column for column in COLUMNS}
_PIXEL = tuple(_BY_KEY[key] for key in ("auroc", "fpr95", "auprc"))
_SEGMENT = (
    Column("true_positives", ("true", "segments"), "count", "higher"),
    Column("false_positives", ("FP", "segments"), "count", "lower"),
    Column("false_negatives", ("FN", "objects"), "count", "lower"),
    Column("f1", ("segment F1", "%"), "percent", "higher"),
)
_COMPONENT = (
    Column("siou", ("sIoU", "%"), "percent", "higher"),
    Column("ppv", ("PPV", "%"), "percent", "higher"),
    Column("f1", ("mean F1", "%"), "percent", "higher"),
)
_CLOSED = (
    _BY_KEY["miou"],
    Column("calibration_error", ("calibration error", "%"), "percent", "lower"),
)
_STAGES = {"before": "all segments", "after_meta": "after meta classification"}


def results_section(results: Results) -> str:
    """Return the headline table, one row per cell, each compared with its baseline."""
    columns = (*_PIXEL, None, None, _BY_KEY["miou"])
    titles = [("evaluation set", "network"), ("variant", "")]
    titles += [column.title for column in _PIXEL]
    titles += [("FP segments", "before → after meta"), ("FN segments", "before → after meta")]
    titles += [_BY_KEY["miou"].title]
    rows = []
    for group in _groups(results):
        for index, cell in enumerate(group):
            baseline = results.cells.get((cell.network, "baseline", cell.dataset))
            other = baseline if baseline is not cell else None
            values = [_value(column, cell, other) for column in columns if column is not None]
            values[3:3] = [_segments("positives", cell, other), _segments("negatives", cell, other)]
            name = _name(cell, len(group)) if index == 0 else ""
            rows.append(
                f"<tr{' class=first' if index == 0 else ''}>{name}"
                f'<th scope="row"><span class="variant {escape(cell.variant)}"></span>'
                f"{escape(cell.variant)}</th>{''.join(values)}</tr>"
            )
    table = (
        f"<table><thead><tr>{head_cells(titles, 2)}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table>"
    )
    return (
        '<h2 id="results">Results</h2><p class="soft">Marks compare a row with its baseline: '
        '<span class="chip good">✓ better</span> <span class="chip bad">✗ worse</span> '
        '<span class="chip same">= unchanged</span> <span class="chip good unsure">could be '
        "chance</span>. Small print: 95&nbsp;% intervals over scenes. A dash: not defined on this "
        "set.</p>" + wide(table, "Results")
    )


def _groups(results: Results) -> list[list[Cell]]:
    """Return the cells of each evaluation set and network, variants in order."""
    found: dict[tuple[str, str], list[Cell]] = {}
    for cell in results.ordered:
        found.setdefault((cell.dataset, cell.network), []).append(cell)
    return list(found.values())


def _name(cell: Cell, rows: int) -> str:
    return (
        f'<th scope="rowgroup" class="text" rowspan="{rows}">{escape(cell.dataset)}'
        f'<span class="unit">{escape(cell.network)}</span></th>'
    )


def _value(column: Column, cell: Cell, before: Cell | None) -> str:
    value = cell.value(column.key)
    text = _mark(column, cell, before) + column.text(value)
    return f"<td>{text}{_range(column, cell)}</td>"


def _segments(which: str, cell: Cell, before: Cell | None) -> str:
    first, last = _BY_KEY[f"segment_false_{which}"], _BY_KEY[f"segment_false_{which}_after_meta"]
    values = cell.value(first.key), cell.value(last.key)
    if values == (None, None):
        return "<td>–</td>"
    text = f"{first.text(values[0])}&nbsp;→&nbsp;<b>{last.text(values[1])}</b>"
    return f"<td>{_mark(last, cell, before)}{text}{_range(last, cell)}</td>"


def _mark(column: Column, cell: Cell, before: Cell | None) -> str:
    if before is None:
        return ""
    unsure = could_be_chance(before, cell, column.key)
    return chip(column, before.value(column.key), cell.value(column.key), is_unsure=unsure)


def _range(column: Column, cell: Cell) -> str:
    ends = cell.interval(column.key)
    if ends is None or ends[0] == ends[1]:
        return ""
    return f'<span class="range">{column.text(ends[0])} to {column.text(ends[1])}</span>'


def scores_section(results: Results) -> str:
    """Return the comparison of all scores under the exact protocol."""

    def rows(cell: Cell) -> dict[str, tuple[str, ...]]:
        return {name: ("scores", name) for name in cell.section("scores")}

    return _comparison(
        results,
        "scores",
        "All scores",
        "Every score comes from the same stored logits. Baseline → OoD-trained; the best score "
        "after OoD training is bold.",
        "score",
        rows,
        _PIXEL,
    )


def protocols_section(results: Results) -> str:
    """Return the headline score under every protocol; nothing if there is only one."""

    def rows(cell: Cell) -> dict[str, tuple[str, ...]]:
        protocols = cell.section("protocols")
        score = str(cell.metrics.get("score", ""))
        found: dict[str, tuple[str, ...]] = {n: ("protocols", n, score) for n in protocols}
        return found if len(found) > 1 else {}

    return _comparison(
        results,
        "protocols",
        "Protocols",
        "The same score maps under other rules of counting: figures of different protocols must "
        "not be compared. Baseline → OoD-trained.",
        "protocol",
        rows,
        _PIXEL,
        is_ranked=False,
    )


def segments_section(results: Results) -> str:
    """Return what is right and wrong among segments, before and after meta classification."""

    def rows(cell: Cell) -> dict[str, tuple[str, ...]]:
        if not cell.value("components"):
            return {}
        return {title: ("segment", name) for name, title in _STAGES.items()}

    return _comparison(
        results,
        "segments",
        "Segments as decisions",
        "Segments that hold an OoD pixel, those that hold none, and objects that no segment "
        "touches; segment F1 weighs them: 2 true / (2 true + FP + FN). Baseline → OoD-trained.",
        "segments",
        rows,
        _SEGMENT,
        is_ranked=False,
    )


def components_section(results: Results) -> str:
    """Return sIoU, PPV and F1 before and after meta classification."""

    def rows(cell: Cell) -> dict[str, tuple[str, ...]]:
        return {
            _STAGES[name]: ("component", name)
            for name in _STAGES
            if cell.section("component", name).get("components")
        }

    return _comparison(
        results,
        "components",
        "Objects as wholes",
        "How well segments cover objects (sIoU), how much of a segment is object (PPV), and how "
        "many objects are found at overlaps of 25 to 75 % (mean F1). Baseline → OoD-trained.",
        "segments",
        rows,
        _COMPONENT,
        is_ranked=False,
    )


def closed_section(results: Results) -> str:
    """Return mIoU and calibration on sets whose known classes are labelled."""

    def rows(cell: Cell) -> dict[str, tuple[str, ...]]:
        return {"all classes": ()} if cell.value("miou") is not None else {}

    return _comparison(
        results,
        "closed",
        "Known classes",
        "What OoD training cost: the segmentation into the known classes, and how far confidence "
        "is from accuracy (expected calibration error). Baseline → OoD-trained.",
        "classes",
        rows,
        _CLOSED,
        is_ranked=False,
    )


def _comparison(
    results: Results,
    anchor: str,
    title: str,
    text: str,
    what: str,
    rows: Callable[[Cell], Mapping[str, tuple[str, ...]]],
    columns: Sequence[Column],
    *,
    is_ranked: bool = True,
) -> str:
    """Return a table of ``baseline → ood_trained`` with one row per set, network and name.

    Parameters
    ----------
    rows
        Gives for a cell: name of the row -> keys in metrics.json below which `columns` are found.
    columns
        What is compared.
    is_ranked
        Set the best value of each set and network in bold.
    """
    body = []
    for group in _groups(results):
        names = {
            name: keys
            for cell in group
            for name, keys in rows(cell).items()
            if any(one.value(*keys, c.key) is not None for one in group for c in columns)
        }
        best = _best(group[-1], names.values(), columns) if is_ranked and len(names) > 1 else {}
        for index, (name, keys) in enumerate(names.items()):
            values = "".join(_change(c, group, keys, best.get(c.key)) for c in columns)
            first = _name(group[0], len(names)) if index == 0 else ""
            body.append(
                f"<tr{' class=first' if index == 0 else ''}>{first}"
                f'<th scope="row">{escape(name)}</th>{values}</tr>'
            )
    if not body:
        return ""
    titles = [("evaluation set", "network"), (what, ""), *(column.title for column in columns)]
    table = (
        f"<table><thead><tr>{head_cells(titles, 2)}</tr></thead>"
        f"<tbody>{''.join(body)}</tbody></table>"
    )
    return (
        f'<h2 id="{anchor}">{escape(title)}</h2><p class="soft">{escape(text)}</p>'
        f"{wide(table, title)}"
    )


def _best(
    cell: Cell, keys: Collection[tuple[str, ...]], columns: Sequence[Column]
) -> dict[str, float]:
    found = {}
    for column in columns:
        values = [cell.value(*k, column.key) for k in keys]
        known = [value for value in values if value is not None]
        if known:
            found[column.key] = max(known) if column.better == "higher" else min(known)
    return found


def _change(
    column: Column, group: Sequence[Cell], keys: tuple[str, ...], best: float | None
) -> str:
    values = [cell.value(*keys, column.key) for cell in group]
    if not any(value is not None for value in values):
        return "<td>–</td>"
    last = column.text(values[-1])
    if best is not None and values[-1] == best:
        last = f"<b>{last}</b>"
    if len(values) == 1:
        return f"<td>{last}</td>"
    tone, sign = "", ""
    if values[0] is not None and values[-1] is not None:
        tone = tone_of(column, values[0], values[-1])
        sign = '<span aria-hidden="true">✗ </span>' if tone == "bad" else ""
        sign += f'<span class="aside">{WORDS[tone][1]} </span>'
    return (
        f'<td><span class="soft">{column.text(values[0])}&nbsp;→</span>&nbsp;'
        f'<span class="{tone}">{sign}{last}</span></td>'
    )


def data_section(results: Results) -> str:
    """Return what was evaluated: frames, scenes and pixels of each set."""
    body = []
    for dataset in results.datasets:
        cell = next((c for c in results.ordered if c.dataset == dataset), None)
        if cell is None or cell.value("frames") is None:
            continue
        names = ("frames", "scenes", "pixels", "positives", "components", "ignored", "neutral")
        values = "".join(f"<td>{_count(cell.value(name))}</td>" for name in names)
        split = escape(str(cell.metrics.get("split", "–")))
        body.append(
            f'<tr class="first"><th scope="row">{escape(dataset)}</th>'
            f'<td class="text">{split}</td>{values}</tr>'
        )
    if not body:
        return ""
    titles = [
        ("evaluation set", ""),
        ("split", ""),
        ("frames", ""),
        ("scenes", ""),
        ("pixels", "evaluated"),
        ("OoD pixels", ""),
        ("OoD objects", ""),
        ("void pixels", "left out"),
        ("neutral pixels", "left out"),
    ]
    table = (
        f"<table><thead><tr>{head_cells(titles, 2)}</tr></thead>"
        f"<tbody>{''.join(body)}</tbody></table>"
    )
    return f'<h2 id="data">What was evaluated</h2>{wide(table, "What was evaluated")}'


def _count(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}".replace(",", "\u202f")
