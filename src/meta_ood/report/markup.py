"""Small pieces of HTML that the sections of the page share."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape

from meta_ood.report.style import CSS
from meta_ood.report.tables import Column

NOISE = 0.0005
"""Changes of fractions below this are called no change."""
WORDS = {"good": ("✓", "better"), "bad": ("✗", "worse"), "same": ("=", "unchanged")}


def document(title: str, head: str, body: str, foot: str = "") -> str:
    """Return a self-contained HTML document in the style of the report.

    Parameters
    ----------
    title
        Plain text.
    head, body, foot
        HTML: the page's header element, what stands in ``main``, and its footer element.
    """
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{CSS}</style>\n</head>\n<body>\n"
        f"{head}\n<main>\n{body}\n</main>\n{foot}\n</body>\n</html>\n"
    )


def tone_of(column: Column, before: float, after: float) -> str:
    """Return ``good``, ``bad`` or ``same``: how `after` compares with `before`.

    Examples
    --------
    >>> from meta_ood.report.tables import COLUMNS
    >>> tone_of(COLUMNS[1], 0.2, 0.1), tone_of(COLUMNS[1], 0.2, 0.2001)
    ('good', 'same')
    """
    gain = column.gain(before, after) or 0.0
    if abs(gain) < (NOISE if column.kind == "percent" else 0.5):
        return "same"
    return "good" if gain > 0 else "bad"


def signed(column: Column, change: float) -> str:
    """Return a change with its sign, a true minus, in points or segments.

    Examples
    --------
    >>> from meta_ood.report.tables import COLUMNS
    >>> signed(COLUMNS[0], -0.0123), signed(COLUMNS[0], 0.00001), signed(COLUMNS[3], 4)
    ('−1.2', '±0.0', '+4')
    """
    text = f"{100 * change:+.1f}" if column.kind == "percent" else f"{change:+.0f}"
    if not text.strip("+-0."):
        return "±" + text[1:]
    return text.replace("-", "−")


def chip(
    column: Column, before: float | None, after: float | None, *, is_unsure: bool = False
) -> str:
    """Return the coloured mark of a change, with its direction in words; empty if unknown.

    A change that could be chance is dashed.
    """
    if before is None or after is None:
        return ""
    tone = tone_of(column, before, after)
    sign, word = WORDS[tone]
    if is_unsure and tone != "same":
        tone, word = f"{tone} unsure", f"{word}, could be chance"
    return (
        f'<span class="chip {tone}"><span aria-hidden="true">{sign}</span> '
        f'{signed(column, after - before)}<span class="aside"> {word}</span></span>'
    )


def unbroken(text: str) -> str:
    r"""Escape `text` and keep figures, arrows and units on one line.

    Examples
    --------
    >>> unbroken("AUROC 1 → 2 %") == "AUROC\xa01\xa0→\xa02\xa0%"
    True
    """
    text = re.sub(r"\b(AUROC|AUPRC|FPR95|mIoU) (?=\d)", "\\1\xa0", escape(text))
    return text.replace(" → ", "\xa0→\xa0").replace(" %", "\xa0%")


def wide(table: str, name: str) -> str:
    """Put a table into a box that scrolls by itself, also by keyboard."""
    return f'<div class="wide" role="region" tabindex="0" aria-label="{escape(name)}">{table}</div>'


def head_cells(titles: Sequence[tuple[str, str]], texts: int) -> str:
    """Return header cells of ``(title, unit)``; the first `texts` of them are left-aligned."""
    return "".join(
        f'<th scope="col"{" class=text" if i < texts else ""}>{escape(title)}'
        f'<span class="unit">{escape(unit) or "&nbsp;"}</span></th>'
        for i, (title, unit) in enumerate(titles)
    )
