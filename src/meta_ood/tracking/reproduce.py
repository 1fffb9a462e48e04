"""From a run back to its outputs: the commands, or why there are none."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from meta_ood.data.files import file_hash
from meta_ood.tracking import query
from meta_ood.tracking.location import TrackingError
from meta_ood.tracking.store import open_store


@dataclass(frozen=True)
class Plan:
    """The commands that give a run's outputs again.

    Attributes
    ----------
    commands
        To be run in order; each with the folder it is run in.
    notes
        What to know before.
    weights_md5
        What the weights must hash to afterwards, "" if the run made none.
    worktree
        Where the outputs come to lie.
    """

    commands: tuple[tuple[Path, tuple[str, ...]], ...]
    notes: tuple[str, ...]
    weights_md5: str
    worktree: Path

    def lines(self) -> list[str]:
        """Return the plan as shell commands, notes as comments."""
        lines = [f"# {note}" for note in self.notes]
        here: Path | None = None
        for folder, command in self.commands:
            if folder != here:
                lines.append(f"cd {shlex.quote(str(folder))}")
                here = folder
            if folder == self.worktree and "PYTHONPATH=" not in "".join(lines):
                lines.append("export PYTHONPATH=$PWD/src META_OOD_TRACKING=off")
            lines.append(shlex.join(command))
        if self.weights_md5:
            lines.append(f"# the weights must have the md5 {self.weights_md5}")
        return lines


def plan(root: Path, run_id: str, into: Path | None = None) -> Plan:
    """Return the commands that give the outputs of a run again.

    A worktree of the run's commit (of the experiment's commit for ``dvc exp run``) with the shared
    DVC cache, in which ``dvc repro`` runs the stage and what it needs.

    Raises
    ------
    ValueError
        If that is impossible, and why: no such run, no commit, changes that were in no commit.
    """
    run = query.run_of(open_store(root), run_id)
    tags = run.data.tags
    notes = []
    commit = _experiment(root, tags.get("dvc.exp.name", ""))
    if commit:
        notes.append(f"experiment {tags['dvc.exp.name']}: its commit holds params and code")
    else:
        commit = tags.get("git.sha", "")
        if not commit:
            raise ValueError(f"{run_id}: the run has no git.sha, so its code is not known")
        if tags.get("git.dirty") == "true":
            raise ValueError(
                f"{run_id}: the working tree had changes that are in no commit (git.dirty); "
                f"nearest is {commit}, but its outputs may differ"
            )
        if not _has(root, commit):
            raise ValueError(f"{run_id}: commit {commit} is not in this repository; git fetch?")
    unversioned = [p for p, d in query.dataset_digests(run).items() if d == "unversioned"]
    if unversioned:
        notes.append(f"not versioned, check by hand that they are the same: {unversioned}")
    target = (into or root.resolve().parent / f"reproduce-{run_id[:8]}").resolve()
    if target.exists():
        raise ValueError(f"{target} exists: choose another folder with --into")
    top = root.resolve()
    cache = str(top / ".dvc" / "cache")
    stage = tags.get("dvc.stage", "")
    last: tuple[str, ...] = ("dvc", "repro", stage)
    if not stage:
        last = tuple(shlex.split(tags.get("command", "")))
        notes.append("the stage was not started by DVC: make its inputs with dvc repro first")
    commands = [
        (top, ("git", "worktree", "add", "--detach", str(target), commit)),
        (target, (sys.executable, "setup.py", "-q", "build_ext", "--inplace")),
        (target, ("dvc", "cache", "dir", "--local", cache)),
        (target, last),
    ]
    return Plan(tuple(commands), tuple(notes), tags.get("weights.md5", ""), target)


def execute(plan: Plan) -> str:
    """Run the commands; return what the comparison of the weights says.

    Raises
    ------
    TrackingError
        If a command fails.
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("DVC_", "MLFLOW_"))}
    environment |= {"PYTHONPATH": str(plan.worktree / "src"), "META_OOD_TRACKING": "off"}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    environment["PATH"] = path
    for folder, command in plan.commands:
        done = subprocess.run(command, cwd=folder, env=environment, check=False)
        if done.returncode:
            raise TrackingError(f"{shlex.join(command)} in {folder} ended with {done.returncode}")
    if not plan.weights_md5:
        return f"done: {plan.worktree}"
    for weights in sorted(plan.worktree.glob("data/networks/*/*.safetensors")):
        if file_hash(weights, "md5") == plan.weights_md5:
            return f"the same weights: {weights}"
    return f"DIFFERENT weights: none below {plan.worktree} has md5 {plan.weights_md5}"


def _experiment(root: Path, name: str) -> str:
    if not name:
        return ""
    listed = _git(root, "for-each-ref", "--format=%(objectname) %(refname)", "refs/exps")
    for line in listed.splitlines():
        commit, _, reference = line.partition(" ")
        if reference.endswith(f"/{name}"):
            return commit
    return ""


def _has(root: Path, commit: str) -> bool:
    return bool(_git(root, "rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}"))


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=root, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() if done.returncode == 0 else ""
