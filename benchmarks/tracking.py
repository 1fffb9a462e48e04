"""What tracking costs the pipeline, in CPU seconds and in seconds of waiting.

    python benchmarks/tracking.py --demo-seconds 600

Run it in a folder in which `make demo` was run: it records all stages of dvc.lock in a store of its own, and times a
stage that writes its run itself, with tracking on and off.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time

STAGE = """
from meta_ood import tracking
params = {f"train.option_{k}": k for k in range(60)}
with tracking.run("train", keys={"network": "mini"}, params=params, inputs={}) as run:
    for step in range(300):
        run.log({"train/loss": 1.0 / (step + 1), "train/rate": 0.1}, step)
"""


def seconds(command: list[str], **more: str) -> tuple[float, float]:
    """Return the CPU seconds and the seconds that a command takes."""
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, env=os.environ | more, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu, time.perf_counter() - begin


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--demo-seconds", type=float, help="of the whole demo, for the share")
    parser.add_argument("--live", type=int, default=4, help="stages that write their runs")
    options = parser.parse_args()
    sync = [sys.executable, "-m", "meta_ood", "-q", "sync"]
    stage = [sys.executable, "-c", STAGE]
    with tempfile.TemporaryDirectory() as folder:
        store = {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
        first = seconds(sync, **store)
        again = seconds(sync, **store)
        tracked = [seconds(stage, **store) for _ in range(3)]
    untracked = [seconds(stage, META_OOD_TRACKING="off") for _ in range(3)]
    rows = {"sync: a new store, all stages": first, "sync: nothing to do": again}
    medians = [
        tuple(statistics.median(column) for column in zip(*times, strict=True)) for times in (tracked, untracked)
    ]
    live = rows["a stage that writes its run"] = (medians[0][0] - medians[1][0], medians[0][1] - medians[1][1])
    for name, (cpu, wall) in rows.items():
        print(f"{name:30} {cpu:6.2f} s CPU {wall:6.2f} s")
    if options.demo_seconds:
        whole = first[1] + again[1] + options.live * live[1]
        print(f"of {options.demo_seconds:.0f} s: {whole / options.demo_seconds:.1%}")


if __name__ == "__main__":
    main()
