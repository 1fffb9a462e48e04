"""The order of the rooms (docs/architecture.md), read from the source with ``ast``."""

import ast
from collections.abc import Iterator
from pathlib import Path

SRC = Path(__file__).parents[1] / "src" / "meta_ood"

ROOMS = (
    "cli",
    "tracking",
    "pipeline",
    "detector",
    "report",
    "evaluation",
    "meta_classification",
    "training",
    "inference",
    "metrics",
    "demo",
    "segments",
    "scores",
    "models",
    "datasets",
    "config",
    "data",
)
"""From top to bottom: a room may import rooms below it, never one above."""

OLD_PATHS = ("labels", "predictions", "losses")
"""Import paths of version 0.1 that only re-export."""

DOORS = {"mlflow": ("tracking",), "click": ("cli",)}
"""Outside tools that belong to one room."""


def imports() -> Iterator[tuple[str, str, str]]:
    """Yield (path, room, imported dotted name) for every import of every module."""
    for path in sorted(SRC.rglob("*.py")):
        name = path.relative_to(SRC).with_suffix("").as_posix()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{name}: relative import"
                targets = [f"{node.module}.{alias.name}" for alias in node.names]
            else:
                continue
            for target in targets:
                yield name, name.split("/")[0], target


def test_the_rooms_are_these() -> None:
    assert {path.name for path in SRC.iterdir() if (path / "__init__.py").is_file()} == set(ROOMS)


def test_imports_point_down() -> None:
    upward = []
    for path, room, target in imports():
        other = target.removeprefix("meta_ood.").split(".")[0]
        if not target.startswith("meta_ood.") or room not in ROOMS or other not in ROOMS:
            continue
        if ROOMS.index(other) < ROOMS.index(room):
            upward.append(f"{path} imports {target}")
    assert upward == []


def test_nothing_imports_the_old_paths() -> None:
    old = [
        f"{path} imports {target}"
        for path, _, target in imports()
        if target.removeprefix("meta_ood.").split(".")[0] in OLD_PATHS
    ]
    assert old == []


def test_each_tool_has_one_door() -> None:
    wrong = [
        f"{path} imports {target}"
        for path, room, target in imports()
        if room not in DOORS.get(target.split(".")[0], (room,))
    ]
    assert wrong == []
