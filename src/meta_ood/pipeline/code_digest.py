"""Digests of what stages run and are given, so that a changed comment re-runs nothing.

DVC runs a stage again when one of its dependencies changes. A dependency on the source files would re-run trainings for
a corrected comment. So the stage ``code`` writes one small text file per stage, and the stages depend on these: one
line per module that the stage imports, directly or not, with a hash of its syntax tree without docstrings.

Weights files are optional, which a dependency cannot be: there is one more file per network and variant, with the
hashes of those that params.yaml names. Modules of the user's own, ``package.module:name`` in params.yaml, have a line
in the files of the stages that run them; that of a network is in its own files.

A role of training may have several datasets, and a template of dvc.yaml cannot list them. So the stage ``roles`` writes
one file per role, on which trainings depend: it changes when one of the role's own datasets does, and with no other.
"""

import ast
import hashlib
import importlib.util
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from meta_ood.config import RoleSet
from meta_ood.data.files import file_hash

PACKAGE = Path(__file__).parents[1]
WEIGHTS = Path("data/weights")

# Not followed: the package's list of names; values that DVC knows as params; facts about the machine, which must not
# change a result.
_EXCLUDED = re.compile(r"meta_ood(\.config(\..+)?|\.data\.context)?")
# What a package runs besides its Python modules: kernels, headers, tables, templates.
_OTHER_CODE = (".pyx", ".h", ".csv", ".j2", ".css", ".js")
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
        files |= {path, *(other for other in path.parent.rglob("*") if other.suffix in _OTHER_CODE)}
        new = {name for name in _imports(path) if not _EXCLUDED.fullmatch(name)} - followed
        followed |= new
        queue += new
    names = sorted(path.relative_to(PACKAGE).as_posix() for path in files)
    return "".join(f"{_code_hash(PACKAGE / name)}  {name}\n" for name in names)


def weights_digests(weights: Mapping[Any, str]) -> dict[str, str]:
    """Return for each variant one line per file that it is made of: its hash and its path.

    `weights` are those of ``network.NAME.weights`` in params.yaml, and the files of a folder of transformers.

    Raises:
        ValueError: If a file is not below data/weights, where DVC sees that it changes.
    """
    lines = {}
    for kind, name in weights.items():
        lines[kind] = weights_line(kind, Path(name))
    # train reads ood_trained, pretrain all others; "none", as DVC warns of empty files
    trained = lines.pop("ood_trained", "")
    return {"baseline": "".join(lines.values()) or "none\n", "ood_trained": trained or "none\n"}


def weights_line(kind: str, path: Path) -> str:
    """Return a line with hash, kind and path of a weights file; ValueError if it is not below data/weights."""
    if path.parts[:2] != WEIGHTS.parts or ".." in path.parts:
        raise ValueError(
            f"{kind}: {path} is not below {WEIGHTS}, where DVC sees that a file changes: copy or link it there"
        )
    return f"{file_hash(path) if path.is_file() else 'missing'}  {kind}  {path}\n"


def own_modules(names: Iterable[str]) -> str:
    """Return one line per module of the names that are ``package.module:name``: a hash of its code and its name.

    Other modules that it imports are not followed.
    """
    modules = sorted({name.partition(":")[0] for name in names if ":" in name})
    return "".join(f"{_own_hash(module)}  {module}\n" for module in modules)


def _own_hash(module: str) -> str:
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:  # the package around it
        spec = None
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        return "missing"
    path = Path(spec.origin)
    return _code_hash(path) if path.suffix == ".py" else file_hash(path, "md5")


def role_digest(role: Sequence[RoleSet], prepared: Path) -> str:
    """Return one line per dataset of a role: a hash of what is prepared of it, its name, its weight and scale."""
    lines = []
    for own in role:
        folder, whole = prepared / own.dataset, hashlib.md5(usedforsecurity=False)
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder} is missing: run `prepare` for this dataset first")
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            whole.update(f"{path.relative_to(folder).as_posix()} {file_hash(path, 'md5')}\n".encode())
        lines.append(f"{whole.hexdigest()}  {own.dataset}  weight {own.weight}  scale {own.scale}\n")
    return "".join(lines)


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
            if name.split(".")[0] == "meta_ood":
                # a, a.b, a.b.c; the last may be a name in a module
                parents = itertools.accumulate(name.split("."), "{}.{}".format)
                yield from (module for module in parents if _module_file(module).is_file())


def _code_hash(path: Path) -> str:
    """Return the md5 of a file without what changes no result: comments, docstrings, blank lines."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        tree = ast.parse(text)
        # a constant that stands alone as a statement is a docstring
        for node in ast.walk(tree):
            if isinstance(body := getattr(node, "body", None), list):
                kept = [c for c in body if not (isinstance(c, ast.Expr) and isinstance(c.value, ast.Constant))]
                node.body = kept  # type: ignore[attr-defined]
        text = ast.dump(tree)
    elif path.suffix == ".pyx":
        # Cython has no public syntax tree: whole-line comments and blank lines are left out
        lines = [line.rstrip() for line in text.splitlines()]
        text = "\n".join(line for line in lines if line and not line.lstrip().startswith("#"))
    elif path.suffix == ".h":
        text = "\n".join(line.strip() for line in _C_COMMENT.sub("", text).splitlines() if line)
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
