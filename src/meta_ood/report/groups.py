"""The page's break-downs: which objects are found, and the IoU of each known class."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from meta_ood.data.labels import CITYSCAPES
from meta_ood.report.markup import head_cells, tone_of, wide
from meta_ood.report.results import Cell, Results
from meta_ood.report.tables import COLUMNS

_MIOU = next(column for column in COLUMNS if column.key == "miou")


def detection_section(results: Results) -> str:
    """Return how many objects of each size are found by segments that are kept."""
    body = []
    names: list[str] = []
    pairs = [
        pair
        for pair in results.pairs
        if any(g.get("components") for g in pair[1].section("detection", "size").values())
    ]
    for _, after in pairs:
        for name, group in after.section("detection", "size").items():
            if group.get("components") and name not in names:
                names.append(name)
    for before, after in pairs:
        cells = "".join(f"<td>{_found(before, after, name)}</td>" for name in names)
        body.append(
            f'<tr class="first"><th scope="row">{escape(after.dataset)}'
            f'<span class="unit">{escape(after.network)}</span></th>{cells}</tr>'
        )
    if not names:
        return ""
    titles = [("evaluation set", "network"), *((_size(name), "pixels") for name in names)]
    table = (
        f"<table><thead><tr>{head_cells(titles, 1)}</tr></thead>"
        f"<tbody>{''.join(body)}</tbody></table>"
    )
    return (
        '<h2 id="found">Which objects are found</h2><p class="soft">Objects with a kept segment, '
        "of all objects of that size, after meta classification. Baseline → OoD-trained.</p>"
        f"{wide(table, 'Which objects are found')}"
    )


def labels_section(results: Results) -> str:
    """Return how many objects of each label are found, where the dataset tells them apart."""
    pairs = [p for p in results.pairs if p[1].section("detection", "label_id")]
    names = sorted({n for _, after in pairs for n in after.section("detection", "label_id")})
    if not names:
        return ""
    body = [
        f'<tr><th scope="row">{escape(name)}</th>'
        + "".join(f"<td>{_found(*pair, name, 'label_id')}</td>" for pair in pairs)
        + "</tr>"
        for name in names
    ]
    titles = [("object", "found"), *((after.network, after.dataset) for _, after in pairs)]
    table = (
        f"<table><thead><tr>{head_cells(titles, 1)}</tr></thead>"
        f"<tbody>{''.join(body)}</tbody></table>"
    )
    return (
        "<details><summary>Objects found by their label, baseline → OoD-trained</summary>"
        f"{wide(table, 'Objects found by their label')}</details>"
    )


def _size(name: str) -> str:
    low, _, high = name.partition("-")
    try:
        first, last = float(low), float(high)
    except ValueError:
        return name
    if last >= 1e8:
        return f"from {first:,.0f}".replace(",", "\u202f")
    return f"{first:,.0f} to {last - 1:,.0f}".replace(",", "\u202f")


def _found(before: Cell, after: Cell, name: str, by: str = "size") -> str:
    groups: list[Mapping[str, Any]] = [c.section("detection", by, name) for c in (before, after)]
    total = groups[1].get("components")
    if not total:
        return "–"
    first, last = (group.get("found_after_meta", "–") for group in groups)
    return (
        f'<span class="soft">{first}&nbsp;→</span>&nbsp;{last} <span class="soft">of {total}</span>'
    )


def classes_section(results: Results) -> str:
    """Return the IoU of every known class on the sets where they are labelled."""
    found = [
        (before, after)
        for before, after in results.pairs
        if before.metrics.get("class_iou") and after.metrics.get("class_iou")
    ]
    if not found:
        return ""
    count = max(len(after.metrics["class_iou"]) for _, after in found)
    names = CITYSCAPES.names if count == len(CITYSCAPES.names) else [str(i) for i in range(count)]
    body = []
    for index, name in enumerate(names):
        cells = "".join(f"<td>{_iou(before, after, index)}</td>" for before, after in found)
        body.append(f'<tr><th scope="row">{escape(name)}</th>{cells}</tr>')
    titles = [("class", "IoU, %"), *((after.network, after.dataset) for _, after in found)]
    table = (
        f"<table><thead><tr>{head_cells(titles, 1)}</tr></thead>"
        f"<tbody>{''.join(body)}</tbody></table>"
    )
    return (
        "<details><summary>IoU of each known class, baseline → OoD-trained</summary>"
        f"{wide(table, 'IoU of each known class')}</details>"
    )


def _iou(before: Cell, after: Cell, index: int) -> str:
    values = [
        (cell.metrics["class_iou"][index] if index < len(cell.metrics["class_iou"]) else None)
        for cell in (before, after)
    ]
    first, last = values
    if first is None or last is None:
        return "–"
    tone = tone_of(_MIOU, first, last)
    return (
        f'<span class="soft">{_MIOU.text(first)}&nbsp;→</span>&nbsp;'
        f'<span class="{tone}">{_MIOU.text(last)}</span>'
    )
