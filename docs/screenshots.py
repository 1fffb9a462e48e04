"""Pictures of the MLflow UI for docs/operations.md: ``python docs/screenshots.py [OUT]``.

Serves the store of this repository on a free port and looks at it with headless Chromium.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path

from mlflow.entities import Run

from meta_ood.tracking import location, store

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def main(out: Path) -> int:
    """Write one PNG per page; return the exit status."""
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        sys.stderr.write(f"no browser: one of {', '.join(BROWSERS)} is needed\n")
        return 2
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen([sys.executable, "-m", "meta_ood", "ui", "--port", str(port)])
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for(f"{address}/health")
        out.mkdir(parents=True, exist_ok=True)
        for name, page in pages(address).items():
            shoot(browser, page, out / f"{name}.png")
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


def pages(address: str) -> dict[str, str]:
    """Return name -> address of a page, chosen among the newest runs."""
    client = store.open_store(location.root())

    def newest(stage: str, variant: str = "") -> Run:
        condition = f"tags.stage = '{stage}'" + (f" and tags.variant = '{variant}'" * bool(variant))
        run = next(store.all_runs(client, condition), None)
        if run is None:
            raise SystemExit(f"no run of stage {stage} {variant}: dvc repro first")
        return run

    train, after = newest("train"), newest("evaluate", "ood_trained")
    before = newest("evaluate", "baseline")
    experiment, network = train.info.experiment_id, train.data.tags["network"]
    runs = store.ui_address(address, experiment)
    run, mode = runs.replace("?", f"/{after.info.run_id}?").split("?")
    pair = urllib.parse.quote(json.dumps([before.info.run_id, after.info.run_id]))
    aliases = client.get_registered_model(network).aliases
    version = aliases.get("champion") or aliases["ood_trained"]
    charts, curves = (store.ui_address(address, experiment, stage) for stage in ("evaluate", "train"))
    return {
        "runs": runs,
        "evaluations": charts.replace("&compareRunsMode=CHART", ""),
        "charts": charts,
        "curves": curves,
        "run": f"{run}?{mode}",
        "system": f"{runs.replace('?', f'/{train.info.run_id}/system-metrics?')}",
        "files": f"{run}/artifacts?{mode}",
        "compare": f"{address}/#/compare-runs?runs={pair}&experiments=[%22{experiment}%22]",
        "model": f"{address}/#/models/{network}",
        "version": f"{address}/#/models/{network}/versions/{version}",
    }


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
    default = location.root() / "outputs" / "screenshots"
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else default))
