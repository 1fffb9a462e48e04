"""Counts of a set of predictions: frame by frame, in any order and by any number of threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from meta_ood.context import progress
from meta_ood.labels import lookup
from meta_ood.metrics import semantic
from meta_ood.metrics.pixel import ScoreHistogram
from meta_ood.predictions import Prediction
from meta_ood.scores import SCORES, pixel_maps
from meta_ood.storage import read_prediction

T = TypeVar("T")
R = TypeVar("R")


@dataclass
class Counts:
    """Everything that is counted frame by frame; adds up in place, in any order to the same.

    Attributes
    ----------
    histograms
        Score name -> pixels.
    confusion
        ``(C, C) int64``.
    reliability
        How often the arg max is right at each confidence.
    """

    histograms: dict[str, ScoreHistogram]
    confusion: npt.NDArray[np.int64]
    reliability: semantic.Reliability

    def __iadd__(self, other: Counts) -> Counts:
        """Add the frames of `other`."""
        for name in self.histograms:
            self.histograms[name] += other.histograms[name]
        self.confusion = self.confusion + other.confusion
        self.reliability = self.reliability + other.reliability
        return self


def count_frame(prediction: Prediction, scores: Sequence[str]) -> Counts:
    """Count one frame.

    Parameters
    ----------
    prediction
        Logits and target.
    scores
        Keys of :data:`meta_ood.scores.SCORES`.

    Raises
    ------
    ValueError
        Unknown score; wrong target values; NaN. The frame is named.
    """
    functions = {name: lookup("score", SCORES, name) for name in scores}
    classes = prediction.logits.shape[0]
    maps = pixel_maps(prediction)
    target, name = prediction.target, prediction.image_id
    return Counts(
        {
            key: ScoreHistogram().add(function(maps), target, classes, name)
            for key, function in functions.items()
        },
        semantic.confusion_matrix(maps.arg_max, target, classes),
        semantic.reliability(maps.first, maps.arg_max, target, classes),
    )


def count_files(paths: Sequence[Path], scores: Sequence[str], workers: int) -> Counts:
    """Count the stored predictions `paths` with `workers` threads.

    Raises
    ------
    ValueError
        As :func:`count_frame`, or if there is no path.
    """
    if not paths:
        raise ValueError("no prediction to count")
    total: Counts | None = None
    counted = ordered_map(lambda path: count_frame(read_prediction(path), scores), paths, workers)
    for counts in progress(counted, "evaluate", total=len(paths)):
        if total is None:
            total = counts
        else:
            total += counts
    assert total is not None
    return total


def ordered_map(function: Callable[[T], R], items: Sequence[T], workers: int) -> Iterator[R]:
    """Yield ``function(item)`` in order, at most ``2 * workers`` of them in flight."""
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        pending: deque[Future[R]] = deque()
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) >= 2 * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
