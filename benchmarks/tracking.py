"""What tracking costs a stage, against MLflow called by the stage itself.

    python benchmarks/tracking.py --stages 59 --demo-seconds 521

Seconds to begin and end a run through the journal (git, DVC's lock file, files to keep); the CPU
time of the writer for as many runs; and the same run written by a process that imports mlflow.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from meta_ood import tracking
from meta_ood.tracking import recording

PARAMS = {f"train.option_{k}": k for k in range(20)}
DIRECT = """
import sys, time
begin = time.perf_counter()
import mlflow
imported = time.perf_counter()
mlflow.set_tracking_uri(sys.argv[1])
with mlflow.start_run(run_name="train"):
    mlflow.log_params({f"train.option_{k}": k for k in range(20)})
    for step in range(30):
        mlflow.log_metrics({"loss": 1.0 / (step + 1), "rate": 0.1}, step=step)
    mlflow.log_artifacts(sys.argv[2])
print(imported - begin, time.perf_counter() - imported)
"""


def stage(inputs: dict[str, Path], files: Path) -> tuple[float, float, float]:
    """Return seconds to begin a run, to log, and to end it."""
    begin = time.perf_counter()
    with tracking.run("train", keys={"network": "mini"}, params=PARAMS, inputs=inputs) as run:
        begun = time.perf_counter()
        for step in range(30):
            run.log({"loss": 1.0 / (step + 1), "rate": 0.1}, step)
        run.outputs({"metrics": files / "metrics.json", "pictures": files / "pictures"})
        logged = time.perf_counter()
    return begun - begin, logged - begun, time.perf_counter() - logged


def writer_seconds(root: Path) -> float:
    """Return the CPU seconds of a writer that writes all journals below `root`."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    code = "import sys; from pathlib import Path; from meta_ood.tracking import writer; "
    code += "print(writer.flush(Path(sys.argv[1])))"
    subprocess.run([sys.executable, "-c", code, str(root)], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stages", type=int, default=59)
    parser.add_argument("--demo-seconds", type=float, help="of the whole demo, for the share")
    options = parser.parse_args()
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        os.environ["DVC_ROOT"] = folder  # the store goes there; git and dvc.lock are those of here
        files = root / "files"
        (files / "pictures").mkdir(parents=True)
        (files / "metrics.json").write_text(json.dumps({"auroc": 0.9}), encoding="utf-8")
        for k in range(4):
            (files / "pictures" / f"{k}.png").write_bytes(os.urandom(100_000))
        recording.ensure_writer = lambda root: None  # it is started and timed below
        inputs = {name: Path(name) for name in ("params.yaml", "dvc.yaml", "data/prepare")}
        seconds = [stage(inputs, files) for _ in range(options.stages)]
        begin, log, end = (statistics.median(column) for column in zip(*seconds, strict=True))
        writer = writer_seconds(root)
        store = f"sqlite:///{root}/mlflow.db"
        direct = []
        for _ in range(3):
            command = [sys.executable, "-c", DIRECT, store, str(files)]
            said = subprocess.run(command, check=True, capture_output=True, text=True, cwd=root)
            direct.append([float(word) for word in said.stdout.split()[-2:]])
    imported, written = (statistics.median(column) for column in zip(*direct, strict=True))
    ours = begin + log + end
    print(f"a stage: begin {begin:.4f} s, log and keep files {log:.4f} s, end {end:.4f} s")
    print(f"by itself: import mlflow {imported:.2f} s, write {written:.2f} s")
    print(f"ratio {(imported + written) / ours:.0f}")
    print(f"writer, {options.stages} runs and a new database: {writer:.1f} s of CPU time")
    if options.demo_seconds:
        waits, all_in = options.stages * ours, options.stages * ours + writer
        print(
            f"of {options.demo_seconds:.0f} s: {waits / options.demo_seconds:.2%} waited for, "
            f"{all_in / options.demo_seconds:.1%} with the writer on the same core"
        )


if __name__ == "__main__":
    main()
