import json

import numpy as np
import pytest
from scipy.stats import binomtest

from meta_ood.config import OperatingPointParams
from meta_ood.meta_classification import promise
from meta_ood.meta_classification.promise import Promise, choose, frame_statistics, monitor, outcome, table_statistics
from meta_ood.segments import SegmentTable


def ordinary(frames: int = 40, per_frame: float = 2.0, seed: int = 0, scenes: int = 8, shift: float = 0.0):
    """Return a table of false segments, and their severities."""
    rng = np.random.default_rng(seed)
    image = np.repeat(np.arange(frames), rng.poisson(per_frame, frames))
    size = rng.integers(4, 200, (len(image), 1)).astype(np.float64)
    corner = rng.integers(0, 60, (len(image), 2))
    table = SegmentTable(
        image_ids=tuple(f"i{k}" for k in range(frames)),
        scenes=tuple(f"s{k % scenes}" for k in range(frames)),
        image=image,
        features=size,
        feature_names=("S",),
        iou=np.zeros(len(image)),
        component_image=np.zeros(0, np.int64),
        component_size=np.zeros(0, np.int64),
        overlaps=np.zeros((0, 3), np.int64),
        segment_box=np.hstack([corner, corner + 8]),
        segment_score=rng.uniform(0.5, 1, len(image)),
    )
    return table, np.clip(rng.beta(1, 4, len(image)) + shift, 0, 1)


def settings(**values) -> OperatingPointParams:
    return OperatingPointParams(**{"false_alarms": 0.3, "unit": "frame", "calibrate_on": ("val",), **values})


def promised(table, severity, **values) -> Promise:
    return choose({"val": table}, {"val": severity}, settings(**values), "-ln P(false)")


def test_the_lowest_threshold_whose_exact_bound_keeps_to_the_budget():
    table, severity = ordinary()
    found = promised(table, severity)

    def alarms(threshold: float) -> int:
        return len(set(table.image[severity >= threshold].tolist()))

    def bound(threshold: float) -> float:  # one-sided 95 % is the upper end of a two-sided 90 % interval
        return binomtest(alarms(threshold), 40).proportion_ci(0.9, "exact").high

    assert bound(found.threshold) <= 0.3
    below = severity[severity < found.threshold]
    assert bound(below.max()) > 0.3
    assert (found.alarms, found.frames, found.units) == (alarms(found.threshold), 40, 40)
    assert found.bound == pytest.approx(bound(found.threshold))
    assert found.calibrate_on == ("val",)


def test_sets_are_pooled_and_scenes_that_they_share_are_one_unit():
    (a, own), (b, other) = ordinary(seed=0), ordinary(seed=1)
    tables, severities = {"a": a, "b": b}, {"a": own, "b": other}
    by_frame = choose(tables, severities, settings(calibrate_on=("a", "b")), "-ln P(false)")
    assert (by_frame.units, by_frame.frames) == (80, 80)
    both = settings(calibrate_on=("a", "b"), unit="scene", false_alarms=0.9)
    by_scene = choose(tables, severities, both, "-ln P(false)")
    assert (by_scene.units, by_scene.frames) == (8, 80)


@pytest.mark.parametrize(
    ("made", "values", "message"),
    [
        (ordinary(0), {}, r"operating_point on val: 0.3 .* at 95 % needs at least 9 .* you have 0"),
        (ordinary(scenes=1), {"unit": "scene"}, r"needs at least 9 independent scenes .* you have 1 \(40 frames\)"),
        (ordinary(), {"false_alarms": 0.01}, r"needs at least 299 independent frames without an alarm; you have 40"),
    ],
)
def test_what_cannot_be_promised_says_why(made, values, message):
    with pytest.raises(ValueError, match=message):
        promised(*made, **values)


def test_segments_that_are_all_alike_cannot_be_told_apart():
    table, severity = ordinary()
    with pytest.raises(ValueError, match=r"all false segments have the severity 0\.5"):
        promised(table, np.full_like(severity, 0.5))


def test_without_any_segment_every_segment_is_kept():
    found = promised(*ordinary(per_frame=0))
    assert (found.threshold, found.alarms) == (0.0, 0)
    assert found.reference["mean score"] == ()


def test_frames_with_objects_choose_nothing():
    table, severity = ordinary()
    with_object = SegmentTable.concatenate([table, objects()])
    with pytest.raises(ValueError, match="val has 1 OoD objects; expected a set of ordinary frames"):
        promised(with_object, np.append(severity, 1.0))


def test_scenes_that_trained_choose_nothing():
    (a, own), (b, other) = ordinary(seed=0), ordinary(seed=1)
    given = {"tables": {"a": a, "val": b}, "severities": {"a": own, "val": other}, "formula": "-ln P(false)"}
    with pytest.raises(ValueError, match=r"scenes of val are also in sets of meta.train_on \(s0, s1, s2\)"):
        choose(**given, settings=settings(unit="scene", false_alarms=0.9), train_on=["a"])
    # where every frame is a scene of its own, names of scenes say nothing
    assert choose(**given, settings=settings(), train_on=["a"]) == choose(**given, settings=settings())


def objects() -> SegmentTable:
    """Return a table in which everything is OoD: one segment on one object."""
    one = np.ones(1, np.int64)
    return SegmentTable(
        ("o",), ("o",), one * 0, np.ones((1, 1)), ("S",), np.ones(1), one * 0, one, np.array([[0, 0, 1]])
    )


def test_the_outcome_on_other_frames():
    found = promised(*ordinary())
    table, severity = ordinary(seed=1, shift=0.3)
    about = outcome(found, table, severity)
    alarms = len(set(table.image[severity >= found.threshold].tolist()))
    assert (about["alarms"], about["rate"]) == (alarms, alarms / 40)
    assert about["p_value"] == pytest.approx(binomtest(alarms, 40, 0.3, "greater").pvalue)
    assert outcome(found, objects(), np.ones(1))["p_value"] is None


def test_statistics_of_a_frame():
    table, severity = ordinary()
    rows = table.image == 3
    found = table_statistics(table, severity)[3]
    middle = (table.segment_box[rows, 0] + table.segment_box[rows, 2]) / 2
    expected = [rows.sum(), severity[rows].max(), table.segment_score[rows].mean(), table.features[rows].mean()]
    np.testing.assert_allclose(found, [*expected, middle.mean()])
    none = np.zeros(0)
    np.testing.assert_array_equal(frame_statistics(none, none, none, none), [0, *[np.nan] * 4])


def test_the_monitor_notices_more_alarms_and_other_frames_and_nothing_else():
    table, severity = ordinary(200)
    found = promised(table, severity)

    def sentences(shift: float, per_frame: float = 2.0) -> list[str]:
        new, own = ordinary(50, per_frame, seed=7, shift=shift)
        alarms = len(set(new.image[own >= found.threshold].tolist()))
        return monitor(found, table_statistics(new, own), alarms)

    assert sentences(0.0) == []
    alarms, drift = sentences(0.4)
    assert "unless that many show objects" in alarms
    assert "highest severity (p = " in drift
    assert "segments (p = " in sentences(-1.0, per_frame=6.0)[0]
    assert monitor(found, np.zeros((0, 5)), 0) == []


def test_its_file(tmp_path):
    found = promised(*ordinary())
    path = tmp_path / promise.NAME
    path.write_text(found.model_dump_json())
    assert Promise.read(path) == found
    path.write_text(json.dumps(json.loads(found.model_dump_json()) | {"budget": None}))
    with pytest.raises(ValueError, match=r"promise.json is no promise: budget"):
        Promise.read(path)


def test_its_words():
    found = promised(*ordinary())
    assert found.text == "at most 30 % of the frames have a false alarm, with confidence 95 %"
    by_minute = promised(*ordinary(), per="minute", false_alarms=180.0, frames_per_minute=600.0)
    assert by_minute.threshold == found.threshold
    assert by_minute.text == "at most 180 frames with a false alarm per minute, with confidence 95 %"
