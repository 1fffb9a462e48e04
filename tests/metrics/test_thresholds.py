"""Counts at thresholds against SciPy's labelling and distance transforms, threshold by threshold."""

import numpy as np
import pytest
from scipy import ndimage

from meta_ood.data.labels import IGNORE, IN, OOD
from meta_ood.metrics.thresholds import AtThresholds, coarse, interior, interior_counts, spread
from meta_ood.segments import count_segments

CLASSES = 4


def label_maps(seed: int) -> np.ndarray:
    """Blobs of all labels, so that some pixels are far from others and some are not."""
    r = np.random.default_rng(seed)
    small = r.choice(np.uint8([0, 1, 2, 3, IN, OOD, IGNORE]), (9, 11))
    return np.kron(small, np.ones((r.integers(3, 9), 7), np.uint8))


def score_map(seed: int, shape: tuple[int, int]) -> np.ndarray:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).random(shape), 1.5)
    return ((noise - noise.min()) / np.ptp(noise)).astype(np.float32)


@pytest.mark.parametrize("metric", ["chessboard", "euclidean"])
@pytest.mark.parametrize("seed", range(3))
def test_interior_pixels_are_three_pixels_from_every_other_label(seed: int, metric: str) -> None:
    target = label_maps(seed)
    expected = np.zeros(target.shape, bool)
    for label in np.unique(target):
        if metric == "chessboard":
            distance = ndimage.distance_transform_cdt(target == label, "chessboard")
        else:
            distance = ndimage.distance_transform_edt(target == label)
        expected |= distance >= 3
    np.testing.assert_array_equal(interior(target), expected)
    assert 0 < expected.mean() < 1


def test_a_map_of_one_label_is_all_interior() -> None:
    assert interior(np.full((3, 4), 2, np.uint8)).all()


@pytest.mark.parametrize("seed", range(3))
def test_shares_of_classes_at_every_threshold(seed: int) -> None:
    target, thresholds = label_maps(seed), spread()
    score = score_map(seed, target.shape)
    score[::5, ::3] = np.float32(0.7)  # scores that equal a threshold reach it
    counts = AtThresholds.of(score, target, CLASSES, thresholds, (0,))
    columns = counts.interior_columns([f"c{c}" for c in range(CLASSES)])
    assert columns["threshold"][0] == -np.inf
    for c in range(CLASSES):
        inside = score[interior(target) & (target == c)]
        for place, threshold in enumerate(columns["threshold"]):
            assert columns[f"c{c}"][place] == (inside >= np.float32(threshold)).sum()


def test_classes_without_interior_have_no_column() -> None:
    target = np.full((12, 12), IN, np.uint8)
    target[:6] = 1
    found = AtThresholds.of(np.zeros(target.shape, np.float32), target, 3, spread(), (0,))
    assert list(found.interior_columns(["road", "car", "sky"])) == ["threshold", "car"]
    assert interior_counts(np.zeros((5, 5), np.float32), np.full((5, 5), OOD, np.uint8), 3, spread()).sum() == 0


@pytest.mark.parametrize("seed", range(3))
def test_segments_and_found_objects_at_every_threshold(seed: int) -> None:
    target = label_maps(seed)
    score = score_map(seed, target.shape)
    thresholds, least = np.array([0.05, 0.3, 0.55, 0.7, 0.9, 1.5]), (0, 12)
    found = count_segments(score, target, thresholds, least)
    eight = np.ones((3, 3))
    objects, _ = ndimage.label(target == OOD, eight)
    for place, threshold in enumerate(thresholds):
        labels, number = ndimage.label((score >= np.float32(threshold)) & (target != IGNORE), eight)
        for column, size in enumerate(least):
            false = true = 0
            hit: set[int] = set()
            for k in range(1, number + 1):
                if (labels == k).sum() < size:
                    continue
                under = set(objects[labels == k].tolist()) - {0}
                true, false, hit = true + bool(under), false + (not under), hit | under
            assert found[place, column].tolist() == [false, true, len(hit)]
    assert found[0].any()
    assert not found[-1].any()


def test_thresholds_are_evenly_spaced_and_add_up() -> None:
    assert 0.7 in coarse(spread())
    np.testing.assert_allclose(spread(-4, 6)[[0, -1]], [-4 + 0.05, 6 - 0.05])
    target = label_maps(0)
    one, two = (AtThresholds.of(score_map(s, target.shape), target, CLASSES, spread(), (0, 9)) for s in (1, 2))
    rows = (one + two).segment_columns((0, 9))
    assert {len(column) for column in rows.values()} == {2 * 39}
    assert rows["least_size"][:4].tolist() == [0, 9, 0, 9]
    assert rows["false_segments"].sum() == one.segments[..., 0].sum() + two.segments[..., 0].sum()
