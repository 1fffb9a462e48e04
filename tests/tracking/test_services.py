"""The smallest demo against PostgreSQL and an S3-compatible server, by environment variables alone.

``make test-services`` installs what it needs: PostgreSQL's programs must be there, moto stands for S3. One network, one
evaluation set, tiny frames; then a fresh clone that pulls everything.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
pytestmark = [pytest.mark.services, pytest.mark.filterwarnings("ignore")]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(**more: str) -> dict[str, str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "DVC_", "AWS_"))}
    return clean | {
        "PATH": f"{BIN}{os.pathsep}{clean['PATH']}",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "OMP_NUM_THREADS": "1",
        **KEYS,
        **more,
    }


def call(folder: Path, *command: str, user: int | None = None, **more: str) -> str:
    done = subprocess.run(
        command, cwd=folder, env=environment(**more), user=user, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout


def until(answers, seconds: float = 240.0) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            return answers()
        except Exception:
            if time.monotonic() > end:
                raise
            time.sleep(0.3)


@pytest.fixture
def postgres() -> Iterator[str]:
    """Yield the address of a database of its own."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    found = programs[-1] if programs else shutil.which("postgres")
    assert found, "PostgreSQL is not installed: apt-get install postgresql"
    programs_folder = Path(found).resolve().parent
    place = Path(tempfile.mkdtemp(prefix="meta-ood-postgres-"))  # where its account may go
    user = None
    if os.geteuid() == 0:  # PostgreSQL refuses to be run by root
        user = pwd.getpwnam("postgres").pw_uid
        os.chown(place, user, -1)
    data, port = place / "data", free_port()
    options = ["--auth", "trust", "--username", "mlflow", "--encoding", "UTF8"]
    call(place, str(programs_folder / "initdb"), "--pgdata", str(data), *options, user=user)
    command = [str(programs_folder / "postgres"), "-D", str(data), "-k", str(place)]
    server = subprocess.Popen(
        [*command, "-p", str(port)], cwd=place, user=user, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    address = f"postgresql://mlflow@127.0.0.1:{port}/postgres"
    import psycopg

    until(lambda: psycopg.connect(address).close())
    yield address
    server.send_signal(signal.SIGINT)  # "fast": it does not wait for connections to end
    server.wait()
    shutil.rmtree(place)


@pytest.fixture
def s3() -> Iterator[str]:
    """Yield the address of an S3-compatible server with buckets `mlflow` and `dvc`."""
    import boto3

    port = free_port()
    server = subprocess.Popen(
        [str(BIN / "moto_server"), "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    address = f"http://127.0.0.1:{port}"
    names = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
    client = boto3.client("s3", endpoint_url=address, region_name="us-east-1", **names)
    until(lambda: client.create_bucket(Bucket="mlflow"))
    client.create_bucket(Bucket="dvc")
    yield address
    server.terminate()
    server.wait()


@pytest.fixture
def tracking_server(postgres: str, s3: str, tmp_path: Path) -> Iterator[str]:
    """Yield the address of an MLflow server on both."""
    port = free_port()
    command = ["mlflow", "server", "--workers", "1", "--port", str(port)]
    command += ["--backend-store-uri", postgres, "--artifacts-destination", "s3://mlflow/artifacts"]
    with (tmp_path / "server.log").open("w") as log:
        server = subprocess.Popen(
            command, env=environment(MLFLOW_S3_ENDPOINT_URL=s3), cwd=tmp_path, stdout=log, stderr=log
        )
    address = f"http://127.0.0.1:{port}"
    until(lambda: urllib.request.urlopen(f"{address}/health", timeout=5).close())
    yield address
    server.terminate()
    server.wait()


def small_project(folder: Path, s3: str) -> None:
    """Clone this repository at HEAD with tiny params and a DVC remote on `s3`."""
    call(folder.parent, "git", "clone", "-q", str(ROOT), str(folder))
    for built in (ROOT / "src").rglob("*.so"):
        shutil.copy2(built, folder / built.relative_to(ROOT))
    params = yaml.safe_load((folder / "params.yaml").read_text(encoding="utf-8"))
    params["synthesize"] |= {"height": 64, "width": 128, "cityscapes_train": 8, "cityscapes_val": 3}
    params["synthesize"] |= {"coco": 14, "lost_and_found": 6, "fishyscapes": 4}
    params["datasets"]["coco"]["options"]["min_side"] = 64
    params |= {"networks": ["deeplabv3plus_mini"], "evaluation_sets": ["lost_and_found"], "operating_point": None}
    params["meta"]["train_on"] = None
    for stage in ("pretrain", "train"):
        params[stage] |= {"epochs": 1, "crop": 64}
        for network in params["network"].values():
            for name in ("epochs", "crop"):
                network[stage].pop(name, None)
    params["evaluate"] |= {"bootstrap": 5, "pictures": 1}
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
    (folder / "dvc.lock").unlink(missing_ok=True)  # of the demo: it has other cells
    call(folder, "dvc", "remote", "add", "-d", "store", "s3://dvc/meta-ood")
    call(folder, "dvc", "remote", "modify", "store", "endpointurl", s3)
    author = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    call(folder, "git", *author, "commit", "-qam", "small")


def test_the_pipeline_runs_on_servers_and_a_fresh_clone_pulls_it(tracking_server, s3, tmp_path):
    import mlflow

    first = tmp_path / "first"
    small_project(first, s3)
    where = {"MLFLOW_TRACKING_URI": tracking_server, "PYTHONPATH": str(first / "src")}
    call(first, "dvc", "repro", "-q", **where)
    call(first, "python", "-m", "meta_ood", "sync", **where)  # `detector` may have run after `report`
    assert "recorded 0" in call(first, "python", "-m", "meta_ood", "sync", **where)
    stages = len(yaml.safe_load((first / "dvc.lock").read_text())["stages"]) - 1  # `code` has no run
    store = mlflow.MlflowClient(tracking_server)
    experiment = store.get_experiment_by_name("meta-ood")
    runs = store.search_runs([experiment.experiment_id], max_results=1000)
    assert len(runs) == stages
    assert {run.info.status for run in runs} == {"FINISHED"}
    evaluate = next(run for run in runs if run.data.tags["stage"] == "evaluate")
    files = {file.path for file in store.list_artifacts(evaluate.info.run_id)}
    assert {"metrics.json", "pictures"} <= files
    aliases = store.get_registered_model("deeplabv3plus_mini").aliases
    assert set(aliases) == {"baseline", "ood_trained"}
    assert not (first / "mlflow.db").exists()

    call(first, "dvc", "push")
    author = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    call(first, "git", "add", "dvc.lock")
    call(first, "git", *author, "commit", "-qm", "lock")
    second = tmp_path / "second"
    call(tmp_path, "git", "clone", "-q", str(first), str(second))
    for built in (ROOT / "src").rglob("*.so"):
        shutil.copy2(built, second / built.relative_to(ROOT))
    where["PYTHONPATH"] = str(second / "src")
    call(second, "dvc", "pull")
    for name in ("data/report/index.html", "data/networks/deeplabv3plus_mini/ood_trained.safetensors"):
        assert (second / name).read_bytes() == (first / name).read_bytes()
    assert "up to date" in call(second, "dvc", "status", **where)
    assert "recorded 0" in call(second, "python", "-m", "meta_ood", "sync", **where)
