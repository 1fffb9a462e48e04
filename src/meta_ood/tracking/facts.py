"""What a run is tagged with: git, DVC, the hashes of its inputs. No mlflow, no YAML parser."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

_NOT_CODE = ("dvc.lock", "**/dvc.lock", ".gitignore", "**/.gitignore")
"""Written by DVC while a pipeline runs: they make no tree dirty."""
_MAX_TAG = 5000
"""So many characters every store takes as a tag."""


def root() -> Path:
    """Return the repository's root: DVC's if it started us, else the parent with params.yaml."""
    if "DVC_ROOT" in os.environ:
        return Path(os.environ["DVC_ROOT"])
    here = Path.cwd()
    return next((p for p in (here, *here.parents) if (p / "params.yaml").is_file()), here)


def store_uri(root: Path) -> str:
    """Return the store's address: MLFLOW_TRACKING_URI, else a database below `root`."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root.resolve()}/mlflow.db"


def git_tags() -> dict[str, str]:
    """Return ``git.sha`` and ``git.dirty`` of the working directory, or nothing without git.

    Examples
    --------
    >>> sorted(git_tags()) in ([], ["git.dirty", "git.sha"])
    True
    """
    command = ["git", "status", "--porcelain=v2", "--branch", "--untracked-files=no", "--", "."]
    command += [f":(exclude,glob){pattern}" for pattern in _NOT_CODE]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return {}
    lines = done.stdout.splitlines()
    sha = next((line.split()[-1] for line in lines if line.startswith("# branch.oid")), "")
    dirty = any(not line.startswith("#") for line in lines)
    return {"git.sha": sha, "git.dirty": str(dirty).lower()} if len(sha) == 40 else {}


def dvc_tags() -> dict[str, str]:
    """Return what DVC says of the stage and the experiment it runs."""
    names = {
        "dvc.stage": "DVC_STAGE",
        "dvc.exp.name": "DVC_EXP_NAME",
        "dvc.exp.baseline.rev": "DVC_EXP_BASELINE_REV",
    }
    return {tag: os.environ[name] for tag, name in names.items() if os.environ.get(name)}


def lock_hashes(text: str) -> dict[str, str]:
    r"""Return path -> md5 of the outs in a dvc.lock or .dvc file.

    The files are DVC's own and regular, so lines do; later entries win.

    Examples
    --------
    >>> lock_hashes("    outs:\n    - path: data/a\n      hash: md5\n      md5: 0f.dir\n")
    {'data/a': '0f.dir'}
    """
    found: dict[str, str] = {}
    item: dict[str, str] = {}
    outs = False
    for line in text.splitlines():
        entry = line.strip()
        if entry.endswith(":"):
            outs, item = entry == "outs:", {}
            continue
        if entry.startswith("- "):
            item = {}
            entry = entry[2:]
        key, _, value = entry.partition(": ")
        item[key] = value.strip("'\"")
        if outs and "path" in item and "md5" in item:
            found[item["path"]] = item["md5"]
    return found


def input_hashes(paths: Mapping[str, Path]) -> dict[str, str]:
    """Return name -> hash of a stage's inputs, ``unversioned`` where DVC knows none.

    Read in the working directory: a queued experiment has its own dvc.lock. A single file that
    DVC does not know yet is hashed here, which gives the same md5; a folder above several outputs
    gets a hash of theirs.
    """
    lock = Path("dvc.lock")
    known = lock_hashes(lock.read_text(encoding="utf-8")) if lock.is_file() else {}
    hashes = {}
    for name, path in paths.items():
        beside = path.with_name(f"{path.name}.dvc")
        below = [f"{p} {md5}" for p, md5 in sorted(known.items()) if path in Path(p).parents]
        if path.as_posix() in known:
            hashes[name] = known[path.as_posix()]
        elif below:
            hashes[name] = hashlib.md5("\n".join(below).encode(), usedforsecurity=False).hexdigest()
        elif beside.is_file():
            md5 = lock_hashes(beside.read_text(encoding="utf-8")).get(path.name)
            hashes[name] = md5 or "unversioned"
        else:
            hashes[name] = file_md5(path) if path.is_file() else "unversioned"
    return hashes


def texts(params: Mapping[str, object]) -> dict[str, str]:
    """Return parameters as the store has them; lists and tuples are alike.

    Examples
    --------
    >>> texts({"scales": (1.0, 2.0), "seed": 0})
    {'scales': '[1.0, 2.0]', 'seed': '0'}
    """
    return {k: str(list(v) if isinstance(v, tuple) else v) for k, v in params.items()}


def setting_tags(
    stage: str, keys: Mapping[str, str], setting: Mapping[str, object]
) -> dict[str, str]:
    """Return ``group``, the same for all seeds of one setting and cell, and ``setting`` as JSON.

    Parameters
    ----------
    setting
        What the stage and those before it depend on, without the seed; nothing gives no tag.

    Examples
    --------
    >>> tags = setting_tags("evaluate", {"network": "mini"}, {"train.ood_weight": 0.5})
    >>> tags["setting"], len(tags["group"])
    ('{"train.ood_weight": "0.5"}', 12)
    """
    if not setting:
        return {}
    text = json.dumps(texts(setting), sort_keys=True)
    whole = json.dumps([stage, dict(keys), text], sort_keys=True)
    tags = {"group": hashlib.sha256(whole.encode()).hexdigest()[:12]}
    return tags | ({"setting": text} if len(text) <= _MAX_TAG else {})


def file_md5(path: Path) -> str:
    """Return the md5 of a file's bytes, as DVC has it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
