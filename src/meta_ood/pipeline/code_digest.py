"""Digests of what stages run and are given, so that a changed comment re-runs nothing.

DVC runs a stage again when one of its dependencies changes. A dependency on the source files would
re-run trainings for a corrected comment. So the stage ``code`` writes one small text file per
stage, and the stages depend on these: one line per module that the stage imports, directly or not,
with a hash of its syntax tree without docstrings. Comments and formatting are not in the tree.

Weights files are optional, which a dependency cannot be: there is one more file per network and
variant, with the hashes of those that params.yaml names.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from meta_ood.data.files import file_hash

PACKAGE = Path(__file__).parents[1]
WEIGHTS = Path("data/weights")

EXCLUDED = ("meta_ood", "meta_ood.config", "meta_ood.data.context")
"""Not followed: the package's list of names; values that DVC knows as params; facts about the
machine, which must not change a result.
"""

_C_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)


def stage_digest(stage: str) -> str:
    """Return one line per file that `stage` runs: a hash and the path below ``src/meta_ood``.

    Examples:
        >>> "losses.py" in stage_digest("train"), "losses.py" in stage_digest("infer")
        (True, False)
    """
    files: set[Path] = set()
    queue = [f"meta_ood.pipeline.{stage}"]
    followed = set(queue)
    while queue:
        path = _module_file(queue.pop())
        files.add(path)
        files.update(_compiled_and_data(path.parent))
        for name in _imports(path):
            if name not in followed and not any(
                name == skipped or (skipped != "meta_ood" and name.startswith(f"{skipped}.")) for skipped in EXCLUDED
            ):
                followed.add(name)
                queue.append(name)
    ordered = sorted(path.relative_to(PACKAGE).as_posix() for path in files)
    return "".join(f"{_file_hash(PACKAGE / name)}  {name}\n" for name in ordered)


def weights_digests(weights: Mapping[Any, str]) -> dict[str, str]:
    """Return for each variant one line per file that a network is given: its hash and its path.

    Args:
        weights: ``network.NAME.weights`` of params.yaml.

    Raises:
        ValueError: If a file is not below data/weights, where DVC sees that it changes.
    """
    # pretrain reads the first two, train the last
    kinds = {"baseline": ("baseline", "backbone"), "ood_trained": ("ood_trained",)}
    for kind, name in weights.items():
        if Path(name).parts[:2] != WEIGHTS.parts or ".." in Path(name).parts:
            raise ValueError(
                f"{kind}: {name} is not below {WEIGHTS}, where DVC sees that a file changes: copy or link it there"
            )
    return {
        variant: "".join(
            f"{file_hash(Path(weights[kind])) if Path(weights[kind]).is_file() else 'missing'}"
            f"  {kind}  {weights[kind]}\n"
            for kind in read
            if kind in weights
        )
        for variant, read in kinds.items()
    }


def _module_file(name: str) -> Path:
    place = PACKAGE.joinpath(*name.split(".")[1:])
    return place / "__init__.py" if place.is_dir() else place.with_suffix(".py")


def _imports(path: Path) -> Iterator[str]:
    """Yield our modules that a file imports anywhere, and the packages around them."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] != "meta_ood":
                continue
            for end in range(1, len(parts) + 1):
                module = ".".join(parts[:end])
                if _module_file(module).is_file():
                    yield module


def _compiled_and_data(folder: Path) -> Iterator[Path]:
    """Yield what a package runs besides its Python modules: kernels, headers, tables, templates."""
    for path in folder.rglob("*"):
        if path.suffix in (".pyx", ".h", ".csv", ".j2", ".css", ".js"):
            yield path


def _file_hash(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        text = _without_docstrings(text)
    elif path.suffix == ".pyx":
        # Cython has no public syntax tree: whole-line comments and blank lines are left out
        lines = [line.rstrip() for line in text.splitlines()]
        text = "\n".join(line for line in lines if line and not line.lstrip().startswith("#"))
    elif path.suffix == ".h":
        text = "\n".join(line.strip() for line in _C_COMMENT.sub("", text).splitlines() if line)
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def _without_docstrings(text: str) -> str:
    """Return the dumped syntax tree of a module, texts that stand alone as a statement left out."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [  # type: ignore[attr-defined]
                child for child in body if not (isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant))
            ]
    return ast.dump(tree)
