"""Closed-set metrics against scikit-learn and against values by hand."""

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import confusion_matrix as sklearn_confusion
from sklearn.metrics import jaccard_score

from meta_ood.data.labels import IGNORE, IN, OOD
from meta_ood.metrics.semantic import calibration_bin, class_iou, confusion_matrix, mean_iou, reliability


def maps(classes: int = 6) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    r = np.random.default_rng(1)
    target = r.integers(0, classes - 1, (30, 40)).astype(np.uint8)
    predicted = np.where(r.random(target.shape) < 0.7, target, r.integers(0, classes, (30, 40)))
    target[:2], target[2:4], target[4] = IGNORE, IN, OOD
    return predicted.astype(np.uint8), target, r.random((30, 40)).astype(np.float32)


def test_as_scikit_learn() -> None:
    predicted, target, _ = maps()
    confusion = confusion_matrix(predicted, target, 6)
    valid = target < 6
    y, p = target[valid], predicted[valid]
    np.testing.assert_array_equal(confusion, sklearn_confusion(y, p, labels=range(6)))
    expected = jaccard_score(y, p, labels=range(6), average=None)
    np.testing.assert_allclose(class_iou(confusion), expected, atol=1e-15)
    assert mean_iou(confusion) == pytest.approx(expected[:5].mean())  # class 5 is never true


def test_matrices_add_up() -> None:
    predicted, target, _ = maps()
    parts = [confusion_matrix(predicted[i::3], target[i::3], 6) for i in range(3)]
    np.testing.assert_array_equal(sum(parts), confusion_matrix(predicted, target, 6))


def test_nothing_to_count() -> None:
    nothing = np.full((3, 3), IGNORE, np.uint8)
    confusion = confusion_matrix(np.zeros((3, 3), np.uint8), nothing, 4)
    assert confusion.sum() == 0
    assert np.isnan(mean_iou(confusion))
    assert np.isnan(class_iou(confusion)).all()
    assert np.isnan(reliability(np.ones((3, 3), np.float32), nothing * 0, nothing, 4).error)


def test_what_is_wrong_is_said() -> None:
    predicted, target, _ = maps()
    with pytest.raises(ValueError, match="differ in shape"):
        confusion_matrix(predicted[1:], target, 6)
    with pytest.raises(ValueError, match="expected below 5"):
        confusion_matrix(predicted, np.zeros_like(target), 5)


def test_calibration_error_bin_by_bin() -> None:
    predicted, target, confidence = maps()
    confidence[0, :3] = 0, 1, 1
    found = reliability(confidence, predicted, target, 6, bins=10)
    valid = target < 6
    error = 0.0
    for b in range(10):
        low, high = b / 10, (b + 1) / 10
        inside = valid & (confidence > low) & (confidence <= high)
        if inside.any():
            accuracy = (predicted == target)[inside].mean()
            mean = confidence[inside].astype(np.float64).mean()
            error += inside.sum() / valid.sum() * abs(accuracy - mean)
    assert found.error == pytest.approx(error, abs=1e-8)
    mean, accuracy, pixels = found.curve()
    assert pixels.sum() == valid.sum()
    assert ((mean >= 0) & (mean <= 1) & (accuracy >= 0) & (accuracy <= 1)).all()


@pytest.mark.parametrize("bins", [3, 10, 15, 100])
def test_a_probability_on_an_edge_lies_in_the_bin_below(bins: int) -> None:
    edges = [edge / bins for edge in range(bins + 1)]
    assert calibration_bin(np.array(edges), bins).tolist() == [0, *range(bins)]
    above = np.nextafter(np.array(edges[:-1]), 1)
    assert calibration_bin(above, bins).tolist() == list(range(bins))
    r = np.random.default_rng(0)
    p = np.append(r.random(500), edges)
    y = r.random(p.size) < p
    observed, predicted = calibration_curve(y, p, n_bins=bins)
    index = calibration_bin(p, bins)
    assert predicted == pytest.approx([p[index == b].mean() for b in np.unique(index)])
    assert observed == pytest.approx([y[index == b].mean() for b in np.unique(index)])


def test_reliability_adds_up_in_any_order() -> None:
    predicted, target, confidence = maps()
    parts = [reliability(confidence[i::4], predicted[i::4], target[i::4], 6, bins=7) for i in range(4)]
    a = parts[0] + parts[1] + parts[2] + parts[3]
    b = parts[3] + (parts[1] + parts[2]) + parts[0]
    for name in ("pixels", "correct", "confidence"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    whole = reliability(confidence, predicted, target, 6, bins=7)
    np.testing.assert_array_equal(a.confidence, whole.confidence)


def test_perfectly_calibrated_and_overconfident() -> None:
    target = np.array([[0, 0, 0, 1]], np.uint8)
    predicted = np.zeros_like(target)
    assert reliability(np.full((1, 4), 0.75, np.float32), predicted, target, 2).error == 0
    sure = reliability(np.ones((1, 4), np.float32), predicted, target, 2)
    assert sure.error == pytest.approx(0.25)
