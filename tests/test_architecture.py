"""The import rules of docs/architecture.md, read from the source with ``ast``."""

import ast
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src" / "meta_ood"

VALUES = {"labels", "frames", "predictions", "config", "context", "strict"}
RAW = {"datasets"}
TORCH = {
    "models",
    "losses",
    "transforms",
    "loading",
    "resume",
    "training",
    "inference",
}
NUMPY = {
    "submissions",
    "pixels",
    "scores",
    "segments",
    "meta_classification",
    "metrics",
    "figures",
    "storage",
}
TOOLS = {"detection", "serving", "export"}  # beside the stages: a trained detector at work
STAGE_PARTS = {"evaluation", "reporting"}  # the pure halves of the stages of the same work

# part -> parts of ours that it may import besides itself
ALLOWED = {
    **dict.fromkeys(VALUES, VALUES),
    "layout": VALUES,
    "datasets": VALUES,
    **dict.fromkeys(TORCH, VALUES | TORCH),
    **dict.fromkeys(NUMPY, VALUES | NUMPY),
    **dict.fromkeys(STAGE_PARTS, VALUES | NUMPY),
    "stages": VALUES | RAW | TORCH | NUMPY | STAGE_PARTS,
    "detection": VALUES | TORCH | NUMPY,
    "serving": VALUES | TORCH | NUMPY,
    "export": VALUES | TORCH | NUMPY,
    "tracking": VALUES | {"layout", "serving"},
    "cli": VALUES | RAW | TORCH | NUMPY | TOOLS | STAGE_PARTS | {"layout", "tracking", "stages"},
    "__main__": {"cli"},
    "__init__": set(),
}

# outside tool -> the only parts that may import it
DOORS = {
    "mlflow": {"tracking"},
    "click": {"cli"},
    "yaml": {"config"},
    "h5py": {"storage"},
    "pycocotools": {"datasets.coco"},
    "sklearn": {"meta_classification"},
    "matplotlib": {"figures"},
    "safetensors": {"models.checkpoint"},
    "onnx": {"export"},
    "onnxruntime": {"export"},
    "torch": TORCH
    | {"detection", "serving", "export", "stages.pretrain", "stages.train", "stages.infer"},
    "torchvision": TORCH,
    "lightning": {"training", "inference"},
}

SIDEWAYS = ("stages", "metrics")  # packages whose modules do not import each other


def modules() -> list[Path]:
    return sorted(SRC.rglob("*.py"))


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(SRC).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path) -> list[str]:
    """Return the dotted names that a module imports anywhere, type checking blocks included."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


def is_in(module: str, places: set[str]) -> bool:
    return any(module == place or module.startswith(f"{place}.") for place in places)


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_imports_point_down(path: Path) -> None:
    module = name_of(path)
    part = module.split(".")[0]
    assert part in ALLOWED, f"{part} has no place in the house: docs/architecture.md"
    for target in imports(path):
        if not target.startswith("meta_ood."):
            continue
        other = target.split(".")[1]
        if other == "__version__" or other == part:
            continue
        assert other in ALLOWED[part], f"{module} must not import {target}"


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_each_tool_has_one_door(path: Path) -> None:
    module = name_of(path)
    for target in imports(path):
        tool = target.split(".")[0]
        if tool in DOORS:
            assert is_in(module, DOORS[tool]), f"{module} must not import {tool}"


@pytest.mark.parametrize("package", SIDEWAYS)
def test_no_import_sideways(package: str) -> None:
    for path in sorted((SRC / package).glob("*.py")):
        if path.stem == "__init__":
            continue
        for target in imports(path):
            inside = target.removeprefix(f"meta_ood.{package}.")
            assert inside == target or inside.split(".")[0] == path.stem, (
                f"{package}.{path.stem} must not import {target}"
            )


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_no_work_at_import(path: Path) -> None:
    """Module level holds definitions, constants and nothing that reads files or calls a main."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    allowed = (
        ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign
    )
    for node in tree.body:
        is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        is_guard = isinstance(node, ast.If) and ast.unparse(node.test) in (
            "TYPE_CHECKING",
            "__name__ == '__main__'",
        )
        assert isinstance(node, allowed) or is_docstring or is_guard, (
            f"{path}:{node.lineno}: statement with an effect at import"
        )


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_modules_are_short(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    limit = 80 if path.parent.name == "stages" else 400
    assert lines <= limit, f"{path.name} has {lines} lines, at most {limit}"


def test_every_module_has_a_name_that_says_something() -> None:
    vague = {"utils", "util", "helpers", "helper", "common", "base", "misc"}
    assert not {name_of(p) for p in modules() if p.stem in vague}
