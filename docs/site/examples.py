"""Run the examples and make a page of each: its text, its code, what it prints, its last picture of a cell."""

from __future__ import annotations

import ast
import contextlib
import io
import tempfile
from pathlib import Path
from typing import Any

import jupytext


def pages(folder: Path) -> dict[str, str | bytes]:
    """Return name -> content of the pages of all scripts in `folder`, and of their pictures."""
    found: dict[str, str | bytes] = {}
    with tempfile.TemporaryDirectory() as work:
        # in the order of their numbers: one may go on where another ended
        for script in sorted(folder.glob("*.py")):
            with contextlib.chdir(work):
                found |= _run(script)
    return found


def _run(script: Path) -> dict[str, str | bytes]:
    pictures: dict[str, bytes] = {}
    parts: list[str] = []
    names: dict[str, Any] = {"__name__": "__main__"}
    for cell in jupytext.read(script, fmt="py:percent").cells:
        if cell.cell_type != "code":
            parts.append(cell.source)
            continue
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            last = _execute(cell.source, names, script)
        parts.append(f"```python\n{cell.source}\n```")
        if text := printed.getvalue().strip("\n"):
            parts.append(f"```text\n{text}\n```")
        if picture := getattr(last, "_repr_png_", None):
            name = f"{script.stem}-{len(pictures) + 1}.png"
            pictures[name] = picture()
            parts.append(f"![{script.stem.replace('_', ' ')}]({name})")
    text = "\n\n".join([*parts, f"`examples/{script.name}` is this page as a script; Jupyter opens it with jupytext."])
    return {f"{script.stem}.md": text, **pictures}


def _execute(source: str, names: dict[str, Any], script: Path) -> Any:
    """Run a cell and return the value of its last line, as Jupyter does."""
    body = ast.parse(source, script.name).body
    last = body.pop() if body and isinstance(body[-1], ast.Expr) else None
    exec(compile(ast.Module(body, []), script.name, "exec"), names)
    return eval(compile(ast.Expression(last.value), script.name, "eval"), names) if last else None
