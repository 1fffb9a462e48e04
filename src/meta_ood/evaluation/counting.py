"""Counts of a set of predictions: frame by frame, in any order and by any number of threads."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from meta_ood.data.context import progress
from meta_ood.data.prediction_files import read_prediction
from meta_ood.data.predictions import FloatMap, Prediction
from meta_ood.data.registry import lookup
from meta_ood.metrics import component, semantic
from meta_ood.metrics.pixel import ScoreHistogram, ThinCounts, best_f1, just_below
from meta_ood.scores import SCORES, PixelMaps, Score, pixel_maps

Confusion = npt.NDArray[np.int64]


STANDARDISED = "standardised_max_logit"
"""A score that needs the statistics of a whole set; the others are in ``scores.SCORES``."""


@dataclass(frozen=True)
class ClassStatistics:
    """Largest logit over the pixels of each predicted class.

    Attributes
    ----------
    mean, deviation
        ``(C,) float64``; 0 and 1 for a class that is nowhere predicted.
    """

    mean: npt.NDArray[np.float64]
    deviation: npt.NDArray[np.float64]

    def standardise(self, maps: PixelMaps) -> FloatMap:
        """Return the negated largest logit, standardised by its class: ``(H, W) float32``.

        Standardised max logit (Jung et al. 2021), with the statistics of the evaluated set itself;
        no target is used (decision 0045).
        """
        assert maps.arg_max is not None
        mean, deviation = (v.astype(np.float32) for v in (self.mean, self.deviation))
        return (mean[maps.arg_max] - maps.the("max_logit")) / deviation[maps.arg_max]


def class_statistics(
    paths: Sequence[Path], workers: int = 1, temperature: float = 1.0
) -> ClassStatistics:
    """Collect the statistics of a set of predictions; the number of threads changes nothing."""

    def sums(path: Path) -> npt.NDArray[np.float64]:
        prediction = tempered(read_prediction(path), temperature)
        maps = pixel_maps(prediction, ("max_logit", "arg_max"))
        assert maps.arg_max is not None
        index = maps.arg_max.ravel()
        logit = maps.the("max_logit").ravel().astype(np.float64)
        powers = (np.ones_like(logit), logit, logit * logit)
        classes = prediction.logits.shape[0]
        return np.stack([np.bincount(index, power, classes) for power in powers])

    with ThreadPoolExecutor(max(workers, 1)) as pool:
        found = list(progress(pool.map(sums, paths), "class statistics", total=len(paths)))
    count, first, second = np.sum(found, axis=0)
    mean = first / np.maximum(count, 1)
    variance = np.maximum(second / np.maximum(count, 1) - mean**2, 0)
    return ClassStatistics(mean, np.where(variance > 0, np.sqrt(variance), 1.0))


class Counts:
    """Everything that is counted frame by frame; threads may add at once, in any order.

    Attributes
    ----------
    histograms
        Score name -> pixels.
    thin
        Scene -> pixels of the first score, for resampling.
    confusion
        Scene -> ``(C, C) int64``.
    reliability
        How often the arg max is right at each confidence.
    """

    def __init__(
        self,
        scores: Sequence[str],
        *,
        curves: bool = False,
        temperature: float = 1.0,
        statistics: ClassStatistics | None = None,
    ) -> None:
        """Start from nothing.

        Parameters
        ----------
        scores
            Keys of :data:`meta_ood.scores.SCORES`.
        curves
            Keep a curve of every image, for the protocols that need it.
        temperature
            Divides the logits.
        statistics
            For :data:`STANDARDISED`.
        """
        self._temperature = temperature
        known = dict(SCORES)
        if statistics is not None:
            known[STANDARDISED] = Score(("max_logit", "arg_max"), statistics.standardise)
        self._functions = {name: lookup("score", known, name) for name in scores}
        self._needs = {need for score in self._functions.values() for need in score.needs}
        self._curves = curves
        self._locks = {name: threading.Lock() for name in ("", *scores)}
        self.histograms = {name: ScoreHistogram() for name in scores}
        self.thin: dict[str, ThinCounts] = {}
        self.confusion: dict[str, Confusion] = {}
        self.reliability: semantic.Reliability | None = None

    def add(self, prediction: Prediction) -> None:
        """Count one frame.

        Raises
        ------
        ValueError
            Wrong target values or NaN; the frame is named.
        """
        prediction = tempered(prediction, self._temperature)
        classes, target = prediction.logits.shape[0], prediction.target
        maps = pixel_maps(prediction, sorted({*self._needs, "first", "arg_max"}))
        assert maps.arg_max is not None
        thin: ThinCounts | None = None
        for name, function in self._functions.items():
            score = function(maps)
            with self._locks[name]:
                self.histograms[name].add(score, target, classes, prediction.image_id, self._curves)
            thin = thin or ThinCounts.of(score, target)
        confusion = semantic.confusion_matrix(maps.arg_max, target, classes)
        reliability = semantic.reliability(maps.the("first"), maps.arg_max, target, classes)
        with self._locks[""]:
            scene = prediction.scene
            known = scene in self.confusion
            self.confusion[scene] = self.confusion[scene] + confusion if known else confusion
            if thin is not None:
                self.thin[scene] = self.thin[scene] + thin if known else thin
            self.reliability = self.reliability + reliability if self.reliability else reliability


def tempered(prediction: Prediction, temperature: float) -> Prediction:
    """Return the prediction with its logits divided by `temperature`.

    Raises
    ------
    ValueError
        If a given softmax, which has no logits, shall be tempered.
    """
    if temperature == 1:
        return prediction
    if prediction.is_softmax:
        raise ValueError(f"{prediction.image_id}: a given softmax has no temperature")
    return replace(prediction, logits=prediction.logits / np.float32(temperature))


def count_files(
    paths: Sequence[Path],
    scores: Sequence[str],
    workers: int = 1,
    *,
    curves: bool = False,
    temperature: float = 1.0,
) -> Counts:
    """Count the stored predictions `paths` with `workers` threads; their number changes nothing.

    Other parameters as for :class:`Counts`.

    Raises
    ------
    ValueError
        As :meth:`Counts.add`, or if there is no path.
    """
    if not paths:
        raise ValueError("no prediction to count")
    needed = STANDARDISED in scores
    statistics = class_statistics(paths, workers, temperature) if needed else None
    counts = Counts(scores, curves=curves, temperature=temperature, statistics=statistics)
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        tasks = [pool.submit(lambda path: counts.add(read_prediction(path)), p) for p in paths]
        try:
            for task in progress(as_completed(tasks), "evaluate", total=len(tasks)):
                task.result()
        finally:
            for task in tasks:
                task.cancel()
    return counts


def count_components(
    paths: Sequence[Path],
    score: str,
    histogram: ScoreHistogram,
    track: str,
    given: float | None,
    temperature: float,
    workers: int,
) -> dict[str, Any]:
    """Measure components of the score maps themselves, in a second pass over the predictions.

    Parameters
    ----------
    paths
        Stored predictions.
    score, histogram
        The score and its pixels: they say where the best F1 is.
    track
        Key of :data:`meta_ood.metrics.component.TRACKS`.
    given
        Threshold; None takes the best pixel F1 of this very set, an oracle, and says so.
    temperature
        Divides the logits, as it did for `histogram`.
    workers
        Threads; they change nothing.

    Returns
    -------
    Figures of :class:`meta_ood.metrics.component.ComponentMetrics`, and the threshold that made
    them: ``score > threshold``. Empty without OoD pixels.
    """
    if not histogram.positives:
        return {}
    threshold = just_below(best_f1(histogram).threshold) if given is None else given
    sizes = component.TRACKS[track]
    function = SCORES[score]

    def overlaps(path: Path) -> component.Overlaps:
        prediction = read_prediction(path)
        score_map = function(tempered(prediction, temperature))
        return component.of_map(score_map, prediction.target, threshold, *sizes)

    with ThreadPoolExecutor(max(workers, 1)) as pool:
        found = list(progress(pool.map(overlaps, paths), "components", total=len(paths)))
    whole = component.Overlaps(
        np.concatenate([one.siou for one in found]), np.concatenate([one.ppv for one in found])
    )
    return {
        "track": track,
        "threshold": threshold,
        "threshold_is_oracle": given is None,
        **asdict(component.component_metrics(whole)),
    }
