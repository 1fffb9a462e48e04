"""Closed-set metrics: IoU and mean IoU of a confusion matrix, calibration error of confidences."""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from meta_ood.data.labels import LabelMap
from meta_ood.metrics import Floats, Integers

_UNIT = 1 << 30  # confidences are summed as integers, which add up in any order to the same bits


def confusion_matrix(predicted: LabelMap, target: LabelMap, classes: int) -> Integers:
    """Return ``(C, C) int64`` numbers of pixels: row = target, column = predicted. Matrices of frames add up.

    Args:
        predicted: ``(H, W) uint8``, values ``0 .. C-1``.
        target: ``(H, W) uint8``; pixels that hold no train id are left out.
        classes: C.

    Raises:
        ValueError: If the shapes differ or a predicted class is not below C.
    """
    if predicted.shape != target.shape:
        raise ValueError(f"predicted {predicted.shape} and target {target.shape} differ in shape")
    valid = target < classes
    chosen = predicted[valid]
    if chosen.max(initial=0) >= classes:
        raise ValueError(f"predicted class {chosen.max()}; expected below {classes}")
    # one number for each pair of target and prediction
    index = target[valid].astype(np.int64) * classes + chosen
    return np.bincount(index, minlength=classes * classes).reshape(classes, classes)


def class_iou(confusion: Integers) -> Floats:
    """Return the IoU of each class, ``(C,)``; NaN where a class is neither true nor predicted."""
    hits = np.diagonal(confusion).astype(np.float64)
    union = confusion.sum(0) + confusion.sum(1) - hits
    with np.errstate(invalid="ignore"):
        return np.asarray(hits / union)


def mean_iou(confusion: Integers) -> float:
    """Return the mean IoU over the classes that occur in the target; NaN if there is none.

    A class that is only predicted has IoU 0 but is no class of the set; it counts by the pixels that the others lose to
    it (decision 0042).
    """
    present = confusion.sum(1) > 0
    return float(class_iou(confusion)[present].mean()) if present.any() else math.nan


@dataclass(frozen=True)
class Reliability:
    """Accuracy and mean confidence per bin of confidence; additive, exact to 2^-30.

    Attributes:
        pixels, correct: ``(B,) int64`` per bin of confidence, see :func:`calibration_bin`.
        confidence: ``(B,) int64`` summed confidence in units of 2^-30.
    """

    pixels: Integers
    correct: Integers
    confidence: Integers

    def __add__(self, other: Self) -> Self:
        """Return the counts of both."""
        return type(self)(self.pixels + other.pixels, self.correct + other.correct, self.confidence + other.confidence)

    @property
    def error(self) -> float:
        """Expected calibration error: Σ share · |accuracy - mean confidence|; NaN without pixel."""
        total = self.pixels.sum()
        return float(np.abs(self.correct - self.confidence / _UNIT).sum() / total) if total else math.nan

    def curve(self) -> tuple[Floats, Floats, Integers]:
        """Return mean confidence, accuracy and pixels of the bins that hold a pixel."""
        used = self.pixels > 0
        pixels = self.pixels[used]
        return self.confidence[used] / _UNIT / pixels, self.correct[used] / pixels, pixels


def calibration_bin(probability: npt.NDArray[np.floating], bins: int) -> npt.NDArray[np.integer]:
    """Return the bin of each probability: bin b is ``(b / bins, (b + 1) / bins]``, 0 is in bin 0.

    All calibration errors use it. An edge belongs to the bin below, as in Guo et al. (2017) and in scikit-learn's
    ``calibration_curve``.
    """
    return np.searchsorted(np.arange(1, bins) / bins, probability, side="left")


def reliability(
    confidence: npt.NDArray[np.float32], predicted: LabelMap, target: LabelMap, classes: int, bins: int = 15
) -> Reliability:
    """Count by confidence how often the predicted class is right.

    Args:
        confidence: ``(H, W) float32`` in [0, 1]: the largest softmax.
        predicted, target: ``(H, W) uint8``; pixels without train id are left out.
        classes, bins: C and number of equal bins: 15, as in Guo et al. (2017).
    """
    valid = target < classes
    sure = np.clip(confidence[valid].astype(np.float64), 0, 1)
    index = calibration_bin(sure, bins)
    right = predicted[valid] == target[valid]
    units = np.rint(sure * _UNIT)  # sums below 2^53 are exact in float64
    return Reliability(
        np.bincount(index, minlength=bins),
        np.bincount(index[right], minlength=bins),
        np.bincount(index, units, bins).astype(np.int64),
    )
