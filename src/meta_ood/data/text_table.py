"""Tables for the terminal, for text files and in Markdown."""

import io
from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table

# a line below the header and no other, in rich's drawing of a table (rich.box)
_LINES = "    \n    \n -- \n    \n    \n    \n    \n    \n"


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> str:
    """Return a table as plain text; a line break in a title makes a second header line.

    The first `left` columns are aligned to the left, the others, which hold numbers, to the right.

    Examples:
        >>> print(text_table(["name", "value"], [["a", "1.5"], ["bcd", "10.0"]]))
        name  value
        -----------
        a       1.5
        bcd    10.0
    """
    table = Table(box=box.Box(_LINES), show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for index, title in enumerate(header):
        table.add_column(title, justify="left" if index < left else "right", no_wrap=True, vertical="bottom")
    for row in rows:
        table.add_row(*row)
    buffer = io.StringIO()
    # no colours, and no reading of [brackets] and :words: in cells
    Console(file=buffer, width=200, color_system=None, markup=False, emoji=False).print(table)
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines() if line.strip())


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 99) -> str:
    """Return a Markdown table; columns after the first `left` are aligned to the right."""
    rule = ["---" if index < left else "---:" for index in range(len(header))]
    return "\n".join(f"| {' | '.join(row)} |" for row in [header, rule, *rows])
