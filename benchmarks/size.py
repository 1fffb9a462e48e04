"""Size and shape of the code: lines, comments, rooms and the imports between them.

    python benchmarks/size.py

Lines and comments are those of all Python files in src but the demo world. An arrow is a room that imports another.
"""

import ast
import io
import tokenize
from pathlib import Path

SRC = Path(__file__).parents[1] / "src" / "meta_ood"
LIMITS = {"rooms": 17, "arrows": 80}


def main() -> None:
    """Print the table."""
    lines = filled = comments = 0
    rooms = {path.name for path in SRC.iterdir() if (path / "__init__.py").is_file()}
    arrows: set[tuple[str, str]] = set()
    for path in sorted(SRC.rglob("*.py")):
        text, room = path.read_text(encoding="utf-8"), path.relative_to(SRC).parts[0]
        for node in ast.walk(ast.parse(text)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            targets = {name.split(".")[1] for name in names if name.startswith("meta_ood.")}
            if room in rooms:
                arrows |= {(room, target) for target in targets & rooms - {room}}
        if room == "demo":
            continue
        lines += len(text.splitlines())
        filled += sum(bool(line.strip()) for line in text.splitlines())
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.COMMENT and "noqa" not in token.string and "type:" not in token.string:
                comments += 1
    print(f"lines of Python without the demo world   {lines:6}")
    print(f"comments per 1,000 lines that hold text  {1000 * comments / filled:6.0f}   at least 25")
    print(f"rooms                                    {len(rooms):6}   at most {LIMITS['rooms']}")
    print(f"arrows between rooms                     {len(arrows):6}   at most {LIMITS['arrows']}")


if __name__ == "__main__":
    main()
