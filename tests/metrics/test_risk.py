"""Operating points: bounds against direct statements, thresholds against a search over all, coverage by simulation."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meta_ood.metrics import risk
from meta_ood.segments import SegmentTable


def tail(k: int, n: int, p: float) -> float:
    """P(Bin(n, p) <= k), summed term by term."""
    return math.fsum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k + 1))


def test_binary_losses_get_the_exact_binomial_bound() -> None:
    for n in (5, 22, 60):
        for k in range(n):
            bound = risk.upper_bound(np.repeat([1.0, 0.0], [k, n - k]), 0.9, binary=True)
            assert tail(k, n, bound) == pytest.approx(0.1)
    assert risk.upper_bound(np.ones(4), 0.9, binary=True) == 1


def hoeffding(mean: float, n: int, confidence: float) -> float:
    """The largest m with exp(-n KL(mean, m)) above 1 - confidence, by search on a fine grid."""
    grid = np.linspace(mean, 1, 200_001)[1:-1]
    divergence = (1 - mean) * np.log((1 - mean) / (1 - grid))
    if mean > 0:
        divergence += mean * np.log(mean / grid)
    return float(grid[np.exp(-n * divergence) > 1 - confidence].max())


@pytest.mark.parametrize("n", [10, 40, 200])
def test_the_bet_is_hoeffdings_bound_on_zeros_and_ones_and_never_worse_on_fractions(n: int) -> None:
    rng = np.random.default_rng(n)
    for ones in (0, 1, n // 5, n // 2):
        losses = np.repeat([1.0, 0.0], [ones, n - ones])
        assert risk.upper_bound(losses, 0.9) == pytest.approx(hoeffding(ones / n, n, 0.9), abs=1e-5)
    for _ in range(20):
        losses = rng.integers(0, 5, n) / 4
        assert risk.upper_bound(losses, 0.9) < hoeffding(losses.mean(), n, 0.9)


def test_the_bound_refutes_by_the_capital_of_a_fair_bet() -> None:
    losses = np.array([0, 0.25, 0, 0, 0.5, 0, 0, 0.25, 0, 0] * 5)
    bound = risk.upper_bound(losses, 0.95)
    # x with KL(x, bound) = ln 20 / n by search; then the capital, loss by loss
    grid = np.linspace(0, bound, 2_000_001)[1:-1]
    divergence = grid * np.log(grid / bound) + (1 - grid) * np.log((1 - grid) / (1 - bound))
    x = grid[np.argmin(np.abs(divergence - math.log(20) / 50))]
    without, with_alarm = (1 - x) / (1 - bound), x / bound
    assert (1 - bound) * without + bound * with_alarm == pytest.approx(1)  # the bet is fair at this mean
    capital = 1.0
    for loss in losses:
        capital *= (1 - loss) * without + loss * with_alarm
    assert capital == pytest.approx(20, rel=1e-3)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=30), st.data(), st.booleans())
def test_the_bound_rises_with_each_loss(quarters: list[int], data: st.DataObject, binary: bool) -> None:
    losses = np.array(quarters) / 4
    losses = np.round(losses) if binary else losses
    more = losses.copy()
    more[data.draw(st.integers(0, len(losses) - 1))] = 1.0
    assert risk.upper_bound(more, 0.9, binary) >= risk.upper_bound(losses, 0.9, binary) - 1e-9


@pytest.mark.parametrize(("frames", "binary"), [(1, True), (4, False), (40, False)])
def test_the_bound_covers_the_mean(frames: int, binary: bool) -> None:
    """2,000 draws of 40 scenes whose own rates differ: the bound misses the mean in at most 10 % of them."""
    rng = np.random.default_rng(frames)
    rates = rng.beta(0.3, 1.7, (2000, 40))  # mean 0.15
    losses = rng.binomial(frames, rates) / frames
    missed = np.mean([risk.upper_bound(own, 0.9, binary) < 0.15 for own in losses])
    assert 0.005 < missed < 0.1 + 2 * math.sqrt(0.1 * 0.9 / 2000)


def test_least_units() -> None:
    for budget, confidence in ((0.01, 0.95), (0.1, 0.9), (0.3, 0.9), (0.003, 0.99)):
        n = risk.least_units(budget, confidence)
        assert (1 - budget) ** n <= 1 - confidence < (1 - budget) ** (n - 1)
    assert risk.least_units(0.01, 0.95) == 299
    with pytest.raises(ValueError, match="confidence is 1"):
        risk.least_units(0.01, 1.0)


def drawn(seed: int, scenes: int, frames: int, levels: int) -> tuple[list[np.ndarray], list[str]]:
    """False segments of scenes; few `levels` give many ties."""
    rng = np.random.default_rng(seed)
    severities = [rng.integers(0, levels, rng.poisson(0.8)) / levels for _ in range(scenes * frames)]
    return severities, [f"scene {i // frames}" for i in range(scenes * frames)]


@pytest.mark.parametrize("per", ["frame", "scene"])
@pytest.mark.parametrize(("seed", "frames", "levels"), [(0, 1, 1000), (1, 3, 1000), (2, 3, 7), (3, 1, 4), (4, 5, 50)])
def test_the_threshold_is_the_lowest_of_all_that_keep_to_the_budget(
    seed: int, frames: int, levels: int, per: risk.Per
) -> None:
    severities, units = drawn(seed, 60, frames, levels)
    for budget in (0.1, 0.3, 0.9):
        point = risk.choose_threshold(severities, units, budget, 0.9, per=per)
        # every severity, all values between two, and one above all
        values = np.unique(np.concatenate([[0.0], *severities, [2.0]]))
        every = np.unique([*values, *np.nextafter(values, 2), *(values[1:] + values[:-1]) / 2])
        lowest = None
        for threshold in every[::-1]:
            losses = []
            for scene in dict.fromkeys(units):
                own = [s for s, unit in zip(severities, units, strict=True) if unit == scene]
                alarms = [any(value >= threshold for value in frame) for frame in own]
                losses.append(float(any(alarms)) if per == "scene" else sum(alarms) / len(alarms))
            if risk.upper_bound(np.array(losses), 0.9, per == "scene" or frames == 1) > budget:
                break
            lowest = threshold, sum(losses) / len(losses)
        assert (point.threshold, point.rate) == pytest.approx(lowest, abs=0, rel=1e-15)
        assert point.rate <= point.bound <= budget
        assert point.alarms == sum((own >= point.threshold).any() for own in severities)


def test_the_promise_holds_on_new_scenes() -> None:
    """500 calibrations on 40 scenes of 4 frames: at most 10 % of the thresholds exceed the budget in truth."""
    rng = np.random.default_rng(8)
    exceeded = 0
    for _ in range(500):
        # severity of frame f in scene s: (u_s + u_f) / 2 with uniform u; its distribution function is known
        tops = (rng.uniform(size=(40, 1)) + rng.uniform(size=(40, 4))) / 2
        point = risk.choose_threshold(
            [np.array([top]) for top in tops.ravel()], np.repeat(np.arange(40), 4).astype(str).tolist(), 0.3, 0.9
        )
        t = 2 * point.threshold
        exceeded += ((2 - t) ** 2 / 2 if t > 1 else 1 - t**2 / 2) > 0.3
    assert 1 <= exceeded <= 50 + 2 * math.sqrt(500 * 0.1 * 0.9)


def test_a_minute_is_a_number_of_frames() -> None:
    severities, units = drawn(5, 200, 2, 1000)
    point = risk.choose_threshold(severities, units, 2.0, 0.9, per="minute", frames_per_minute=20)
    frame = risk.choose_threshold(severities, units, 0.1, 0.9)
    assert point.threshold == frame.threshold
    assert (point.rate, point.bound) == pytest.approx((20 * frame.rate, 20 * frame.bound))
    with pytest.raises(ValueError, match="frames_per_minute"):
        risk.choose_threshold(severities, units, 2.0, 0.9, per="minute")


def test_too_few_units_are_refused_with_the_number_that_is_needed() -> None:
    frames = [np.zeros(0)] * 24
    refused = r"0\.01 .* at 95 % needs at least 299 independent frames .*; you have 24: enough for 0\.118;"
    with pytest.raises(ValueError, match=refused):
        risk.choose_threshold(frames, [str(i) for i in range(24)], 0.01, 0.95)
    with pytest.raises(ValueError, match=r"at least 22 independent scenes .*; you have 1 \(24 frames\)"):
        risk.choose_threshold(frames, ["city"] * 24, 0.1, 0.9)
    with pytest.raises(ValueError, match="you have 0"):
        risk.choose_threshold([], [], 0.1, 0.9)
    # the number named is enough, even if every frame has a false segment
    point = risk.choose_threshold([np.array([i / 22]) for i in range(22)], [str(i) for i in range(22)], 0.1, 0.9)
    assert (point.units, point.alarms) == (22, 0)
    assert point.threshold == np.nextafter(21 / 22, 1)


def test_what_makes_no_sense_is_refused() -> None:
    severities, units = drawn(6, 50, 1, 100)
    for budget in (0.0, -0.1, 1.0):
        with pytest.raises(ValueError, match="cannot be promised: it must be above 0 and below 1"):
            risk.choose_threshold(severities, units, budget, 0.9)
    with pytest.raises(ValueError, match="50 frames with severities, 49"):
        risk.choose_threshold(severities, units[:-1], 0.1, 0.9)
    with pytest.raises(ValueError, match="frame 3 has a severity that is NaN"):
        risk.choose_threshold([*severities[:3], np.array([0.5, math.nan]), *severities[4:]], units, 0.1, 0.9)
    for wrong in (-3.0, math.inf):
        with pytest.raises(ValueError, match="expected finite ones of at least 0"):
            risk.choose_threshold([np.array([wrong])] * 50, units, 0.1, 0.9)
    with pytest.raises(ValueError, match=r"all false segments have the severity 0\.5"):
        risk.choose_threshold([np.array([0.5])] * 50, units, 0.1, 0.9)


def test_without_a_false_segment_every_threshold_keeps_to_the_budget() -> None:
    point = risk.choose_threshold([np.zeros(0)] * 50, [str(i) for i in range(50)], 0.1, 0.9)
    assert (point.threshold, point.rate, point.alarms) == (0, 0, 0)
    assert (1 - point.bound) ** 50 == pytest.approx(0.1)


# two scenes: object 0 under segments 0 and 1, object 1 under 2, object 2 missed; segments 3, 4 (frame b) are false
TABLE = SegmentTable(
    image_ids=("a", "b", "c"),
    scenes=("s", "s", "t"),
    image=np.array([0, 0, 0, 1, 1]),
    features=np.zeros((5, 0)),
    feature_names=(),
    iou=np.array([0.5, 0.5, 0.5, 0, 0]),
    component_image=np.array([0, 0, 2]),
    component_size=np.array([9, 9, 9]),
    overlaps=np.array([[0, 0, 1], [1, 0, 1], [2, 1, 1]]),
)
SEVERITY = np.array([0.2, 0.9, 0.4, 0.3, 0.6])


def test_severities_of_a_table() -> None:
    assert [own.tolist() for own in risk.false_severities(TABLE, SEVERITY)] == [[], [0.3, 0.6], []]
    assert risk.object_severities(TABLE, SEVERITY).tolist() == [0.9, 0.4, -math.inf]


def test_recall_counts_objects_and_its_interval_draws_scenes() -> None:
    assert risk.recall(TABLE, SEVERITY, 0.4)[0] == pytest.approx(2 / 3)
    value, low, high = risk.recall(TABLE, SEVERITY, 0.41)
    # s twice: 1 of 2; s and t: 1 of 3; t twice: 0 of 1
    assert (value, low, high) == pytest.approx((1 / 3, 0, 1 / 2))
    empty = SegmentTable.concatenate([TABLE])
    object.__setattr__(empty, "component_image", np.zeros(0, np.int64))
    object.__setattr__(empty, "overlaps", np.zeros((0, 3), np.int64))
    assert all(math.isnan(v) for v in risk.recall(empty, SEVERITY, 0.4))


def test_froc_counts_at_every_threshold() -> None:
    severities, units = drawn(7, 12, 3, 20)
    units[0] = "a scene of one frame"
    objects = np.array([0.9, 0.45, 0.45, 0.1, -math.inf])
    curve = risk.froc(severities, units, objects)
    assert set(curve["threshold"]) == {*np.concatenate(severities), 0.9, 0.45, 0.1}
    assert (np.diff(curve["threshold"]) < 0).all()
    tops = risk.highest(severities)
    for threshold, found, rate, false in zip(*curve.values(), strict=True):
        assert found == pytest.approx(np.mean(objects >= threshold))
        assert rate == pytest.approx(risk.losses(tops, units, threshold).mean())
        assert false == pytest.approx(sum((own >= threshold).sum() for own in severities) / len(severities))
    assert np.isnan(risk.froc(severities, units, np.zeros(0))["recall"]).all()


def test_alarms_that_the_promise_makes_unlikely() -> None:
    for alarms in (0, 3, 9):
        assert risk.promise_p_value(alarms, 50, 0.1) == pytest.approx(1 - (tail(alarms - 1, 50, 0.1) if alarms else 0))


def test_drift_is_found_and_its_absence_believed() -> None:
    rng = np.random.default_rng(9)
    reference = risk.quantile_sample(rng.normal(size=(3000, 4)))
    assert reference.shape == (256, 4)
    quiet = [risk.drift_p_values(rng.normal(size=(50, 4)), reference).min() for _ in range(400)]
    assert np.mean(np.array(quiet) < 0.05) < 0.05 + 2 * math.sqrt(0.05 * 0.95 / 400)
    moved = rng.normal([0, 0, 1, 0], size=(50, 4))
    found = risk.drift_p_values(moved, reference)
    assert np.flatnonzero(found < 0.01).tolist() == [2]


def test_drift_of_small_samples_is_that_of_the_samples_themselves() -> None:
    calibration, new = np.array([[1.0], [2], [3], [4]]), np.array([[5.0], [6], [math.nan], [7]])
    reference = risk.quantile_sample(calibration)
    assert (reference < 5).all()
    assert risk.drift_p_values(new, reference)[0] == pytest.approx(2 / math.comb(7, 3))  # all above, or all below
    assert risk.drift_p_values(np.full((3, 1), math.nan), reference)[0] == 1
    with pytest.raises(ValueError, match="2 features, but the reference has 1"):
        risk.drift_p_values(np.zeros((3, 2)), reference)
