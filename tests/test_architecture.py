"""The order of the rooms (docs/architecture.md), read from the source with ``ast``."""

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import meta_ood

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


# --- names that others import (docs/architecture.md) ------------------------------------------

OLD_PLACES = {
    "meta_ood.labels": ("IN", "OOD", "IGNORE", "NEUTRAL"),
    "meta_ood.predictions": ("Prediction",),
    "meta_ood.segments": ("SegmentTable", "measure_segments"),
    "meta_ood.metrics.pixel": ("ScoreHistogram", "pixel_metrics"),
    "meta_ood.metrics.segment": ("segment_errors",),
    "meta_ood.meta_classification": ("MetaClassifier", "fit", "out_of_fold"),
    "meta_ood.losses": ("LOSSES",),
    "meta_ood.models": ("MODELS", "build"),
    "meta_ood.datasets": ("READERS", "read"),
    "meta_ood.scores": ("SCORES",),
}
"""Import paths of version 0.1 that keep working, and their names."""


def test_public_names_are_the_same_in_old_and_new_places() -> None:
    names = {name for names in OLD_PLACES.values() for name in names}
    assert {*meta_ood.__all__} == {*names, "Detector"}
    for place, names_there in OLD_PLACES.items():
        module = importlib.import_module(place)
        for name in names_there:
            assert getattr(module, name) is getattr(meta_ood, name)
    assert meta_ood.Detector.__module__ == "meta_ood.detector.detector"
    assert {*meta_ood.__all__} <= {*dir(meta_ood)}


def test_importing_the_package_imports_nothing_heavy() -> None:
    program = (
        "import sys, meta_ood; from meta_ood import measure_segments, Prediction; "
        "import meta_ood.pipeline.detector; "
        "print([m for m in ('torch', 'mlflow', 'dvc', 'pycocotools') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (found.stdout, found.stderr) == ("[]\n", "")
