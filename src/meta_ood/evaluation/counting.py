"""Counts over the frames of an evaluated set.

Each frame is read and up-sampled once. A second pass is needed only for what depends on the whole set: component
metrics at a threshold that is chosen on this set, the standardised max logit, which needs the mean and deviation of
each class, and thresholds spread over the range of a score without bounds. It reads a file again unless the prediction
was among the first 256 MB, which stay in memory.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar

import numpy as np
import numpy.typing as npt

from meta_ood.config import IN_UNIT_RANGE, EvaluateParams
from meta_ood.data.context import Machine, progress
from meta_ood.data.labels import OOD, LabelMap
from meta_ood.data.prediction_files import read_prediction
from meta_ood.data.predictions import FloatMap, Prediction
from meta_ood.data.registry import lookup, resolve
from meta_ood.data.workers import Item as Work
from meta_ood.data.workers import Job, distribute
from meta_ood.metrics import Floats, Integers, semantic
from meta_ood.metrics.component import TRACKS, Cut, Overlaps, of_mask
from meta_ood.metrics.pixel import PER_IMAGE, RESIZED, ScoreHistogram, Sweep, ThinCounts, sweep
from meta_ood.metrics.thresholds import AtThresholds, spread
from meta_ood.scores import SCORES, PixelMaps, find_score, pixel_maps

Item = TypeVar("Item")
Found = TypeVar("Found")
Visit = Callable[[Prediction, PixelMaps], Any]
Held = dict[Path, Prediction]

HELD = 1 << 28
"""Bytes of predictions that stay in memory for the second pass."""
BATCH = 64
"""Frames that a worker of an engine counts at a time: counts of a frame are as large as those of many."""
STANDARDISED = "standardised_max_logit"
"""A score that needs the statistics of a whole set; the others are those of ``scores.find_score``."""
_OF_STATISTICS = {"max_logit", "arg_max"}  # pixel maps that it is made of


class ClassStatistics(NamedTuple):
    """Mean and deviation of the largest logit over the pixels of each predicted class, ``(C,) float64``."""

    mean: Floats  # 0 for a class that is nowhere predicted
    deviation: Floats  # 1 for such a class

    def standardise(self, maps: PixelMaps) -> FloatMap:
        """Return the negated standardised max logit (Jung et al. 2021): ``(H, W) float32``.

        The statistics are those of the evaluated set itself; no target is used (decision 0045).
        """
        mean, deviation = (v.astype(np.float32) for v in (self.mean, self.deviation))
        return (mean[maps.arg_max] - maps.max_logit) / deviation[maps.arg_max]


class SetCounts:
    """Everything that is counted frame by frame; threads may add at once, in any order.

    Attributes:
        main: Name of the score that segments, components and curves are made of: the first one.
        histograms: Score name -> pixels.
        resized: Score name -> pixels of the frames of :func:`resized` that hold OoD; empty if not asked for.
        thin: Scene -> pixels of the main score, for resampling.
        confusion: Scene -> ``(C, C) int64``.
        overlaps: Name of a cut -> image -> sIoU and PPV of its components and segments.
        reliability: How often the arg max is right at each confidence.
        at_thresholds: Segments, objects and interior pixels at thresholds of the main score.
        visited: Image -> what `visit` of :func:`count_files` returned.
        curve: Sweep of the main score over the whole set; set by :func:`count_files`.
        components: Name -> component metrics of the main score; set by :func:`count_files`.
    """

    curve: Sweep
    components: dict[str, dict[str, Any]]
    reliability: semantic.Reliability
    at_thresholds: AtThresholds

    def __init__(
        self,
        scores: Sequence[str],
        *,
        curves: bool = False,
        resized: bool = False,
        temperature: float = 1.0,
        track: str = "all",
    ) -> None:
        """Start from nothing.

        Args:
            scores: Names as in :func:`meta_ood.scores.find_score`, or :data:`STANDARDISED`; others are a ValueError.
            curves: Keep a curve of every image, for the protocols that need it.
            resized: Count frames at the size of protocol ``resized_512x1024`` too.
            temperature: Divides the logits.
            track: Key of :data:`meta_ood.metrics.component.TRACKS`.
        """
        known = {**SCORES, STANDARDISED: None}  # all of them are listed where a name is unknown
        self._scores = {name: find_score(name) for name in scores if resolve("score", known, name)}
        self._is_standardised = STANDARDISED in scores  # counted in a second pass
        self._temperature, self._curves = temperature, curves
        self._sizes = lookup("track", TRACKS, track)
        self.least = tuple(dict.fromkeys((0, self._sizes[0])))  # [px] sizes of a segment that `at_thresholds` has
        # maps that calibration and confusion need, those of the scores, and those of the statistics
        self._needs = {"first", "arg_max"}.union(*(score.needs for score in self._scores.values()))
        if self._is_standardised:
            self._needs |= _OF_STATISTICS
        self._locks = {name: threading.Lock() for name in ("", *scores)}
        self.main = scores[0]
        self.histograms = {name: ScoreHistogram() for name in scores}
        self.resized = {name: ScoreHistogram() for name in scores} if resized else {}
        self.thin: dict[str, ThinCounts] = {}
        self.confusion: dict[str, Integers] = {}
        # by image, so that sums of floats do not depend on the order of adding; (3, C) each
        self._class_sums: dict[str, list[Floats]] = {}
        self.overlaps: dict[str, dict[str, Overlaps]] = {}
        self.visited: dict[str, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Return what another process adds to its own counts: neither locks nor formulas."""
        return {name: value for name, value in vars(self).items() if name not in ("_locks", "_scores")}

    def __iadd__(self, other: Self) -> Self:
        """Add the counts of other frames, or of a second pass; no thread may add meanwhile."""
        for mine, theirs in ((self.histograms, other.histograms), (self.resized, other.resized)):
            for score, histogram in theirs.items():
                mine[score] += histogram
        for scene, thin in other.thin.items():
            self._add_scene(scene, thin, other.confusion[scene])
        for name in ("reliability", "at_thresholds"):
            if hasattr(other, name):
                self._add_up(name, getattr(other, name))
        self._class_sums |= other._class_sums
        self.visited |= other.visited
        for cut, overlaps in other.overlaps.items():
            self.overlaps.setdefault(cut, {}).update(overlaps)
        return self

    def add(
        self,
        prediction: Prediction,
        cuts: Mapping[str, Cut] | None = None,
        thresholds: Floats | None = None,
        visit: Visit | None = None,
    ) -> None:
        """Count one frame, with segments at known cuts and thresholds; `visit` as in :func:`count_files`.

        Raises:
            ValueError: Wrong target values or NaN; the frame is named.
        """
        given, prediction = prediction, tempered(prediction, self._temperature)
        target, scene = prediction.target, prediction.scene
        classes = prediction.logits.shape[0]
        maps = pixel_maps(prediction, self._needs)
        # 1. every score; thin counts and components of the main one
        for name, score in self._scores.items():
            values = score.unrounded(maps)
            self._add_score(name, values, prediction)
            if name == self.main:
                narrow = values.astype(np.float32, copy=False)
                thin = ThinCounts.of(narrow, target)
                self._add_components(narrow, target, prediction.image_id, cuts or {})
                self._add_at_thresholds(narrow, target, classes, thresholds)
        if (small := self._resized(prediction)) is not None:
            small_maps = pixel_maps(small, self._needs)
            for name, score in self._scores.items():
                self._add_score(name, score.unrounded(small_maps), small, self.resized)
        # 2. known classes
        confusion = semantic.confusion_matrix(maps.arg_max, target, classes)
        reliability = semantic.reliability(maps.first, maps.arg_max, target, classes)
        with self._locks[""]:
            self._add_scene(scene, thin, confusion)
            self._add_up("reliability", reliability)
        # 3. what the standardised max logit will need of the whole set: sums of powers of the largest logits
        if self._is_standardised:
            index, logit = maps.arg_max.ravel(), maps.max_logit.ravel().astype(np.float64)
            sums = [np.bincount(index, logit**power, classes).astype(np.float64) for power in range(3)]
            with self._locks[""]:
                self._class_sums[prediction.image_id] = sums
        if visit:
            self.visited[prediction.image_id] = visit(given, maps)

    def add_again(
        self,
        prediction: Prediction,
        cuts: Mapping[str, Cut],
        statistics: ClassStatistics | None = None,
        thresholds: Floats | None = None,
    ) -> None:
        """Count of one frame what depends on the whole set: standardised max logit, segments at cuts and thresholds."""
        prediction = tempered(prediction, self._temperature)
        score = self._scores[self.main]
        of_score = bool(cuts) or thresholds is not None
        maps = pixel_maps(prediction, {*(_OF_STATISTICS if statistics else ()), *(score.needs if of_score else ())})
        if statistics:
            self._add_score(STANDARDISED, statistics.standardise(maps), prediction)
            if (small := self._resized(prediction)) is not None:
                values = statistics.standardise(pixel_maps(small, _OF_STATISTICS))
                self._add_score(STANDARDISED, values, small, self.resized)
        if of_score:
            values, target, classes = score(maps), prediction.target, prediction.logits.shape[0]
            self._add_components(values, target, prediction.image_id, cuts)
            self._add_at_thresholds(values, target, classes, thresholds)

    def class_statistics(self) -> ClassStatistics:
        """Return the statistics of all frames that were added."""
        count, first, second = np.sum([self._class_sums[i] for i in sorted(self._class_sums)], axis=0)
        mean = first / np.maximum(count, 1)
        variance = np.maximum(second / np.maximum(count, 1) - mean**2, 0)
        return ClassStatistics(mean, np.where(variance > 0, np.sqrt(variance), 1.0))

    def _resized(self, prediction: Prediction) -> Prediction | None:
        """Return the frame at the other size if that is asked for and an OoD pixel is left."""
        small = resized(prediction) if self.resized else None
        return small if small is not None and (small.target == OOD).any() else None

    def _add_score(
        self,
        name: str,
        values: npt.NDArray[np.floating],
        prediction: Prediction,
        histograms: Mapping[str, ScoreHistogram] | None = None,
    ) -> None:
        classes, image = prediction.logits.shape[0], prediction.image_id
        with self._locks[name]:
            try:
                if histograms is None:
                    self.histograms[name].add(values, prediction.target, classes, image, self._curves)
                else:
                    histograms[name].add(values, prediction.target, classes, image)
            except ValueError as error:  # it names the frame
                raise ValueError(f"score {name}: {error}") from None

    def _add_components(self, values: FloatMap, target: LabelMap, image: str, cuts: Mapping[str, Cut]) -> None:
        for name, cut in cuts.items():
            found = of_mask(cut.mask(values, target), target, *self._sizes)
            with self._locks[""]:
                self.overlaps.setdefault(name, {})[image] = found

    def _add_at_thresholds(self, values: FloatMap, target: LabelMap, classes: int, thresholds: Floats | None) -> None:
        if thresholds is None:
            return
        found = AtThresholds.of(values, target, classes, thresholds, self.least)
        with self._locks[""]:
            self._add_up("at_thresholds", found)

    def _add_scene(self, scene: str, thin: ThinCounts, confusion: Integers) -> None:
        self.thin[scene] = self.thin[scene] + thin if scene in self.thin else thin
        self.confusion[scene] = self.confusion.get(scene, 0) + confusion

    def _add_up(self, name: str, found: semantic.Reliability | AtThresholds) -> None:
        setattr(self, name, getattr(self, name) + found if hasattr(self, name) else found)


Start = Callable[[], SetCounts]
Add = Callable[[SetCounts, Prediction], None]


def tempered(prediction: Prediction, temperature: float) -> Prediction:
    """Return the prediction with its logits divided by `temperature`.

    Raises:
        ValueError: If it is a given softmax, which has no logits.
    """
    if temperature == 1:
        return prediction
    if prediction.is_softmax:
        raise ValueError(f"{prediction.image_id}: a given softmax has no temperature")
    return replace(prediction, logits=prediction.logits / np.float32(temperature))


def resized(prediction: Prediction) -> Prediction:
    """Return the prediction for a frame of 512 x 1024: scores at that size, the target by nearest neighbour.

    So evaluates a family of published results (networks that see images at that size); they leave out frames in which
    no OoD pixel is left.

    Raises:
        ValueError: If it is a given softmax, which has one size.
    """
    if prediction.is_softmax:
        raise ValueError(f"{prediction.image_id}: a given softmax has no other size; protocol {RESIZED} needs logits")
    size = (512, 1024)
    # the pixel in which the centre of the new one lies, as Pillow and torchvision take it
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(np.int64) for new, old in zip(size, prediction.size, strict=True)
    )
    return replace(prediction, size=size, target=prediction.target[np.ix_(rows, columns)], label_ids=None)


def count_files(
    paths: Sequence[Path],
    score: str,
    settings: EvaluateParams,
    *,
    threshold: float | None = None,
    machine: Machine | None = None,
    visit: Visit | None = None,
) -> SetCounts:
    """Count stored predictions.

    Args:
        paths: The files.
        score: The main score.
        settings: Other scores, protocols, temperature, and track of components.
        threshold: Of the main score, for components; None takes the best pixel F1 of this very set.
        machine: Number of threads, or of processes of an engine, on which the result does not depend; None: one.
        visit: Called with each prediction and its pixel maps, of the logits divided by the temperature; ``visited``
            has what it returns. For an engine both can be pickled.

    Returns:
        The counts. ``components`` has ``of_score`` and, if ``smiyc`` is among the protocols, ``smiyc``: component
        metrics at SegmentMeIfYouCan's own threshold. Both are empty without OoD pixels.

    Raises:
        ValueError: As :meth:`SetCounts.add`, or if there is no path.
    """
    if not paths:
        raise ValueError("no prediction to count")
    machine = machine or Machine(workers=1)
    start = partial(
        SetCounts,
        tuple(dict.fromkeys((score, *settings.scores))),
        curves=bool({*PER_IMAGE} & {*settings.protocols}),
        resized=RESIZED in settings.protocols,
        temperature=settings.temperature,
        track=settings.component_track,
    )
    counts = start()
    # 1. each frame by itself
    known = {} if threshold is None else {"of_score": Cut("given", threshold)}
    # of a score without bounds, thresholds are spread over what occurs in the set
    thresholds = spread() if score in IN_UNIT_RANGE else None
    held: Held = {}
    add = partial(SetCounts.add, cuts=known, thresholds=thresholds, visit=visit)
    _count_each(counts, start, add, paths, "evaluate", machine, held)

    # 2. thresholds that the whole set decides
    histogram = counts.histograms[score]
    counts.curve = sweep(histogram)
    chosen: dict[str, Cut] = {}
    if histogram.positives:
        if threshold is None:
            chosen["of_score"] = Cut.choose(histogram, counts.curve)
        if "smiyc" in settings.protocols:
            chosen["smiyc"] = Cut.choose(histogram, counts.curve, smiyc=True)  # scores are finite here

    late = None if thresholds is not None else spread(*counts.curve.finite_range())

    # 3. a second pass over the frames, where one is needed
    statistics = counts.class_statistics() if STANDARDISED in counts.histograms else None
    if chosen or statistics or late is not None:
        again = partial(SetCounts.add_again, cuts=chosen, statistics=statistics, thresholds=late)
        _count_each(counts, start, again, paths, "second look", machine, held)

    # 4. component metrics, of the frames in the order of their names
    counts.components = {"of_score": {}}
    for name, cut in (known | chosen).items() if histogram.positives else ():
        parts = counts.overlaps[name]
        whole = Overlaps.concatenate([parts[image] for image in sorted(parts)])
        counts.components[name] = cut.values(settings.component_track, whole)
    return counts


def _count_each(
    counts: SetCounts, start: Start, add: Add, paths: Sequence[Path], what: str, machine: Machine, held: Held
) -> None:
    """Count every file: on threads of this process, or in batches by workers of an engine."""
    if machine.engine == "local":

        def count(path: Path) -> None:
            if (prediction := held.get(path)) is None:
                prediction = read_prediction(path)
                if sum(one.logits.nbytes + one.target.nbytes for one in list(held.values())) < HELD:
                    held[path] = prediction
            add(counts, prediction)

        for_each(count, paths, what, machine.workers)
        return
    items = (Work(f"frames from {paths[k].stem}", paths[k : k + BATCH]) for k in range(0, len(paths), BATCH))
    with progress((), what, len(paths)) as bar:
        for done, part in distribute(Job(_worker, (start, add)), items, machine):
            bar.update(done)
            if part:
                counts += deepcopy(part)  # ray's arrays cannot be written


@contextmanager
def _worker(start: Start, add: Add) -> Iterator[Callable[[Sequence[Path]], Iterator[int | SetCounts]]]:
    """Yield what counts a batch: it yields 1 after each file, and their counts after the last."""

    def do(paths: Sequence[Path]) -> Iterator[int | SetCounts]:
        counts = start()
        for path in paths:
            add(counts, read_prediction(path))
            yield 1
        yield counts

    yield do


def for_each(function: Callable[[Item], Found], items: Sequence[Item], what: str, workers: int) -> list[Found]:
    """Return `function` of every item, on `workers` threads; the first error ends the others."""
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        return list(progress(pool.map(function, items), what, total=len(items)))
