"""Counting predictions: temperature, and what goes wrong."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import average_precision_score, roc_auc_score
from torch.nn.functional import interpolate

from meta_ood.config import EvaluateParams
from meta_ood.data.context import Machine
from meta_ood.data.labels import IN, OOD
from meta_ood.data.prediction_files import read_prediction, write_prediction
from meta_ood.data.predictions import Prediction
from meta_ood.evaluation.counting import STANDARDISED, SetCounts, count_files, resized, tempered
from meta_ood.metrics.pixel import pixel_metrics
from meta_ood.metrics.pixel.protocols import published_metrics
from meta_ood.scores import SCORES, Score
from meta_ood.segments import label_map, measure_segments


def prediction(seed: int = 0) -> Prediction:
    r = np.random.default_rng(seed)
    target = r.choice(np.uint8([0, 1, IN, OOD]), (20, 30))
    logits = 4 * r.standard_normal((3, 20, 30)).astype(np.float32)
    return Prediction(f"f{seed}", logits, (20, 30), True, target, f"s{seed}")


def counted(temperature: float) -> SetCounts:
    counts = SetCounts(("max_softmax", "max_logit"), temperature=temperature)
    counts.add(prediction())
    return counts


def test_temperature_divides_the_logits() -> None:
    one, two = counted(1), counted(2.5)
    by_hand = Prediction(**{**vars(prediction()), "logits": prediction().logits / np.float32(2.5)})
    expected = SetCounts(("max_softmax", "max_logit"))
    expected.add(by_hand)
    for name in one.histograms:
        assert two.histograms[name] == expected.histograms[name]
        assert two.histograms[name] != one.histograms[name]
    a, b = (pixel_metrics(c.histograms["max_logit"]).auroc for c in (one, two))
    assert a == pytest.approx(b, abs=1e-12)  # scaling keeps the order
    assert two.reliability.error < one.reliability.error  # random logits are overconfident
    np.testing.assert_array_equal(one.confusion["s0"], two.confusion["s0"])


def test_standardised_max_logit_by_hand(tmp_path: Path) -> None:
    for seed in range(3):
        path = tmp_path / f"f{seed}.h5"
        write_prediction(path, prediction(seed), class_names="abc", network="n", weights_sha256="0")
    paths = sorted(tmp_path.glob("*.h5"))
    stored = [read_prediction(path) for path in paths]
    logits = np.stack([one.logits for one in stored]).astype(np.float64)  # (N, C, H, W)
    winner, best = logits.argmax(1), logits.max(1)
    score = np.zeros(best.shape)
    for c in range(3):
        chosen = best[winner == c]
        score[winner == c] = (chosen.mean() - chosen) / chosen.std()
    target = np.stack([one.target for one in stored])
    settings = EvaluateParams(scores=["max_logit", STANDARDISED])
    found = count_files(paths, "entropy", settings, machine=Machine("cpu", 2))
    m = pixel_metrics(found.histograms[STANDARDISED])
    assert m.auroc == pytest.approx(roc_auc_score(target.ravel() == OOD, score.ravel()), abs=1e-5)
    np.testing.assert_allclose(found.class_statistics().mean, [best[winner == c].mean() for c in range(3)], rtol=1e-6)


def test_the_main_score_is_counted_where_no_other_is_named(tmp_path: Path) -> None:
    path = tmp_path / "f.h5"
    write_prediction(path, prediction(), class_names="abc", network="n", weights_sha256="0")
    alone, named = (count_files([path], "entropy", EvaluateParams(scores=s, protocols=())) for s in ((), ("entropy",)))
    assert alone.histograms == named.histograms
    assert alone.components == named.components


def test_a_softmax_has_no_temperature() -> None:
    softmax = Prediction.from_softmax("a", np.full((2, 3, 3), 0.5), np.zeros((3, 3), np.uint8))
    assert tempered(softmax, 1) is softmax
    with pytest.raises(ValueError, match="a: a given softmax has no temperature"):
        tempered(softmax, 2)


def test_scenes_are_kept_apart() -> None:
    counts = SetCounts(("max_softmax",))
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
        count_files([], "entropy", EvaluateParams())
    with pytest.raises(ValueError, match=r"unknown score 'nonsense'.*standardised_max_logit"):
        SetCounts(("nonsense",))


def test_an_own_score_in_float64_is_binned_unrounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything but protocol published takes the float32 of it."""
    formula = SCORES["entropy"].formula
    own = Score(("entropy",), lambda maps: np.round(formula(maps).astype(np.float64), 2))
    monkeypatch.setitem(SCORES, "own", own)
    path = tmp_path / "f.h5"
    write_prediction(path, prediction(), class_names="abc", network="n", weights_sha256="0")
    found = count_files([path], "own", EvaluateParams(scores=["entropy"], protocols=["published"]), threshold=0.3)
    stored = read_prediction(path)
    score, is_ood = own.unrounded(stored), stored.target == OOD
    counts = (np.histogram(score[label], 100, (0, 1))[0].astype(np.float64) for label in (~is_ood, is_ood))
    expected = published_metrics(*counts)
    m = pixel_metrics(found.histograms["own"], "published")
    assert {name: getattr(m, name) for name in expected} == expected
    narrow = score.astype(np.float32)
    assert own(stored).dtype == np.float32
    np.testing.assert_array_equal(found.curve.thresholds, np.unique(narrow)[::-1])
    segments = measure_segments(stored, "own", 0.3).segment_score.size
    assert segments == label_map(narrow >= np.float32(0.3)).max()


def test_frames_are_evaluated_at_512x1024(tmp_path: Path) -> None:
    r = np.random.default_rng(4)
    labels: list[np.ndarray] = []
    scores: list[np.ndarray] = []
    # of other shapes, one without OoD; logits at the very size and smaller ones
    cases = [((72, 128), (128, 256)), ((1024, 2048), (512, 1024)), ((720, 1280), (32, 64)), ((60, 90), (30, 45))]
    for number, (size, small) in enumerate(cases):
        target = np.kron(r.choice(np.uint8([0, 1, IN, 255]), (6, 6)), np.ones((size[0] // 6, size[1] // 6), np.uint8))
        target = np.pad(target, [(0, size[0] - target.shape[0]), (0, size[1] - target.shape[1])])
        if number != 3:
            target[size[0] // 3 : size[0] // 2, size[1] // 4 : size[1] // 3] = OOD
        logits = r.standard_normal((3, *small)).astype(np.float32)
        one = Prediction(f"f{number}", logits, size, False, target, "s")
        write_prediction(tmp_path / f"f{number}.h5", one, class_names="abc", network="n", weights_sha256="0")
        logits = read_prediction(tmp_path / f"f{number}.h5").logits
        full = interpolate(torch.from_numpy(logits)[None], (512, 1024), mode="bilinear", align_corners=False)[0]
        if number != 3:  # the published code leaves it out
            labels.append(np.asarray(Image.fromarray(target).resize((1024, 512), Image.Resampling.NEAREST)).ravel())
            scores.append(1 - full.softmax(0).max(0).values.numpy().ravel())
    y, score = np.concatenate(labels), np.concatenate(scores)
    settings = EvaluateParams(scores=["max_softmax", STANDARDISED], protocols=["resized_512x1024"])
    counts = count_files(sorted(tmp_path.glob("*.h5")), "max_softmax", settings)
    found = pixel_metrics(counts.resized["max_softmax"], "resized_512x1024")
    assert found.frames == 3
    assert found.positives == (y == OOD).sum()
    assert found.ignored == (y == 255).sum()
    seen = y != 255
    assert found.auroc == pytest.approx(roc_auc_score(y[seen] == OOD, score[seen]), abs=1e-6)
    assert found.auprc == pytest.approx(average_precision_score(y[seen] == OOD, score[seen]), abs=1e-6)
    other = counts.resized[STANDARDISED]
    assert (other.positives, other.frames) == (found.positives, 3)
    assert counts.histograms["max_softmax"].frames == 4


def test_a_softmax_has_no_other_size() -> None:
    softmax = Prediction.from_softmax("a", np.full((2, 3, 3), 0.5), np.zeros((3, 3), np.uint8))
    with pytest.raises(ValueError, match="a: a given softmax has no other size"):
        resized(softmax)
