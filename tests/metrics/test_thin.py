"""Thin counts and resampled scenes."""

import numpy as np
import pytest

from meta_ood.data.labels import IGNORE, IN, OOD
from meta_ood.metrics import bootstrap
from meta_ood.metrics.pixel import ScoreHistogram, ThinCounts, pixel_metrics, resampled_metrics


def scenes(count: int = 6) -> list[tuple[np.ndarray, np.ndarray]]:
    r = np.random.default_rng(8)
    maps = []
    for index in range(count):
        target = r.choice(np.uint8([IN, OOD, IGNORE]), (50, 60), p=[0.85, 0.1, 0.05])
        score = r.normal(size=target.shape) + (target == OOD) * index / 2
        maps.append((score.astype(np.float32), target))
    return maps


def test_resampled_scenes_are_close_to_repeated_maps() -> None:
    maps = scenes()
    weights = np.array([[1, 1, 1, 1, 1, 1], [0, 3, 0, 1, 2, 0], [6, 0, 0, 0, 0, 0]])
    found = resampled_metrics([ThinCounts.of(*one) for one in maps], weights)
    for index, weight in enumerate(weights):
        histogram = ScoreHistogram()
        for one, times in zip(maps, weight, strict=True):
            for _ in range(times):
                histogram.add(*one)
        m = pixel_metrics(histogram)
        assert found["auroc"][index] == pytest.approx(m.auroc, abs=2e-4)
        assert found["auprc"][index] == pytest.approx(m.auprc, abs=2e-3)
        assert found["fpr95"][index] == pytest.approx(m.fpr95, abs=2e-3)


def test_thin_counts_add_up_and_hold_every_pixel() -> None:
    maps = scenes(2)
    a, b = (ThinCounts.of(*one) for one in maps)
    both = a + b
    rows = ThinCounts.of(*(np.concatenate(parts) for parts in zip(*maps, strict=True)))
    np.testing.assert_array_equal(both.cells, rows.cells)
    np.testing.assert_array_equal(both.counts, rows.counts)
    target = np.concatenate([one[1] for one in maps])
    assert both.counts.sum(1).tolist() == [(target == IN).sum(), (target == OOD).sum()]


def test_scenes_without_ood_alone_are_undefined() -> None:
    score, target = scenes(1)[0]
    plain = np.where(target == OOD, IN, target).astype(np.uint8)
    thin = [ThinCounts.of(score, plain), ThinCounts.of(score, target)]
    found = resampled_metrics(thin, np.array([[2, 0], [1, 1]]))
    assert np.isnan(found["auroc"]).tolist() == [True, False]


def test_resampling_is_a_bootstrap() -> None:
    weights = bootstrap.resample(7, 4000, seed=3)
    assert (weights.sum(axis=1) == 7).all()
    assert weights.mean(axis=0) == pytest.approx(np.ones(7), abs=0.08)
    assert weights.var(axis=0) == pytest.approx(np.full(7, 6 / 7), abs=0.12)
    np.testing.assert_array_equal(weights[:9], bootstrap.resample(7, 9, seed=3))
    assert not np.array_equal(weights[:9], bootstrap.resample(7, 9, seed=4))


def test_interval_covers_a_mean() -> None:
    r = np.random.default_rng(0)
    hits = 0
    for trial in range(200):
        values = r.normal(size=40)
        means = bootstrap.resample(40, 300, trial) @ values / 40
        low, high = bootstrap.interval(means)
        hits += low <= 0 <= high
    assert 175 <= hits <= 199


def test_interval_of_undefined_replicates() -> None:
    values = np.array([0.5, np.nan, np.nan])
    assert np.isnan(bootstrap.interval(values)).all()
    assert bootstrap.interval(np.array([0.5, 0.5, np.nan])) == (0.5, 0.5)
