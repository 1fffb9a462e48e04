"""Promise: the threshold on severity that a budget of false alarms chooses, its file, and whether it still holds.

Which frames choose it: all of ``operating_point.calibrate_on``, sets of ordinary frames that trained neither the
network nor the meta classifier. Their segments are judged by the classifier that is shipped, so that what is promised
is the rate of that classifier. Frames that trained it cannot be used: their out-of-fold judgements come from other
classifiers. docs/operating-point.md says what the promise covers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from meta_ood.config import OperatingPointParams
from meta_ood.data import files
from meta_ood.meta_classification.classifier import Formula
from meta_ood.metrics import Floats, risk
from meta_ood.segments import SegmentTable

NAME = "promise.json"  # the file of a promise
STATISTICS = ("segments", "highest severity", "mean score", "mean size", "mean row")
"""What :func:`frame_statistics` returns."""
QUANTILES = 64  # of each statistic, for the test of drift: enough to see a shift by a quarter of the spread
UNLIKELY = 0.01  # of a promise that holds, or of frames like those of the calibration: a false report in a hundred


class Promise(BaseModel):
    """A threshold on severity, what it promises, and the frames that chose it; rates are per `per`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    threshold: float  # a segment is kept if its severity is at least this
    severity: Formula  # of a segment, see MetaClassifier.severity
    budget: float  # false alarms
    per: Literal["frame", "scene", "minute"]
    confidence: float
    frames_per_minute: float | None = None
    calibrate_on: tuple[str, ...]  # datasets
    unit: Literal["scene", "frame"]  # what can be exchanged
    units: int
    frames: int
    alarms: int  # frames of the calibration with a false alarm
    rate: float
    bound: float  # upper confidence bound of the rate
    tables: dict[str, str] = {}  # dataset -> SHA-256 of its segment table
    # statistic of frames -> its quantiles on the calibration frames, none if no frame has it
    reference: dict[str, tuple[float, ...]] = {}

    @property
    def text(self) -> str:
        """The promise in words."""
        of = {"frame": "of the frames have a false alarm", "scene": "of the scenes have a false alarm"}
        rate = f"{self.budget:g} frames with a false alarm per minute"
        at_most = rate if self.per == "minute" else f"{100 * self.budget:g} % {of[self.per]}"
        return f"at most {at_most}, with confidence {100 * self.confidence:g} %"

    @property
    def limit(self) -> float:
        """The budget as a fraction of frames or scenes."""
        return self.budget / (self.frames_per_minute or 1)

    @classmethod
    def read(cls, path: Path) -> Promise:
        """Read a promise; FileNotFoundError, or ValueError if the file, which is named, is none."""
        try:
            return cls.model_validate_json(files.read_text(path))
        except ValidationError as error:
            first = error.errors()[0]
            raise ValueError(f"{path} is no promise: {'.'.join(map(str, first['loc']))} {first['msg']}") from None


def choose(
    tables: Mapping[str, SegmentTable],
    severities: Mapping[str, Floats],
    settings: OperatingPointParams,
    formula: Formula,
    train_on: Sequence[str] = (),
) -> Promise:
    """Return the lowest threshold on severity that keeps to the budget, see :func:`meta_ood.metrics.risk`.

    `tables` and `severities` ``(S,)``, at least 0 and made by `formula`, are those of all sets by their names. The sets
    in `train_on` trained the meta classifier.

    Raises:
        ValueError: A set has OoD objects, or a scene that trained; there are too few frames or scenes for the promise
            (the message says how many are needed), or all segments are alike.
    """
    trained = {scene for name in train_on for scene in tables[name].scenes}
    false: list[Floats] = []
    units: list[str] = []
    statistics = []
    for name in settings.calibrate_on:
        table, severity = tables[name], severities[name]
        if objects := len(table.component_image):
            raise ValueError(
                f"operating_point.calibrate_on: {name} has {objects} OoD objects; expected a set of ordinary frames, "
                "where every segment is a false alarm"
            )
        if settings.unit == "scene" and (both := sorted(trained & {*table.scenes})):
            raise ValueError(
                f"operating_point.calibrate_on: scenes of {name} are also in sets of meta.train_on "
                f"({', '.join(both[:3])}); scenes that train the meta classifier cannot promise anything about it"
            )
        false += risk.false_severities(table, severity)
        units += _units(name, table, settings.unit)
        statistics.append(table_statistics(table, severity))
    try:
        found = risk.choose_threshold(
            *(false, units, settings.false_alarms, settings.confidence),
            per=settings.per,
            frames_per_minute=settings.frames_per_minute,
        )
    except ValueError as error:
        raise ValueError(f"operating_point on {', '.join(settings.calibrate_on)}: {error}") from None
    sample = risk.quantile_sample(np.concatenate(statistics), QUANTILES)
    reference = {name: column[np.isfinite(column)] for name, column in zip(STATISTICS, sample.T, strict=True)}
    return Promise(
        **asdict(found),
        severity=formula,
        frames_per_minute=settings.frames_per_minute,
        calibrate_on=settings.calibrate_on,
        unit=settings.unit,
        reference={name: tuple(column.round(6).tolist()) for name, column in reference.items()},
    )


def frame_statistics(severity: Floats, score: Floats, size: Floats, row: Floats) -> Floats:
    """Return the ``STATISTICS`` of one frame; all but the number of segments are NaN without a segment.

    Args:
        severity, score, size, row: ``(S,)`` of its segments: severity, mean score, pixels, and row of the box's centre.
    """
    if not len(severity):
        return np.array([0.0, *[np.nan] * (len(STATISTICS) - 1)])
    return np.array([len(severity), np.max(severity), np.mean(score), np.mean(size), np.mean(row)], np.float64)


def table_statistics(table: SegmentTable, severity: Floats) -> Floats:
    """Return ``(N, 5)`` statistics of the frames of a table, see :func:`frame_statistics`."""
    row = table.segment_box[:, [0, 2]].mean(axis=1)
    columns = severity, table.segment_score, table.feature("S"), row
    own = (table.image == index for index in range(len(table.image_ids)))
    return np.array([frame_statistics(*(column[rows] for column in columns)) for rows in own]).reshape(-1, 5)


def outcome(promise: Promise, table: SegmentTable, severity: Floats) -> dict[str, Any]:
    """Return how the promise does on a set: frames with a false alarm, rate, and p-value of the promise.

    The p-value is that of the binomial test, as if units had an alarm or none; it is about ordinary frames, so None
    where the set has OoD objects.
    """
    tops = risk.highest(risk.false_severities(table, severity))
    found = risk.losses(tops, _units("", table, promise.unit), promise.threshold, promise.per)
    ordinary = not len(table.component_image)
    p_value = risk.promise_p_value(round(float(found.sum())), len(found), promise.limit) if ordinary else None
    return {
        "threshold": promise.threshold,
        "severity": promise.severity,
        "budget": promise.budget,
        "per": promise.per,
        "confidence": promise.confidence,
        "text": promise.text,
        "calibration": {key: getattr(promise, key) for key in ("frames", "unit", "units", "alarms", "rate", "bound")},
        "calibrate_on": list(promise.calibrate_on),
        "frames": len(tops),
        "alarms": int((tops >= promise.threshold).sum()),
        "units": len(found),
        "rate": float(found.mean()) * (promise.frames_per_minute or 1),
        "p_value": p_value,
    }


def monitor(promise: Promise, statistics: Floats, alarms: int) -> list[str]:
    """Return a sentence for each reason to distrust the promise on new frames; none if there is no reason.

    Args:
        promise: What was promised.
        statistics: ``(n, 5)``, one row a frame, see :func:`frame_statistics`. Frames that follow each other are alike:
            give one a second or fewer.
        alarms: On how many of them a segment is kept.
    """
    if not len(statistics):
        return []
    sentences = []
    # 1. more alarms than promised; a promise per scene says nothing of single frames
    p_value = risk.promise_p_value(alarms, len(statistics), promise.limit) if promise.per != "scene" else 1.0
    if p_value < UNLIKELY:
        sentences.append(
            f"{alarms} of {len(statistics)} images raise an alarm: unless that many show objects, the promise "
            f"({promise.text}) does not hold here (p = {p_value:.2g})"
        )
    # 2. frames unlike those of the calibration
    size = max(map(len, promise.reference.values()), default=0)
    columns = [promise.reference.get(name) or (np.nan,) * size for name in STATISTICS]
    drift = risk.drift_p_values(statistics, np.array(columns, np.float64).T)
    if changed := [f"{name} (p = {p:.2g})" for name, p in zip(STATISTICS, drift, strict=True) if p < UNLIKELY]:
        sentences.append(
            f"the images are unlike the frames that chose the threshold ({', '.join(promise.calibrate_on)}) in "
            f"{', '.join(changed)}: the promise was made for frames like those"
        )
    return sentences


def froc(
    promise: Promise, tables: Mapping[str, SegmentTable], severities: Mapping[str, Floats], name: str
) -> dict[str, Floats]:
    """Return recall of the objects of set `name` against false alarms on the calibration frames.

    See :func:`meta_ood.metrics.risk.froc`.
    """
    false = [one for key in promise.calibrate_on for one in risk.false_severities(tables[key], severities[key])]
    units = [unit for key in promise.calibrate_on for unit in _units(key, tables[key], promise.unit)]
    return risk.froc(false, units, risk.object_severities(tables[name], severities[name]))


def _units(name: str, table: SegmentTable, unit: str) -> list[str]:
    """Return the unit of each frame of set `name`; a scene that two sets share is one unit."""
    return [f"{name}/{image}" for image in table.image_ids] if unit == "frame" else list(table.scenes)
