"""Pictures of the MLflow UI for docs/operations.md: ``python docs/screenshots.py [OUT]``.

Serves the store of this repository on a free port and looks at it with headless Chromium.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def main(out: Path) -> int:
    """Write one PNG a page; return the exit status."""
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        sys.stderr.write(f"no browser: one of {', '.join(BROWSERS)} is needed\n")
        return 2
    store = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{ROOT}/mlflow.db"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["mlflow", "server", "--workers", "1", "--backend-store-uri", store]
    environment = os.environ | {
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    server = subprocess.Popen(
        [*command, "--port", str(port)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        address = f"http://127.0.0.1:{port}"
        wait_for(f"{address}/health")
        out.mkdir(parents=True, exist_ok=True)
        for name, page in pages(address).items():
            shoot(browser, f"{address}/#/{page}", out / f"{name}.png")
            sys.stdout.write(f"{out / name}.png\n")
    finally:
        server.terminate()
        server.wait()
    return 0


def wait_for(url: str, seconds: float = 180.0) -> None:
    """Wait until `url` answers."""
    end = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.5)


def ask(address: str, what: str, body: dict[str, Any]) -> Any:
    """Return the answer of MLflow's REST interface."""
    url = f"{address}/api/2.0/mlflow/{what}"
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def pages(address: str) -> dict[str, str]:
    """Return name -> page, chosen among the newest runs."""
    listed = ask(address, "experiments/search", {"max_results": 100})["experiments"]
    experiments = [e["experiment_id"] for e in listed if e["name"] != "Default"]
    body = {"experiment_ids": experiments, "max_results": 1000}
    runs = ask(address, "runs/search", body)["runs"]

    def newest(stage: str, variant: str = "", metric: str = "") -> dict[str, Any]:
        for run in runs:
            tags = {tag["key"]: tag["value"] for tag in run["data"]["tags"]}
            metrics = {m["key"] for m in run["data"].get("metrics", [])}
            fits = variant in ("", tags.get("variant")) and (not metric or metric in metrics)
            if tags.get("stage") == stage and fits:
                return dict(run["info"], **tags)
        raise SystemExit(f"no run of stage {stage} {variant}: dvc repro first")

    train, after = newest("train"), newest("evaluate", "ood_trained", "evaluate/auroc")
    before = next(
        dict(run["info"])
        for run in runs
        if run["info"]["run_name"] == after["run_name"].replace("ood_trained", "baseline")
    )
    experiment, network = train["experiment_id"], train["network"]
    pair = json.dumps([before["run_id"], after["run_id"]])
    only = urllib.parse.quote('tags.stage = "evaluate"')
    training = urllib.parse.quote('tags.stage = "train"')
    return {
        "runs": f"experiments/{experiment}/runs",
        "evaluations": f"experiments/{experiment}/runs?searchFilter={only}",
        "charts": f"experiments/{experiment}/runs?searchFilter={only}&compareRunsMode=CHART",
        "run": f"experiments/{experiment}/runs/{after['run_id']}",
        "curves": f"experiments/{experiment}/runs?searchFilter={training}&compareRunsMode=CHART",
        "files": f"experiments/{experiment}/runs/{after['run_id']}/artifacts",
        "compare": f"compare-runs?runs={urllib.parse.quote(pair)}&experiments=[%22{experiment}%22]",
        "model": f"models/{network}",
        "version": f"models/{network}/versions/{version_of(address, network)}",
    }


def version_of(address: str, network: str) -> str:
    """Return the newest version of a model."""
    url = f"{address}/api/2.0/mlflow/registered-models/get?name={urllib.parse.quote(network)}"
    with urllib.request.urlopen(url, timeout=60) as answer:
        latest = json.load(answer)["registered_model"].get("aliases", [])
    chosen = {alias["alias"]: alias["version"] for alias in latest}
    return str(chosen.get("champion") or chosen.get("ood_trained") or 1)


def shoot(browser: str, url: str, path: Path) -> None:
    """Write a picture of a page once its scripts have settled."""
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    options += ["--window-size=1600,1100", "--virtual-time-budget=60000"]
    subprocess.run(
        [browser, *options, f"--screenshot={path}", url],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=240,
    )


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "outputs" / "screenshots"))
