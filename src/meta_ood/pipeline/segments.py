"""Stage segments: predictions -> one table of OoD segments, true components and overlaps."""

from __future__ import annotations

import hashlib
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from meta_ood.config import Params, SegmentsParams
from meta_ood.data import prediction_files
from meta_ood.data.context import Log, Machine, progress
from meta_ood.scores.maps import Workspace
from meta_ood.segments import SegmentTable, measure_segments, table_file

BATCH = 64
"""Frames whose tables go to disk together: what a killed run may have to do again."""
ROOT = Path(".meta_ood/resume")


def run(
    params: Params,
    *,
    network: str,
    variant: str,
    dataset: str,
    predictions: Path,
    segments: Path,
    log: Log,
    machine: Machine,
) -> None:
    """Measure every frame of `predictions` and write the table `segments`.

    Tables of finished batches gather in a folder of their own, so that a killed run goes on where it was; the result
    has the frames in file-name order whatever the number of workers.
    """
    frames = prediction_files.open_predictions(predictions)
    gathered = ROOT / f"segments-{_fingerprint(frames.paths, params.segments)}"
    gathered.mkdir(parents=True, exist_ok=True)
    parts = []
    with progress([], f"segments {network} {variant} {dataset}", len(frames)) as bar:
        for start in range(0, len(frames), BATCH):
            paths = frames.paths[start : start + BATCH]
            parts.append(gathered / f"{start:06d}.h5")
            if parts[-1].is_file():
                bar.update(len(paths))
                continue
            tables = []
            for table in _measure(paths, params.segments, machine.workers):
                tables.append(table)
                bar.update()
            table_file.write_table(parts[-1], SegmentTable.concatenate(tables), {})
    table = SegmentTable.concatenate([table_file.read_table(part) for part in parts])
    origin = {
        "network": network,
        "variant": variant,
        "dataset": dataset,
        "weights_sha256": frames.weights_sha256,
        "class_names": list(frames.class_names),
    }
    table_file.write_table(segments, table, origin)
    shutil.rmtree(gathered)
    log({f"segments/{name}": float(count) for name, count in table.counts().items()}, 0)


def _measure(paths: tuple[Path, ...], settings: SegmentsParams, workers: int) -> Iterator[SegmentTable]:
    """Yield the frames' tables in order; `workers` threads, as kernel and HDF5 let go of Python."""
    memory = threading.local()

    def measure(path: Path) -> SegmentTable:
        workspace: Workspace = memory.__dict__.setdefault("workspace", Workspace())
        prediction = prediction_files.read_prediction(path, workspace.allocator("logits"))
        return measure_segments(prediction, settings.score, settings.threshold, workspace=workspace)

    with ThreadPoolExecutor(max(workers, 1)) as pool:
        yield from pool.map(measure, paths)


def _fingerprint(paths: tuple[Path, ...], settings: SegmentsParams) -> str:
    """Return a hash of what decides the result: settings, and the files' names, sizes and times."""
    facts = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    return hashlib.sha256(repr((settings, facts)).encode()).hexdigest()[:16]
