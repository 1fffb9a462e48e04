"""Shell commands that make the outputs of a run again."""

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
class Script:
    """Commands for bash."""

    lines: tuple[str, ...]
    worktree: Path  # the folder that they make
    weights_md5: str  # what the weights must have afterwards, "" if the run made none


def script(root: Path, run_id: str, into: Path | None = None) -> Script:
    """Return commands that run the stage of a run again in a worktree of its commit, which shares DVC's cache.

    ValueError says why that is impossible: no such run, no commit, changes that were in no commit.
    """
    run = query.run_of(open_store(root), run_id)
    tags = run.data.tags
    notes = []
    # 1. the commit that holds the code and the parameters
    commit = _experiment(root, tags.get("dvc.exp.name", ""))
    if commit:
        notes.append(f"experiment {tags['dvc.exp.name']}: its commit holds params and code")
    else:
        commit = tags.get("git.sha", "")
        if not commit:
            raise ValueError(
                f"{run_id}: the run has no git.sha, so its code is not known; take one of a git repository"
            )
        if tags.get("git.dirty") == "true":
            raise ValueError(
                f"{run_id}: the tree had changes that are in no commit (git.dirty): commit before the next run; "
                f"nearest to this one is {commit}"
            )
        if not _git(root, "rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}"):
            raise ValueError(f"{run_id}: commit {commit} is not in this repository; git fetch?")
    # 2. what no commit holds
    unversioned = [p for p, d in query.dataset_digests(run).items() if d == "unversioned"]
    if unversioned:
        notes.append(f"not versioned, check by hand that they are the same: {unversioned}")
    top = root.resolve()
    target = (into or top.parent / f"reproduce-{run_id[:8]}").resolve()
    if target.exists():
        raise ValueError(f"{target} exists: choose another folder with --into")
    # 3. the commands
    if "dvc.stage" in tags:
        again = f"dvc repro {shlex.quote(tags['dvc.stage'])}"
    else:
        again = tags.get("command", "")
        notes.append("the stage was not started by DVC: make its inputs with dvc repro first")
    folder, place = shlex.quote(str(top)), shlex.quote(str(target))
    lines = [
        *(f"# {note}" for note in notes),
        f"cd {folder}",
        f"git worktree add --detach {place} {commit}",
        f"cd {place}",
        f"export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH",
        "export PYTHONPATH=$PWD/src META_OOD_TRACKING=off",
        "python setup.py -q build_ext --inplace",
        f"dvc cache dir --local {folder}/.dvc/cache",
        again,
    ]
    md5 = tags.get("weights.md5", "")
    if md5:
        lines.append(f"# the weights must have the md5 {md5}")
    return Script(tuple(lines), target, md5)


def execute(script: Script) -> str:
    """Run the commands and return the result of comparing the weights; TrackingError if a command fails."""
    clean = "unset ${!DVC_@} ${!MLFLOW_@}"
    done = subprocess.run(["bash", "-euc", "\n".join([clean, *script.lines])], check=False)
    if done.returncode:
        raise TrackingError(f"{script.worktree}: a command ended with {done.returncode}")
    if not script.weights_md5:
        return f"done: {script.worktree}"
    for weights in sorted(script.worktree.glob("data/networks/*/*.safetensors")):
        if file_hash(weights, "md5") == script.weights_md5:
            return f"the same weights: {weights}"
    return f"DIFFERENT weights: none below {script.worktree} has md5 {script.weights_md5}"


def _experiment(root: Path, name: str) -> str:
    """Return the commit of a DVC experiment, "" if there is none of that name."""
    listed = _git(root, "for-each-ref", "--format=%(objectname) %(refname:lstrip=-1)", "refs/exps")
    return next((line.split()[0] for line in listed.splitlines() if line.split()[1] == name), "")


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""
