"""Stage `evaluate`: predictions, segments and meta classification -> figures, curves, pictures."""

from __future__ import annotations

import json
import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from meta_ood import evaluation
from meta_ood.config import Params
from meta_ood.context import Log, Machine, progress
from meta_ood.frames import read_frames
from meta_ood.storage import open_predictions, read_prediction, read_table

T = TypeVar("T")
R = TypeVar("R")
logger = logging.getLogger(__name__)


def run(
    params: Params,
    *,
    network: str,
    variant: str,
    dataset: str,
    prepared: Path,
    predictions: Path,
    segments: Path,
    meta: Path,
    metrics: Path,
    curves: Path,
    pictures: Path,
    log: Log,
    machine: Machine,
) -> None:
    """Evaluate one network and variant on one dataset.

    Writes metrics.json, one CSV a curve, and pictures of some frames. Frames are counted by
    `machine.workers` threads; the result does not depend on their number.
    """
    settings = params.evaluate
    score, threshold = params.segments.score, params.segments.threshold
    folder = open_predictions(predictions)
    table = read_table(segments)
    names = [path.stem for path in folder.paths]
    if list(table.image_ids) != names:
        raise ValueError(f"{segments} is of other frames than {predictions}: run `segments` again")
    probability, removed = evaluation.read_removed(meta, table)
    names = list(dict.fromkeys((score, *settings.scores)))

    total: evaluation.Counts | None = None
    counted = _ordered_map(
        lambda path: evaluation.count_frame(read_prediction(path), names),
        folder.paths,
        machine.workers,
    )
    for counts in progress(counted, "evaluate", total=len(folder)):
        if total is None:
            total = counts
        else:
            total += counts
    assert total is not None
    figures = evaluation.measure(total, table, removed, score=score, protocols=settings.protocols)
    keys = {"network": network, "variant": variant, "dataset": dataset}
    provenance = {"split": params.dataset_params(dataset).split, "weights": folder.weights_sha256}
    values = evaluation.plain({**keys, **provenance, **figures})

    curves.mkdir(parents=True, exist_ok=True)
    for stem, columns in evaluation.curve_tables(total, table, probability, score).items():
        evaluation.write_columns(curves / f"{stem}.csv", columns)
    pictures.mkdir(parents=True, exist_ok=True)
    frames = {frame.image_id: frame for frame in read_frames(prepared, Path.cwd())}
    for index in evaluation.choose_pictures(table, settings.pictures):
        prediction = folder[index]
        evaluation.write_pictures(
            pictures,
            prediction,
            frames[prediction.image_id].image,
            removed[table.image == index],
            score,
            threshold,
        )
    temporary = metrics.with_name(f"{metrics.name}.tmp")
    temporary.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    temporary.replace(metrics)
    log({f"evaluate/{k}": v for k, v in values.items() if isinstance(v, int | float)}, 0)


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
