"""Stage `segments`: predictions -> one table of OoD segments, true components and overlaps."""

import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from meta_ood.config import Params, SegmentsParams
from meta_ood.data import prediction_files
from meta_ood.data.context import Log, Machine, progress
from meta_ood.data.files import resume_folder
from meta_ood.data.frames import read_frames
from meta_ood.scores.maps import Workspace
from meta_ood.segments import SegmentTable, measure_segments, table_file

BATCH = 64  # frames per file in the resume folder: at most so many are measured again after a kill


def run(
    params: Params,
    *,
    network: str,
    variant: str,
    dataset: str,
    prepared: Path,
    predictions: Path,
    segments: Path,
    log: Log,
    machine: Machine,
) -> None:
    """Measure every frame of the dataset `prepared` and write the table `segments`.

    The table has the frames in the order of their file names, whatever the number of workers.
    """
    image_ids = [frame.image_id for frame in read_frames(prepared, Path.cwd())]
    frames = prediction_files.open_predictions(predictions, image_ids)
    gathered = resume_folder(("segments", params.segments), many=frames.paths)
    gathered.mkdir(parents=True, exist_ok=True)
    # 1. one table per batch, unless a killed run has left it
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
    # 2. one table of all
    table = SegmentTable.concatenate([table_file.read_table(part) for part in parts])
    origin: dict[str, object] = {"network": network, "variant": variant, "dataset": dataset}
    origin |= {"weights_sha256": frames.weights_sha256, "class_names": list(frames.class_names)}
    table_file.write_table(segments, table, origin)
    shutil.rmtree(gathered)
    log({f"segments/{name}": float(count) for name, count in table.counts().items()}, 0)


def _measure(paths: tuple[Path, ...], settings: SegmentsParams, workers: int) -> Iterator[SegmentTable]:
    """Yield the frames' tables in order; threads, as kernel and HDF5 release Python's lock."""
    memory = threading.local()  # each thread reuses the buffers of its last frame

    def measure(path: Path) -> SegmentTable:
        workspace: Workspace = memory.__dict__.setdefault("workspace", Workspace())
        prediction = prediction_files.read_prediction(path, workspace.allocator("logits"))
        given = settings.score, settings.threshold
        return measure_segments(prediction, *given, workspace=workspace, features=settings.features)

    with ThreadPoolExecutor(max(workers, 1)) as pool:
        yield from pool.map(measure, paths)
