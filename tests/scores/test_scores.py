from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import logsumexp, softmax
from scipy.stats import entropy
from torch.nn.functional import interpolate

from meta_ood.data.predictions import Prediction
from meta_ood.scores import SCORES, score_maps
from meta_ood.scores.maps import pixel_maps
from meta_ood.segments import measure_segments

LOGITS = (3 * np.random.default_rng(0).standard_normal((19, 6, 9))).astype(np.float32)
FRAME = Prediction("x", LOGITS, (6, 9), True, np.zeros((6, 9), np.uint8))
P = softmax(LOGITS.astype(np.float64), axis=0)
TWO = np.sort(P, axis=0)[-2:]
EXPECTED = {
    "entropy": entropy(P, axis=0) / np.log(19),
    "max_softmax": 1 - TWO[1],
    "margin": 1 - TWO[1] + TWO[0],
    "max_logit": -LOGITS.max(0),
    "energy": -logsumexp(LOGITS.astype(np.float64), axis=0),
    "generalised_entropy": ((P * (1 - P)) ** 0.1).mean(0),
}
OF_LOGITS = [name for name, own in SCORES.items() if own.source == "logits"]


def test_every_score_has_an_oracle() -> None:
    assert set(EXPECTED) == set(OF_LOGITS)


@pytest.mark.parametrize("name", OF_LOGITS)
def test_scores_are_those_of_scipy(name: str) -> None:
    together = score_maps(FRAME, OF_LOGITS)
    for values in (SCORES[name](FRAME), SCORES[name](pixel_maps(FRAME)), together[name]):
        assert values.dtype == np.float32
        np.testing.assert_allclose(values, EXPECTED[name], rtol=0, atol=5e-6)


@pytest.mark.parametrize("name", OF_LOGITS)
def test_a_flat_softmax_scores_higher_than_a_sure_one(name: str) -> None:
    logits = np.zeros((19, 1, 2), np.float32)
    logits[4, 0, 1] = 9
    values = SCORES[name](Prediction("x", logits, (1, 2), True, np.zeros((1, 2), np.uint8)))
    assert values[0, 0] > values[0, 1]


@pytest.mark.parametrize("name", ["max_logit", "energy"])
def test_scores_of_logits_do_not_take_a_softmax(name: str) -> None:
    given = Prediction.from_softmax("x", P, np.zeros((6, 9), np.uint8))
    with pytest.raises(ValueError, match="needs logits"):
        score_maps(given, [name])


def test_scores_of_a_given_softmax() -> None:
    given = Prediction.from_softmax("x", P, np.zeros((6, 9), np.uint8))
    for name in ("entropy", "max_softmax", "margin", "generalised_entropy"):
        np.testing.assert_allclose(SCORES[name](given), EXPECTED[name], rtol=0, atol=2e-6)


def test_generalised_entropy_is_right_below_the_resolution_of_one() -> None:
    # 1 - p of the largest is 1e-13, and its power is not small
    logits = np.array([30.0, 0.0, -5.0, 29.0, 60.0], np.float32)[:, None, None]
    log_p = logits[:, 0, 0].astype(np.float64) - logsumexp(logits[:, 0, 0].astype(np.float64))
    others = [logsumexp(np.delete(log_p, c)) for c in range(5)]
    expected = np.exp(0.1 * (log_p + others)).mean()
    assert expected > 0.02
    frame = Prediction("x", logits, (1, 1), True, np.zeros((1, 1), np.uint8))
    assert SCORES["generalised_entropy"](frame)[0, 0] == pytest.approx(expected, abs=1e-6)


def test_generalised_entropy_is_that_of_pytorch_ood() -> None:
    detector = pytest.importorskip("pytorch_ood.detector")
    flat = LOGITS / 3  # it takes probabilities below 1e-7 as 1e-7
    expected = detector.GEN.score(torch.from_numpy(flat)[None])[0].numpy()
    found = SCORES["generalised_entropy"](replace(FRAME, logits=flat))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_a_stored_score_is_its_map_up_sampled() -> None:
    small = np.random.default_rng(1).standard_normal((3, 5)).astype(np.float32)
    frame = replace(FRAME, align_corners=False, stored={"rba": small})
    expected = interpolate(torch.from_numpy(small)[None, None], (6, 9), mode="bilinear")[0, 0].numpy()
    for name, values in score_maps(frame, ["rba", "entropy"]).items():
        np.testing.assert_allclose(values, expected if name == "rba" else EXPECTED[name], rtol=0, atol=5e-6)
    with pytest.raises(ValueError, match=r"x: no map of the score no_object is stored \(stored: rba\); put it"):
        score_maps(frame, ["no_object"])


def test_an_unknown_score_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="unknown score 'odin'; known: ash, energy, entropy"):
        score_maps(FRAME, ["odin"])


MODULE = """
import numpy as np
from meta_ood.scores import Score

squared = Score(("first", "second"), lambda maps: np.square(1 - maps.first + maps.second), is_unit=True)
flat = Score(("first",), lambda maps: maps.first[0])
forgotten = Score(("first",), lambda maps: maps.first - maps.entropy)
unknown = Score(("third",), lambda maps: maps.third)
none = 3
"""


def test_scores_of_ones_own(tmp_path, monkeypatch):
    (tmp_path / "own_score_for_test.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    module = "own_score_for_test"
    name = f"{module}:squared"
    found = score_maps(FRAME, [name, "margin"])
    np.testing.assert_array_equal(found[name], np.square(found["margin"]))
    table = measure_segments(FRAME, name, 0.25)
    assert table.score == name
    assert len(table.iou) > 0
    assert measure_segments(FRAME, "margin", 0.5).segment_box.tolist() == table.segment_box.tolist()
    for wrong, message in (
        (f"{module}:lost", "expected package.module:name, .*no attribute 'lost'"),
        (f"{module}:unknown", "expected a meta_ood.scores.Score of maps out of entropy, "),
        (f"{module}:none", "expected a meta_ood.scores.Score .*got int"),
        (f"{module}:forgotten", "score of first: .*shapes.*a map that `needs` does not name is empty"),
        (f"{module}:flat", r"expected an array \(\d+, \d+\) of floats, got \(\d+,\) float32"),
    ):
        with pytest.raises(ValueError, match=message):
            score_maps(FRAME, [wrong])
