"""The engines of `meta-ood scan` under kills: equal tables, frames done twice, frames a second, memory.

    python benchmarks/scan.py --frames 100000 --out outputs/scan_benchmark

Scans drawn frames of 128x256, which are never stored, with a very small network, so that the engine is what is
measured: `local` with 1 and 2 workers, `ray` with 1, 2 and 4. Every `--seconds` a random worker is killed, and in each
run the driver twice (SIGKILL); the same command then goes on. Ends with exit code 1 if the tables of two runs differ, a
killed process cost more than one frame, or a process outlived its driver. A run that is in results.json is not
repeated, so the command can itself be started again.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import shutil
import sys
import time
from functools import cache
from hashlib import sha256
from pathlib import Path

import numpy as np
import psutil
from fsspec import AbstractFileSystem

from meta_ood.detector.detector import Detector

RUNS = (("local", 1), ("local", 2), ("ray", 1), ("ray", 2), ("ray", 4))
SIZE = (128, 256)  # [px] of a frame
PER_PART = 200
NOTES = "SCAN_BENCHMARK_NOTES"  # environment variable: folder of notes
AFTER = 12.0  # [s] after a start or a kill that do not count as undisturbed
CLASSES = ("road", "sky", "car", "person", "pole")
_TINY = {  # options of deeplabv3plus_mini
    "stem_width": 8,
    "widths": ((8, 8), (8, 8), (8, 8), (8, 8), (8, 8, 8), (8, 8, 8)),
    "aspp_width": 8,
    "rates": (2,),
    "fine_width": 8,
}


class Drawn(AbstractFileSystem):
    """``drawn://7`` is the image file of the frame 7; a process that opens one notes each frame that it judges."""

    protocol = "drawn"

    def _open(self, path, mode="rb", **options):
        _note_frames()
        number = int(path)
        rng = np.random.default_rng(number)
        image = _grounds()[number % len(_grounds())].copy()
        for row, column, height, width, *colour in rng.integers(0, (100, 220, 28, 36, 256, 256, 256), (4, 7)).tolist():
            image[row : row + height, column : column + width] = colour
        return io.BytesIO(b"P6 %d %d 255\n" % SIZE[::-1] + image.tobytes())


@cache
def _grounds() -> np.ndarray:
    """Return eight frames of squares without things; fsspec keeps a file system for each thread, which hold none."""
    coarse = np.random.default_rng(0).integers(60, 120, (8, SIZE[0] // 8, SIZE[1] // 8, 3), np.uint8)
    return coarse.repeat(8, axis=1).repeat(8, axis=2)


@cache
def _note_frames() -> None:
    """Let this process note each frame that it judges; frames are read ahead, so reads would not say what is done."""
    notes = os.open(Path(os.environ[NOTES], f"{os.getpid()}-{time.time_ns()}"), os.O_CREAT | os.O_WRONLY)
    judge = Detector.judge

    def noted(*given, **more):
        os.write(notes, b".")
        return judge(*given, **more)

    Detector.judge = noted


def make_world(folder: Path, frames: int) -> dict[str, str]:
    """Write detector and manifest; return the environment in which all processes know the frames."""
    import pyarrow as pa
    import torch

    from meta_ood.detector.folder import Settings, write_folder
    from meta_ood.detector.scan.manifest import write_manifest
    from meta_ood.models import build, checkpoint

    # 1. fsspec finds file systems by the entry points of what is on the path
    about = folder / "path" / "drawn-0.dist-info"
    about.mkdir(parents=True, exist_ok=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: drawn\nVersion: 0\n")
    (about / "entry_points.txt").write_text("[fsspec.specs]\ndrawn = scan:Drawn\n")
    path = os.pathsep.join([str(about.parent), str(Path(__file__).parent), *filter(None, sys.path)])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    # 2. a network with random weights, and a threshold that about 2 % of the pixels of other frames reach
    torch.manual_seed(0)
    network = build("deeplabv3plus_mini", len(CLASSES), **_TINY)
    given = {"name": "tiny", "architecture": "deeplabv3plus_mini", "options": _TINY, "class_names": CLASSES}
    checkpoint.save(folder / "weights.safetensors", network, **given, num_classes=len(CLASSES), variant="baseline")
    os.environ[NOTES] = str(folder)
    draw, detector = Drawn(), folder / "detector"
    for threshold in (0.5, None):
        if threshold is None:
            from meta_ood.data.images import decode_image

            found = Detector.load(detector, "cpu")
            images = [decode_image(draw.open(str(-k - 1 + 10**12)).read(), "drawn") for k in range(16)]
            threshold = float(np.quantile([found(image).score for image in images], 0.98))
        settings = Settings(score="entropy", threshold=threshold, infer={"size": (SIZE[0] // 2, SIZE[1] // 2)})
        write_folder(detector, folder / "weights.safetensors", None, settings)
    # 3. the frames, of drives with a thousand each
    numbers = range(frames)
    columns = {
        "id": [f"{k // 1000}/{k % 1000:03d}" for k in numbers],
        "source": [f"drawn://{k}" for k in numbers],
        "sequence": [str(k // 1000) for k in numbers],
        "time": [k % 1000 / 10 for k in numbers],
    }
    write_manifest(folder / "manifest.parquet", pa.table(columns))
    return environment


class Run:
    """A scan with one engine and number of workers, from its first start to its last end."""

    def __init__(self, folder: Path, environment: dict[str, str], engine: str, workers: int) -> None:
        self.out = folder / f"{engine}-{workers}"
        shutil.rmtree(self.out, ignore_errors=True)
        self.notes = self.out / "notes"
        self.notes.mkdir(parents=True)
        self.command = [sys.executable, "-m", "meta_ood", "scan", str(folder / "manifest.parquet")]
        self.command += ["--detector", str(folder / "detector"), "--out", str(self.out / "scan"), "--device", "cpu"]
        self.command += ["--engine", engine, "--workers", str(workers), "--frames-per-part", str(PER_PART)]
        self.environment, self.workers = {**environment, NOTES: str(self.notes)}, workers
        self.killed = {"worker": 0, "driver": 0}
        self.orphans = 0
        self.samples: list[dict[str, float]] = []

    def start(self) -> psutil.Process:
        """Start the command."""
        with (self.out / "log").open("ab") as log:
            return psutil.Popen(self.command, env=self.environment, stdout=log, stderr=log)

    def frames(self) -> int:
        """Return how many frames have been judged, some of them twice."""
        return sum(path.stat().st_size for path in self.notes.iterdir())

    def workers_of(self, driver: psutil.Process) -> list[psutil.Process]:
        """Return the processes that do frames."""
        pids = {int(path.name.partition("-")[0]) for path in self.notes.iterdir()}
        return [child for child in alive(driver) if child.pid in pids]

    def sample(self, driver: psutil.Process, started: float, last: float) -> None:
        """Note progress, memory and CPU time of all processes."""
        now, workers, everyone = time.monotonic(), self.workers_of(driver), [driver, *alive(driver)]
        try:
            memory = {child.pid: child.memory_info().rss / 1e6 for child in everyone}
            spent = {child.pid: sum(child.cpu_times()[:2]) for child in everyone}
        except psutil.Error:  # one has just ended
            return
        ages = [time.time() - worker.create_time() for worker in workers]
        self.samples.append(
            {
                "seconds": now - started,
                "since": now - last,
                "frames": self.frames(),
                "workers": len(workers),
                "driver": memory[driver.pid],
                "worker": max((memory[worker.pid] for worker in workers), default=0),
                "oldest": max(ages, default=0),
                "all": sum(memory.values()),
                "cpu": sum(spent.values()),
                "cpu_driver": spent[driver.pid],
            }
        )

    def go(self, frames: int, seconds: float) -> None:
        """Scan with kills until the command ends by itself; RuntimeError if it fails."""
        chance = random.Random(0)
        driver, started = self.start(), time.monotonic()
        last = next_sample = started
        while (code := driver.poll()) is None:
            time.sleep(0.2)
            now = time.monotonic()
            if now >= next_sample:
                self.sample(driver, started, last)
                next_sample = now + 1
            # 1. the driver, after each third of the frames; the same command goes on
            if self.killed["driver"] < 2 and self.frames() > frames * (self.killed["driver"] + 1) / 3:
                others = self.workers_of(driver)
                driver.kill()
                driver.wait()
                self.killed["driver"] += 1
                _, orphans = psutil.wait_procs(others, timeout=60)
                self.orphans += sum(orphan.is_running() for orphan in orphans)
                driver, last = self.start(), time.monotonic()
            # 2. a worker
            elif now - last > seconds and (workers := self.workers_of(driver)):
                chance.choice(workers).kill()
                self.killed["worker"] += 1
                last = now
        self.wall = time.monotonic() - started
        if code:
            raise RuntimeError(f"exit code {code}: see {self.out / 'log'}")

    def result(self, frames: int) -> dict[str, object]:
        """Return what the run shows."""
        tables = [p for kind in ("frames", "segments") for p in sorted((self.out / "scan" / kind).glob("*.parquet"))]
        digest = sha256(b"".join(sha256(path.read_bytes()).digest() for path in tables)).hexdigest()
        # stretches between two samples in which nothing was disturbed and all workers worked
        neighbours = zip(self.samples, self.samples[1:], strict=False)
        full = ((a, b) for a, b in neighbours if a["workers"] == b["workers"] == self.workers)
        pairs = [(a, b) for a, b in full if AFTER < a["since"] < b["since"]]
        calm = sum(b["seconds"] - a["seconds"] for a, b in pairs)
        gained = {key: sum(b[key] - a[key] for a, b in pairs) for key in ("frames", "cpu", "cpu_driver")}
        quarter = len(pairs) // 4 or 1
        flat = {}
        for key in ("driver", "worker", "all"):
            values = [a[key] for a, _ in pairs] or [0.0]
            flat[key] = [round(float(np.median(values[:quarter]))), round(float(np.median(values[-quarter:])))]
        twice = self.frames() - frames
        # with the driver its workers may be killed in their frames
        allowed = self.killed["worker"] + self.workers * self.killed["driver"]
        return {
            "tables": digest,
            "files": len(tables),
            "bytes_a_frame": round(sum(path.stat().st_size for path in tables) / frames),
            "wall_s": round(self.wall, 1),
            "killed": self.killed,
            "twice": twice,
            "twice_allowed": allowed,
            "orphans": self.orphans,
            "calm_s": round(calm, 1),
            "frames_a_second": round(gained["frames"] / calm, 1) if calm else None,
            "cpu_ms_a_frame": round(1e3 * gained["cpu"] / gained["frames"], 3) if gained["frames"] else None,
            "cpu_ms_driver": round(1e3 * gained["cpu_driver"] / gained["frames"], 3) if gained["frames"] else None,
            "MB_first_and_last_quarter": flat,
        }


def alive(driver: psutil.Process) -> list[psutil.Process]:
    """Return all processes that a driver has started, and those that these have."""
    try:
        return driver.children(recursive=True)
    except psutil.Error:
        return []


def main() -> int:
    """Do the runs and print their results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=30.0, help="between two kills of a worker")
    parser.add_argument("--out", type=Path, default=Path("outputs/scan_benchmark"))
    given = parser.parse_args()
    out = given.out.resolve()
    environment = make_world(out, given.frames)
    path = out / "results.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    for engine, workers in RUNS:
        name = f"{engine} {workers}"
        if name not in results:
            run = Run(out, environment, engine, workers)
            run.go(given.frames, given.seconds)
            results[name] = run.result(given.frames)
            (run.out / "samples.json").write_text(json.dumps(run.samples))
            path.write_text(json.dumps(results, indent=1))
        print(name, json.dumps(results[name]), flush=True)
    for engine in ("local", "ray"):
        one, two = (results[f"{engine} {workers}"]["frames_a_second"] for workers in (1, 2))
        if one and two:
            print(f"{engine}: 2 workers make {two / one:.2f} times the frames of 1: {two / one / 2:.2f} of linear")
    equal = len({result["tables"] for result in results.values()}) == 1
    kept = all(result["twice"] <= result["twice_allowed"] and not result["orphans"] for result in results.values())
    print(
        f"tables {'equal' if equal else 'DIFFER'}; frames and processes {'as promised' if kept else 'NOT as promised'}"
    )
    return 0 if equal and kept else 1


if __name__ == "__main__":
    sys.exit(main())
