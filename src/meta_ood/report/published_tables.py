"""The comparison with published figures as a section of the page, as Markdown and as text."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from html import escape

from meta_ood.report.markup import head_cells, wide
from meta_ood.report.published import FIGURES, Comparison

_TITLES = ("evaluation set", "network", "variant", "score", "of", *FIGURES.values(), "protocol")
_LEAD = (
    "What others report of the same network, variant and dataset, in per cent, with where it is "
    "from: [A] the authors' own, [I] an independent run, [T] a table of another paper, [U] a "
    "user's log. A question mark: no figure could be sourced."
)


def _lines(comparison: Comparison) -> list[tuple[str, tuple[str, ...], str, str]]:
    """Return ``(of, figures, protocol, source)`` of ours and of what was published."""
    lines = [("here", comparison.here, comparison.protocol, "")]
    for row in comparison.rows:
        figures = (row.auroc, row.fpr95, row.auprc, row.miou)
        of = f"[{row.mark}]" if row.mark else "[?]"
        lines.append((of, figures, row.protocol or ("not stated" if row.score else ""), row.source))
    return lines


def _all_remarks(comparisons: Sequence[Comparison]) -> list[str]:
    found = dict.fromkeys(remark for one in comparisons for remark in one.remarks)
    return [f"Not comparable: {remark}." for remark in found]


def _note(source: str, sources: dict[str, int]) -> str:
    """Return the number of a source, a new one if it has none; empty without a source."""
    return f" {sources.setdefault(source, len(sources) + 1)}" if source else ""


def published_section(comparisons: Sequence[Comparison]) -> str:
    """Return the section of the page; empty if nothing was published."""
    if not comparisons:
        return ""
    body, sources, last = [], dict[str, int](), ("", "")
    for one in comparisons:
        key = (one.cell.dataset, one.cell.network)
        lines = _lines(one)
        for index, (of, figures, protocol, source) in enumerate(lines):
            is_first = index == 0 and key != last
            name = f"{escape(key[0])}<span class='unit'>{escape(key[1])}</span>" if is_first else ""
            score = f'<th scope="rowgroup" rowspan="{len(lines)}">{_of(one)}</th>'
            tone = "" if index == 0 else ' class="soft"'
            of = f"<b>{of}</b>" if index == 0 else f"{escape(of)}{_note(source, sources)}"
            cells = "".join(f"<td{tone}>{escape(text)}</td>" for text in figures)
            body.append(
                f"<tr{' class=first' if is_first else ''}><th>{name}</th>"
                f'{score if index == 0 else ""}<td class="text">{of}</td>{cells}'
                f'<td class="text soft">{escape(protocol)}</td></tr>'
            )
        last = key
    titles = [("evaluation set", "network"), ("score", "variant"), ("of", "")]
    titles += [(title, "%") for title in FIGURES.values()]
    head = head_cells(titles, 3) + head_cells([("protocol", "")], 1)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"
    remarks = "".join(f"<li>{escape(text)}</li>" for text in _all_remarks(comparisons))
    notes = "".join(f"<li>{escape(source)}</li>" for source in sources)
    return (
        f'<h2 id="published">Beside published figures</h2><p class="soft">{escape(_LEAD)}</p>'
        + (f'<div class="missing"><ul>{remarks}</ul></div>' if remarks else "")
        + wide(table, "Beside published figures")
        + f'<ol class="note">{notes}</ol>'
    )


def _of(one: Comparison) -> str:
    """Return what the figures are of: a score, or the known classes, and the variant."""
    what = one.score or "known classes"
    return f'{escape(what)}<span class="unit">{escape(one.cell.variant)}</span>'


def published_markdown(comparisons: Sequence[Comparison]) -> str:
    """Return the comparison as Markdown, every row complete; empty if nothing was published."""
    if not comparisons:
        return ""
    titles = [*_TITLES, "source"]
    rows = [f"| {' | '.join(titles)} |", f"|{' --- |' * len(titles)}"]
    for one in comparisons:
        key = [one.cell.dataset, one.cell.network, one.cell.variant, one.score or "–"]
        for of, figures, protocol, source in _lines(one):
            rows.append(f"| {' | '.join([*key, of, *figures, protocol, source])} |")
    return "\n".join(
        ["", "## Beside published figures", "", _LEAD, "", *_bullets(comparisons), *rows]
    )


def published_text(comparisons: Sequence[Comparison]) -> str:
    """Return the comparison for a terminal, its sources below; empty if nothing was published."""
    if not comparisons:
        return ""
    rows, sources, last = [list(_TITLES)], dict[str, int](), ("", "", "")
    for one in comparisons:
        key = (one.cell.dataset, one.cell.network, one.cell.variant)
        for index, (of, figures, protocol, source) in enumerate(_lines(one)):
            names = [*key, one.score or "–"] if index == 0 else [""] * 4
            if key[:2] == last[:2]:
                names[:2] = "", ""
            if key == last:
                names[2] = ""
            rows.append([*names, of + _note(source, sources), *figures, protocol])
            last = key
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = ["  ".join(t.ljust(w) for t, w in zip(r, widths, strict=True)).rstrip() for r in rows]
    notes = [f"{number} {source}" for source, number in sources.items()]
    rule = "-" * len(max(lines, key=len))
    top = [
        "",
        "Beside published figures [%]",
        textwrap.fill(_LEAD, 100),
        "",
        *_bullets(comparisons),
    ]
    return "\n".join([*top, lines[0], rule, *lines[1:], "", *notes, ""])


def _bullets(comparisons: Sequence[Comparison]) -> list[str]:
    remarks = [f"- {text}" for text in _all_remarks(comparisons)]
    return [*remarks, ""] if remarks else []
