"""The gate of the registry: when a variant may be champion; and the table of the model card."""

import pytest

from meta_ood.config import GateParams
from meta_ood.meta_classification.promise import Promise
from meta_ood.tracking import card, gate

GOOD = {"auprc": 0.6, "fpr95": 0.1, "intervals": {"auprc": [0.55, 0.65], "fpr95": [0.08, 0.12]}}
BAD = {"auprc": 0.4, "fpr95": 0.3, "intervals": {"auprc": [0.35, 0.45], "fpr95": [0.2, 0.4]}}


@pytest.mark.parametrize(
    ("new", "old", "miou", "options", "passes", "said"),
    [
        (GOOD, BAD, 0.80, {}, True, "0.4000 [0.3500, 0.4500] -> 0.6000 [0.5500, 0.6500]"),
        (BAD, GOOD, 0.80, {}, False, "no   AUPRC"),
        (GOOD, BAD, 0.78, {}, False, "no   mIoU on cityscapes_val: 0.8000 -> 0.7800"),
        (GOOD, BAD, 0.795, {}, True, "ok   mIoU"),
        (GOOD, BAD, 0.80, {"auprc_gain": 0.3}, False, "must rise by at least 0.3"),
        (GOOD, BAD, 0.80, {"criterion": "interval"}, True, "ok   FPR95"),
        (GOOD, GOOD, 0.80, {"criterion": "interval"}, False, "the intervals overlap"),
        ({"auprc": 0.6, "fpr95": 0.1}, BAD, 0.8, {"criterion": "interval"}, False, "no confidence"),
        ({"auprc": None, "fpr95": 0.1}, BAD, 0.8, {}, False, "not measured"),
    ],
)
def test_the_gate_says_why(new, old, miou, options, passes, said):
    result = gate.compare(new, old, {"miou": miou}, {"miou": 0.80}, GateParams(**options))
    assert result.passed is passes
    assert said in "\n".join(result.lines)


PROMISE = {
    "p_value": 0.3,
    "confidence": 0.95,
    "is_calibration": False,
    "rate": 0.12,
    "units": 50,
    "text": "at most 10 %",
}


@pytest.mark.parametrize(
    ("promise", "passes", "said"),
    [
        (PROMISE, True, "ok   promise on drive: 0.1200 of 50 units, p = 0.3; at most 10 %"),
        (PROMISE | {"p_value": 0.04}, False, "no   promise on drive: 0.1200 of 50 units"),
        (PROMISE | {"p_value": None}, False, "has OoD objects"),
        (PROMISE | {"is_calibration": True}, False, "chose the threshold"),
        (None, False, "operating_point is null"),
    ],
)
def test_a_refuted_promise_is_refused(promise, passes, said):
    ok, line = gate.check_promise({"promise": promise}, "drive")
    assert ok is passes
    assert said in line


def test_the_card_says_what_is_promised():
    about = {
        "threshold": 7.25,
        "severity": "-ln P(false)",
        "budget": 0.1,
        "per": "frame",
        "confidence": 0.9,
        "calibrate_on": ("val",),
        "unit": "scene",
    }
    promise = Promise(**about, units=30, frames=90, alarms=2, rate=0.02, bound=0.09)
    text = card.with_promise("# mini\n", promise)
    assert "whose severity, -ln P(false), is at least 7.25 raise an alarm: at most 10 % of the frames" in text
    assert "90 frames of val (30 scenes), 2 with a false alarm" in text
    assert card.with_promise("# mini\n", None) == "# mini\n"


def test_an_evaluation_takes_the_place_of_an_older_one_in_the_card():
    text = f"# mini\n{card._HEADER}\n{card._RULE}\n"
    for auroc, run in ((0.9, "r1"), (0.8, "r2")):
        text = card.with_evaluation(text, "laf", {"auroc": auroc}, run)
    assert text.splitlines()[3:] == ["| laf | – | 0.8000 | – | – | –, – | –, – | – | `r2` |"]
