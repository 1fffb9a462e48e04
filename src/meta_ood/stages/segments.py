"""Stage `segments`: predictions -> one table of OoD segments, true components and overlaps."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from meta_ood.config import Params
from meta_ood.context import Log, Machine, progress
from meta_ood.predictions import Prediction
from meta_ood.segments import SegmentTable, measure_segments
from meta_ood.storage import open_predictions, read_prediction, write_table

T = TypeVar("T")
R = TypeVar("R")


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

    Frames are measured by `machine.workers` threads (the kernel and HDF5 let go of the
    interpreter); the table has them in file-name order whatever the number of workers.
    """
    frames = open_predictions(predictions)
    settings = params.segments

    def measure(path: Path) -> SegmentTable:
        prediction: Prediction = read_prediction(path)
        return measure_segments(prediction, settings.score, settings.threshold)

    tables = progress(
        _ordered_map(measure, frames.paths, machine.workers), "segments", total=len(frames)
    )
    table = SegmentTable.concatenate(list(tables))
    write_table(
        segments,
        table,
        {
            "network": network,
            "variant": variant,
            "dataset": dataset,
            "weights_sha256": frames.weights_sha256,
        },
    )
    log(
        {
            "segments/segments": float(len(table.image)),
            "segments/false": float(table.is_false.sum()),
            "segments/components": float(len(table.component_image)),
            "segments/missed": float(table.is_missed.sum()),
        },
        0,
    )


def _ordered_map(function: Callable[[T], R], items: Sequence[T], workers: int) -> Iterator[R]:
    """Yield ``function(item)`` in order, at most ``2 * workers`` of them in flight."""
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        pending: deque[Future[R]] = deque()
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) >= 2 * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
