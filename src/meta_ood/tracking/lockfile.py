"""dvc.lock as a whole: which stage made a path, from what, with which parameters."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from meta_ood import config
from meta_ood.pipeline.paths import STAGES


@dataclass(frozen=True)
class Locked:
    """One instance of a stage, as DVC ran it last.

    Attributes
    ----------
    name
        DVC's name, ``infer@network-variant-dataset``.
    stage, command, keys
        Ours, read from the command.
    deps, outs
        Path -> md5; of the deps only the data, not the code.
    params
        Flat dotted keys of params.yaml and the values at that time.
    """

    name: str
    stage: str
    command: str
    keys: dict[str, str]
    deps: dict[str, str]
    outs: dict[str, str]
    params: dict[str, Any]


def read(path: Path = Path("dvc.lock")) -> dict[str, Locked]:
    """Return the instances of our stages in a dvc.lock by their names; none without the file."""
    found = {}
    for name, entry in (config.read_yaml(path).get("stages") or {}).items():
        words = shlex.split(entry["cmd"])
        if words[:3] != ["python", "-m", "meta_ood"] or words[3] not in STAGES:
            continue
        given = dict(zip(words[4::2], words[5::2], strict=False))
        found[name] = Locked(
            name=name,
            stage=words[3],
            command=entry["cmd"],
            keys={key: given[f"--{key}"] for key in STAGES[words[3]]},
            deps={
                dep["path"]: dep.get("md5", "")
                for dep in entry.get("deps", [])
                if not dep["path"].startswith("src/")
            },
            outs={out["path"]: out.get("md5", "") for out in entry.get("outs", [])},
            params=flat(entry.get("params", {}).get("params.yaml", {})),
        )
    return found


def owner(locked: Mapping[str, Locked], path: str) -> Locked | None:
    """Return the instance that made `path`, or a folder above it."""
    for instance in locked.values():
        if any(path == out or path.startswith(f"{out}/") for out in instance.outs):
            return instance
    return None


def is_current(instance: Locked, locked: Mapping[str, Locked], params: Mapping[str, Any]) -> bool:
    """Say whether what `instance` ran on is what dvc.lock and the params file hold now."""
    outs = {path: md5 for other in locked.values() for path, md5 in other.outs.items()}
    return all(outs.get(path, md5) == md5 for path, md5 in instance.deps.items()) and all(
        key in params and params[key] == value for key, value in instance.params.items()
    )


def flat(values: Any, key: str = "") -> dict[str, Any]:
    """Return nested mappings as dotted keys; empty ones and lists are values.

    Examples
    --------
    >>> flat({"a": {"b": 1, "c": {}}, "d": [2], "e.f": 3})
    {'a.b': 1, 'a.c': {}, 'd': [2], 'e.f': 3}
    """
    if not isinstance(values, Mapping) or not values:
        return {key: values} if key else {}
    return {
        k: v
        for name, value in values.items()
        for k, v in flat(value, f"{key}.{name}" if key else str(name)).items()
    }
