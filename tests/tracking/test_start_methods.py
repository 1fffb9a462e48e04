"""Who starts a stage × which runs there are afterwards, with stages that do nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import meta_ood

STAGE = """
import sys
from pathlib import Path
from meta_ood import tracking
stage = sys.argv[1]
with tracking.run(stage, keys={}, params={"train.rate": 1}, inputs={}) as run:
    run.log({"loss": 1.0}, 0)
    Path(f"{stage}.out").write_text(stage + Path("params.yaml").read_text())
"""
DVC = """
stages:
  train:
    cmd: python stage.py train
    deps: [stage.py]
    params: [rate]
    outs: [train.out]
  report:
    cmd: python stage.py report
    deps: [stage.py, train.out]
    outs: [report.out]
  infer:  # a short stage: `meta-ood sync` would record it if its command were ours
    cmd: python stage.py infer
    deps: [stage.py]
    outs: [infer.out]
"""
MLPROJECT = """
name: small
entry_points:
  main: {command: "dvc repro"}
  train:
    parameters: {set: {type: string, default: "a b"}}
    command: "python stage.py train"
"""
PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
pytestmark = [
    pytest.mark.services,  # minutes: every case starts processes that import mlflow
    pytest.mark.filterwarnings("ignore"),  # of mlflow's own
]


@pytest.fixture
def project(tmp_path):
    """A git and DVC project of two stages."""
    files = {
        "stage.py": STAGE,
        "dvc.yaml": DVC,
        "MLproject": MLPROJECT,
        "params.yaml": "rate: 1\n",
        ".gitignore": "*.out\n/mlflow.db\n/mlartifacts\n/mlruns\n.meta_ood/\n.mlflow.lock\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    call(tmp_path, "git", "init", "-q")
    call(tmp_path, "dvc", "init", "-q")
    call(tmp_path, "git", "add", ".")
    author = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    call(tmp_path, "git", *author, "commit", "-qm", "small")
    return tmp_path


def environment(**more: str) -> dict[str, str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "DVC_", "RANK"))}
    source = str(Path(meta_ood.__file__).parents[1])
    return clean | {
        "PATH": PATH,
        "PYTHONPATH": source,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DVC_NO_ANALYTICS": "true",
        "META_OOD_TRACKING": "on",
        **more,
    }


def call(folder: Path, *command: str, **more: str) -> None:
    done = subprocess.run(command, cwd=folder, env=environment(**more), capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"


def runs(folder: Path) -> list[tuple[str, str, str, str | None]]:
    """Return (experiment, name, status, parent's name) of all runs, oldest first."""
    import mlflow

    store = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db")
    experiments = {e.experiment_id: e.name for e in store.search_experiments()}
    found = store.search_runs(list(experiments), order_by=["start_time"])
    names = {run.info.run_id: run.info.run_name for run in found}
    return [
        (
            experiments[run.info.experiment_id],
            run.info.run_name,
            run.info.status,
            names.get(run.data.tags.get("mlflow.parentRunId", "")),
        )
        for run in found
    ]


def alone(project: Path) -> None:
    call(project, "python", "stage.py", "train")


def repro(project: Path) -> None:
    call(project, "dvc", "repro", "-q")
    call(project, "dvc", "repro", "-q")  # does nothing


def experiment(project: Path) -> None:
    call(project, "dvc", "exp", "run", "-q", "-S", "rate=2")


def entry_point(project: Path) -> None:
    options = ["--env-manager", "local", "--experiment-name", "small"]
    call(project, "mlflow", "run", ".", "-e", "train", "-P", "set=x y", *options)


def whole_project(project: Path) -> None:
    call(project, "mlflow", "run", ".", "--env-manager", "local", "--experiment-name", "small")


def queue(project: Path) -> None:
    for rate in ("3", "4"):
        call(project, "dvc", "exp", "run", "-q", "--queue", "-S", f"rate={rate}")
    call(project, "dvc", "exp", "run", "-q", "--run-all", "-j", "2")


def ranks(project: Path) -> None:
    call(project, "torchrun", "--nproc-per-node", "2", "stage.py", "train")


def six_at_once(project: Path) -> None:
    started = [subprocess.Popen(["python", "stage.py", "train"], cwd=project, env=environment()) for _ in range(6)]
    assert [process.wait(timeout=240) for process in started] == [0] * 6


ALONE = ("meta-ood", "train", "FINISHED", None)
BOTH = [ALONE, ("meta-ood", "report", "FINISHED", None)]


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        (alone, [ALONE]),
        (repro, BOTH),
        (experiment, BOTH),
        (queue, BOTH * 2),
        (ranks, [ALONE]),
        (six_at_once, [ALONE] * 6),
        (entry_point, [("small", "train", "FINISHED", None)]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_runs_are_those_of_the_stages(project, start, expected):
    start(project)
    assert sorted(runs(project)) == sorted(expected)


def test_the_whole_project_is_a_parent_with_a_child_for_each_stage(project):
    whole_project(project)
    parent, *children = runs(project)
    assert (parent[0], parent[2], parent[3]) == ("small", "FINISHED", None)
    assert children == [("small", "train", "FINISHED", parent[1]), ("small", "report", "FINISHED", parent[1])]
