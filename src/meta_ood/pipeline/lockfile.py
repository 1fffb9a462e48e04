"""The one reader of dvc.lock: which stage made a path, from what, with which parameters; and its repair."""

import hashlib
import itertools
import json
import re
import shlex
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from meta_ood.config import flat, read_yaml
from meta_ood.data.files import file_hash, read_json, write_bytes
from meta_ood.pipeline.paths import STAGES

LOCK, RWLOCK = Path("dvc.lock"), Path(".dvc/tmp/rwlock")
_MD5 = re.compile(r"[0-9a-f]{32}(\.dir)?")


@dataclass(frozen=True)
class LockedStage:
    """One instance of a stage, as DVC ran it last."""

    name: str  # DVC's: infer@network-variant-dataset
    stage: str  # "" if it is not ours
    command: str
    keys: dict[str, str]
    deps: dict[str, str]  # path -> md5, without code
    outs: dict[str, str]  # path -> md5
    params: dict[str, Any]  # dotted key of params.yaml -> value at that time


def read(path: Path = LOCK) -> dict[str, LockedStage]:
    """Return all instances in a dvc.lock by their names; none without the file.

    Raises:
        ValueError: If the file is empty or cut off, as a killed `dvc` leaves it.
    """
    if not path.is_file():
        return {}
    try:
        if not path.read_bytes().endswith(b"\n"):
            raise ValueError("no end of line")
        return {name: _locked_stage(name, entry) for name, entry in read_yaml(path)["stages"].items()}
    except (KeyError, TypeError, AttributeError, ValueError):
        raise ValueError(
            f"{path} is empty or cut off: dvc was killed while it wrote the file. Run meta-ood "
            "repair, or git checkout it, then dvc repro: what is in DVC's cache is not computed again"
        ) from None


def _locked_stage(name: str, entry: Mapping[str, Any]) -> LockedStage:
    words = shlex.split(entry["cmd"])
    ours = len(words) > 3 and words[:3] == ["python", "-m", "meta_ood"] and words[3] in STAGES
    given = dict(itertools.pairwise(words))  # an option and the word after it
    deps = {dep["path"]: dep.get("md5", "") for dep in entry.get("deps", [])}
    outs = {out["path"]: out.get("md5", "") for out in entry.get("outs", [])}
    # outputs come last: a cut file lacks them, or has less of a hash
    if ours and not (outs and all(_MD5.fullmatch(md5) for md5 in outs.values())):
        raise ValueError(name)
    return LockedStage(
        name=name,
        stage=words[3] if ours else "",
        command=entry["cmd"],
        keys={key: given[f"--{key}"] for key in STAGES[words[3]]} if ours else {},
        deps={path: md5 for path, md5 in deps.items() if not path.startswith("src/")},
        outs=outs,
        params=flat(entry.get("params", {}).get("params.yaml", {})),
    )


def owner(locked: Mapping[str, LockedStage], path: str) -> LockedStage | None:
    """Return the instance that made `path`, or a folder above it."""
    above = {path, *(parent.as_posix() for parent in Path(path).parents)}
    return next((instance for instance in locked.values() if above & instance.outs.keys()), None)


def outputs(locked: Mapping[str, LockedStage]) -> dict[str, str]:
    """Return path -> md5 of the outputs of all stages."""
    return {path: md5 for instance in locked.values() for path, md5 in instance.outs.items()}


def is_current(instance: LockedStage, locked: Mapping[str, LockedStage], params: Mapping[str, Any]) -> bool:
    """Return whether `instance` ran on the inputs and parameters that are here now."""
    outs = outputs(locked)
    return all(outs.get(path, md5) == md5 for path, md5 in instance.deps.items()) and all(
        key in params and params[key] == value for key, value in instance.params.items()
    )


def input_hashes(paths: Mapping[str, Path], locked: Mapping[str, LockedStage] | None = None) -> dict[str, str]:
    """Return name -> hash of a stage's inputs, ``unversioned`` where DVC knows none.

    A file that DVC does not know yet, and a folder inside an output or above output files, are hashed here, which gives
    the same md5; a folder above outputs that are folders gets a hash of theirs. `locked` is by default dvc.lock of the
    working directory, which a queued experiment has too.
    """
    locked = read() if locked is None else locked
    known = outputs(locked)
    hashes = {}
    for name, path in paths.items():
        beside = path.with_name(f"{path.name}.dvc")
        below = {p: md5 for p, md5 in sorted(known.items()) if path in Path(p).parents}
        if path.as_posix() in known:
            hashes[name] = known[path.as_posix()]
        elif below and any(md5.endswith(".dir") for md5 in below.values()):
            hashes[name] = _md5("\n".join(f"{p} {md5}" for p, md5 in below.items()))
        elif below or (owner(locked, path.as_posix()) and path.is_dir()):
            inside = below or {p.as_posix(): file_hash(p, "md5") for p in sorted(path.rglob("*")) if p.is_file()}
            # DVC's hash of a folder
            entries = [{"md5": md5, "relpath": Path(p).relative_to(path).as_posix()} for p, md5 in inside.items()]
            hashes[name] = f"{_md5(json.dumps(entries))}.dir"
        elif beside.is_file():
            hashes[name] = read_yaml(beside)["outs"][0].get("md5", "unversioned")
        else:
            hashes[name] = file_hash(path, "md5") if path.is_file() else "unversioned"
    return hashes


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def repair() -> list[str]:
    """Repair what a killed ``dvc``, a full disk or a power cut left empty or cut off; return a line per repaired file.

    The files are those of the repository in the current folder; no other ``dvc`` may run.
    """
    lines = []
    try:
        read()
    except ValueError:
        LOCK.replace(f"{LOCK}.damaged")
        committed = subprocess.run(["git", "show", f"HEAD:./{LOCK}"], capture_output=True, check=False)
        kept = "dvc repro writes a new one"
        if committed.returncode == 0:
            write_bytes(LOCK, committed.stdout)
            kept = "the committed one is in its place"
        lines.append(f"{LOCK} was cut off and is {LOCK}.damaged now; {kept}")
    # it only says which dvc processes run now; DVC cannot read it when it is empty
    if RWLOCK.is_file():
        try:
            is_whole = isinstance(read_json(RWLOCK), dict)
        except ValueError:
            is_whole = False
        if not is_whole:
            RWLOCK.unlink()
            lines.append(f"{RWLOCK} was cut off and is removed")
    return lines
