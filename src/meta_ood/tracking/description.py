"""Describe a run before it begins: name, tags, parameters, inputs. Imports no mlflow."""

import hashlib
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from meta_ood.pipeline.lockfile import LockedStage, input_hashes


@dataclass(frozen=True)
class Input:
    """An input of a stage: its keyword, path and DVC hash."""

    name: str
    path: str
    digest: str


@dataclass(frozen=True)
class RunDescription:
    """Name, tags, parameters and inputs of a run, known before it begins."""

    stage: str
    keys: Mapping[str, str]  # network, variant and dataset, as far as the stage has them
    name: str
    experiment: str
    tags: Mapping[str, str]
    params: Mapping[str, str]
    inputs: Sequence[Input]
    run_id: str = ""  # a run that exists already and is to be written
    parent: str = ""  # the run of ``mlflow run .`` to which a new one belongs


def describe(
    stage: str,
    keys: Mapping[str, str],
    params: Mapping[str, Any],
    inputs: Mapping[str, Path],
    *,
    setting: Mapping[str, Any],
    experiment: str,
    more_tags: Mapping[str, str],
    locked: Mapping[str, LockedStage] | None = None,
    run_id: str = "",
    parent: str = "",
) -> RunDescription:
    """Return the description of a run, see :func:`meta_ood.tracking.run`; `locked` is dvc.lock if it has been read."""
    hashes = input_hashes(inputs, locked)
    # evaluations carry what they evaluate, so that AUPRC against ood_weight is a chart
    carried = {**setting, **params} if stage == "evaluate" else params
    command = " ".join(["python -m meta_ood", *(shlex.quote(word) for word in sys.argv[1:])])
    return RunDescription(
        stage=stage,
        keys=keys,
        name=run_name(stage, keys, carried),
        experiment=os.environ.get("MLFLOW_EXPERIMENT_NAME") or experiment,
        tags={"stage": stage, **keys, "command": command, **setting_tags(stage, keys, setting), **more_tags},
        params=texts(carried),
        inputs=[Input(name, inputs[name].as_posix(), hashes[name]) for name in inputs],
        run_id=run_id,
        parent=parent,
    )


def run_name(stage: str, keys: Mapping[str, str], params: Mapping[str, Any]) -> str:
    """Return a run's name, such as ``λ=0.9 lost_and_found mini seed=0 evaluate``; the UI shows about 18 characters.

    It begins with what differs between runs that are compared, and with the stage where nothing is.
    """
    weight = params.get("train.ood_weight")
    first = f"λ={weight}" if weight is not None else keys.get("variant", "")
    words = [first, keys.get("dataset", ""), keys.get("network", "")]
    # other stages have a seed too, but it hardly changes their results
    if stage in ("synthesize", "pretrain", "train", "evaluate") and "seed" in params:
        words.append(f"seed={params['seed']}")
    words = [*words, stage] if stage in ("train", "evaluate") else [stage, *words]
    return " ".join(word for word in words if word)


def git_tags() -> dict[str, str]:
    """Return ``git.sha`` and ``git.dirty`` of the working directory, or nothing without git."""
    command = ["git", "status", "--porcelain=v2", "--branch", "--untracked-files=no", "--", "."]
    # DVC writes these while a pipeline runs, so they do not make the tree dirty
    command += [f":(exclude,glob)**/{name}" for name in ("dvc.lock", ".gitignore")]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return {}
    lines = done.stdout.splitlines()
    sha = next((line.split()[-1] for line in lines if line.startswith("# branch.oid")), "")
    dirty = any(not line.startswith("#") for line in lines)
    return {"git.sha": sha, "git.dirty": str(dirty).lower()} if len(sha) == 40 else {}


def dvc_tags() -> dict[str, str]:
    """Return the stage and the experiment that DVC is running, as its variables name them."""
    names = {"dvc.stage": "DVC_STAGE", "dvc.exp.name": "DVC_EXP_NAME", "dvc.exp.baseline.rev": "DVC_EXP_BASELINE_REV"}
    return {tag: os.environ[name] for tag, name in names.items() if os.environ.get(name)}


def texts(params: Mapping[str, object]) -> dict[str, str]:
    """Return parameters as the store has them; lists and tuples are alike."""
    return {k: str(list(v) if isinstance(v, tuple) else v) for k, v in params.items()}


def setting_tags(stage: str, keys: Mapping[str, str], setting: Mapping[str, object]) -> dict[str, str]:
    """Return ``group``, the same for all seeds of one setting and cell, and ``setting`` as JSON.

    A setting is what the stage and those before it depend on, without the seed; an empty one gives no tag.
    """
    if not setting:
        return {}
    text = json.dumps(texts(setting), sort_keys=True)
    whole = json.dumps([stage, dict(keys), text], sort_keys=True)
    tags = {"group": hashlib.sha256(whole.encode()).hexdigest()[:12]}
    return tags | ({"setting": text} if len(text) <= 5000 else {})  # the longest tag that every store takes
