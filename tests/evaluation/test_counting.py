"""Counting predictions: temperature, and what goes wrong."""

import numpy as np
import pytest

from meta_ood import evaluation
from meta_ood.evaluation.counting import Counts, tempered
from meta_ood.labels import IN, OOD
from meta_ood.metrics.pixel import pixel_metrics
from meta_ood.predictions import Prediction


def prediction(seed: int = 0) -> Prediction:
    r = np.random.default_rng(seed)
    target = r.choice(np.uint8([0, 1, IN, OOD]), (20, 30))
    logits = 4 * r.standard_normal((3, 20, 30)).astype(np.float32)
    return Prediction(f"f{seed}", logits, (20, 30), True, target, f"s{seed}")


def counted(temperature: float) -> Counts:
    counts = Counts(("max_softmax", "max_logit"), temperature=temperature)
    counts.add(prediction())
    return counts


def test_temperature_divides_the_logits() -> None:
    one, two = counted(1), counted(2.5)
    by_hand = Prediction(**{**vars(prediction()), "logits": prediction().logits / np.float32(2.5)})
    expected = Counts(("max_softmax", "max_logit"))
    expected.add(by_hand)
    for name in one.histograms:
        assert two.histograms[name] == expected.histograms[name]
        assert two.histograms[name] != one.histograms[name]
    a, b = (pixel_metrics(c.histograms["max_logit"]).auroc for c in (one, two))
    assert a == pytest.approx(b, abs=1e-12)  # scaling keeps the order
    assert one.reliability is not None
    assert two.reliability is not None
    assert two.reliability.error < one.reliability.error  # random logits are overconfident
    np.testing.assert_array_equal(one.confusion["s0"], two.confusion["s0"])


def test_a_softmax_has_no_temperature() -> None:
    softmax = Prediction.from_softmax("a", np.full((2, 3, 3), 0.5), np.zeros((3, 3), np.uint8))
    assert tempered(softmax, 1) is softmax
    with pytest.raises(ValueError, match="a: a given softmax has no temperature"):
        tempered(softmax, 2)


def test_scenes_are_kept_apart() -> None:
    counts = Counts(("max_softmax",))
    for seed in range(3):
        counts.add(prediction(seed))
    counts.add(prediction(0))
    assert sorted(counts.thin) == sorted(counts.confusion) == ["s0", "s1", "s2"]
    histogram = counts.histograms["max_softmax"]
    total = sum(thin.counts.sum() for thin in counts.thin.values())
    assert total == histogram.positives + histogram.negatives
    assert counts.thin["s0"].counts.sum() == 2 * counted(1).thin["s0"].counts.sum()


def test_nothing_to_count() -> None:
    with pytest.raises(ValueError, match="no prediction"):
        evaluation.count_files([], ("entropy",))
    with pytest.raises(ValueError, match="unknown score 'nonsense'"):
        Counts(("nonsense",))
