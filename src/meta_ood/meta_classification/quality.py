"""Quality of probabilities of being a false positive: ranking, calibration, operating point.

scikit-learn is imported where it is used: whoever applies a classifier to an image imports this module too.
"""

import math
from dataclasses import dataclass

import numpy as np

from meta_ood.metrics import Flags, Floats, Integers
from meta_ood.metrics.semantic import calibration_bin


def auroc(probability: Floats, false: Flags) -> float:
    """Return the area under the ROC curve, with false segments as positives; NaN if all are of one class."""
    from sklearn.metrics import roc_auc_score

    one_class = false.all() or not false.any()
    return math.nan if one_class else float(roc_auc_score(false, probability))


def auprc(probability: Floats, false: Flags) -> float:
    """Return average precision, with false segments as positives; NaN if there is none."""
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(false, probability)) if false.any() else math.nan


def brier(probability: Floats, false: Flags) -> float:
    """Return the mean squared error of the probabilities, in [0, 1]; NaN if there is no segment."""
    from sklearn.metrics import brier_score_loss

    return float(brier_score_loss(false, probability)) if len(false) else math.nan


def rounded(value: float, digits: int) -> float | None:
    """Return a rounded value for a JSON file; None for NaN."""
    return None if math.isnan(value) else round(value, digits)


@dataclass(frozen=True)
class Calibration:
    """Reliability diagram: predicted against observed frequency, in B bins of the probability that hold segments."""

    count: Integers  # (B,) segments
    predicted: Floats  # (B,) their mean probability
    observed: Floats  # (B,) fraction of them that is false

    @property
    def error(self) -> float:
        """Expected calibration error: mean ``|predicted - observed|``, weighted by count; NaN without segments."""
        gap = np.abs(self.predicted - self.observed)
        return float(np.average(gap, weights=self.count)) if len(gap) else math.nan


def calibration(probability: Floats, false: Flags, bins: int = 10) -> Calibration:
    """Return the reliability diagram with `bins` bins of equal width, empty ones left out.

    A probability on the edge of two bins counts to the lower one, see :func:`calibration_bin`.
    """
    bin_of = calibration_bin(probability, bins)
    _, inverse, count = np.unique(bin_of, return_inverse=True, return_counts=True)
    predicted, observed = (np.bincount(inverse, of) / count for of in (probability, false))
    return Calibration(count, predicted, observed)


def operating_point_for_max_lost(probability: Floats, false: Flags, max_lost: float) -> float:
    """Return the lowest operating point that removes at most a fraction of the true segments.

    Segments whose `probability` ``(S,)`` is above the point are removed; at most `max_lost` in [0, 1] of those that are
    not `false` ``(S,) bool`` may be. 0 without a true segment, where nothing can be lost.
    """
    falling = np.sort(probability[~false])[::-1]
    # 0.3 of 10 segments is 2.999… in float64 and means 3
    allowed = int(np.floor(max_lost * len(falling) + 1e-9))
    return float(falling[allowed]) if allowed < len(falling) else 0.0
