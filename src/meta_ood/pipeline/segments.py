"""Stage `segments`: predictions -> one table of OoD segments, true components and overlaps."""

import itertools
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from meta_ood.config import Params, SegmentsParams
from meta_ood.data import prediction_files
from meta_ood.data.context import Log, Machine, progress
from meta_ood.data.files import resume_folder
from meta_ood.data.frames import read_frames
from meta_ood.data.workers import Item, Job, distribute
from meta_ood.scores.maps import Workspace
from meta_ood.segments import SegmentTable, measure_segments, table_file

BATCH = 64  # frames per file in the resume folder: at most so many are measured again after a kill
Batch = tuple[Path, tuple[Path, ...]]  # the table to write, and the predictions that it is of


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
    starts = range(0, len(frames), BATCH)
    batches = [(gathered / f"{start:06d}.h5", frames.paths[start : start + BATCH]) for start in starts]
    waiting = [batch for batch in batches if not batch[0].is_file()]
    done = len(frames) - sum(len(paths) for _, paths in waiting)
    with progress([], f"segments {network} {variant} {dataset}", len(frames)) as bar:
        bar.update(done)
        if machine.engine == "local":
            with _worker(params.segments, machine.workers) as do:
                for more in itertools.chain.from_iterable(map(do, waiting)):
                    bar.update(more or 0)
        else:
            items = (Item(batch[0].stem, batch) for batch in waiting)
            for more, _ in distribute(Job(_worker, (params.segments, 1)), items, machine):
                bar.update(more)
    # 2. one table of all
    table = SegmentTable.concatenate([table_file.read_table(part) for part, _ in batches])
    origin: dict[str, object] = {"network": network, "variant": variant, "dataset": dataset}
    origin |= {"weights_sha256": frames.weights_sha256, "class_names": list(frames.class_names)}
    table_file.write_table(segments, table, origin)
    shutil.rmtree(gathered)
    log({f"segments/{name}": float(count) for name, count in table.counts().items()}, 0)


@contextmanager
def _worker(settings: SegmentsParams, threads: int) -> Iterator[Callable[[Batch], Iterator[int | None]]]:
    """Yield what writes the table of a batch, in the order of its frames, and yields 1 for each, then None.

    It uses threads, as kernel and HDF5 release Python's lock.
    """
    memory = threading.local()  # each thread reuses the buffers of its last frame

    def measure(path: Path) -> SegmentTable:
        workspace: Workspace = memory.__dict__.setdefault("workspace", Workspace())
        prediction = prediction_files.read_prediction(path, workspace.allocator("logits"))
        given = settings.score, settings.threshold
        return measure_segments(prediction, *given, workspace=workspace, features=settings.features)

    def do(batch: Batch) -> Iterator[int | None]:
        tables = []
        for table in pool.map(measure, batch[1]):
            tables.append(table)
            yield 1
        table_file.write_table(batch[0], SegmentTable.concatenate(tables), {})
        yield None

    with ThreadPoolExecutor(max(threads, 1)) as pool:
        yield do
