"""Segment metrics: counting by hand, against removal pixel by pixel, and the published numbers."""

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from meta_ood.data.labels import IGNORE, IN, OOD
from meta_ood.data.predictions import Prediction
from meta_ood.metrics.segment import found_by, missed, segment_errors, segment_f1, trade_off
from meta_ood.segments import SegmentTable, measure_segments

REFERENCE = Path(__file__).parents[1] / "reference"


def table_of(segments: int, components: int, overlaps: list[tuple[int, int, int]], **more: object) -> SegmentTable:
    pairs = np.array(overlaps, np.int64).reshape(-1, 3)
    iou = np.zeros(segments)
    iou[pairs[:, 0]] = 0.5
    return SegmentTable(
        image_ids=("a",),
        scenes=("s",),
        image=np.zeros(segments, np.int64),
        features=np.zeros((segments, 0)),
        feature_names=(),
        iou=iou,
        component_image=np.zeros(components, np.int64),
        component_size=np.arange(1, components + 1) * 60,
        overlaps=pairs,
        **more,
    )


# segments 0, 1 on component 0; segment 2 on components 1 and 2; 3, 4, 5 false; component 3 missed
TABLE = table_of(6, 4, [(0, 0, 5), (1, 0, 2), (2, 1, 9), (2, 2, 1)])


def removed(*segments: int) -> np.ndarray:
    return np.isin(np.arange(6), segments)


def test_nothing_removed() -> None:
    e = segment_errors(TABLE, removed())
    assert (e.segments, e.components, e.removed, e.true_segments_removed) == (6, 4, 0, 0)
    assert (e.false_positives, e.false_positives_after_meta) == (3, 3)
    assert (e.false_negatives, e.false_negatives_after_meta) == (1, 1)


def test_a_component_is_missed_when_its_last_segment_goes() -> None:
    assert segment_errors(TABLE, removed(0)).false_negatives_after_meta == 1
    assert segment_errors(TABLE, removed(0, 1)).false_negatives_after_meta == 2
    assert segment_errors(TABLE, removed(0, 1, 2)).false_negatives_after_meta == 4


def test_the_published_count_is_the_true_segments_removed() -> None:
    e = segment_errors(TABLE, removed(0, 3, 4))
    assert e.false_positives_after_meta == 1
    assert e.true_segments_removed == 1
    assert e.published_false_positives_after_meta == 1
    e = segment_errors(TABLE, removed(0, 1, 2, 3))
    assert (e.false_positives_after_meta, e.published_false_positives_after_meta) == (2, 3)


def test_f1_counts_segments_found_and_components_missed() -> None:
    both = segment_errors(TABLE, removed(1, 2, 3)).summary()
    assert both["before"] == {
        "true_positives": 3,
        "false_positives": 3,
        "false_negatives": 1,
        "f1": pytest.approx(6 / 10),
    }
    assert both["after_meta"] == {
        "true_positives": 1,  # segment 0, which alone keeps component 0
        "false_positives": 2,
        "false_negatives": 3,
        "f1": pytest.approx(2 / 7),
    }


def test_f1_where_nothing_is_right_or_nothing_is_there() -> None:
    assert segment_f1(0, 4, 0) == 0
    assert segment_f1(0, 0, 4) == 0
    assert segment_f1(7, 0, 0) == 1
    assert np.isnan(segment_f1(0, 0, 0))
    many = np.arange(6).reshape(2, 3)
    f1 = segment_f1(many, many + 1, 2)
    assert f1.tolist() == [[2 * t / (3 * t + 3) for t in row] for row in many.tolist()]


def test_trade_off_is_the_error_count_at_every_operating_point() -> None:
    probability = np.array([0.2, 0.6, 0.6, 0.9, 0.1, 0.6])
    curve = trade_off(TABLE, probability)
    assert curve["operating_point"].tolist() == [-1, 0.1, 0.2, 0.6, 0.9]
    for i, point in enumerate(curve["operating_point"]):
        e = segment_errors(TABLE, probability > point)
        assert curve["false_positives"][i] == e.false_positives_after_meta
        assert curve["false_negatives"][i] == e.false_negatives_after_meta
        assert curve["true_segments_removed"][i] == e.true_segments_removed


def test_empty_tables() -> None:
    e = segment_errors(table_of(0, 2, []), np.empty(0, bool))
    assert (e.false_negatives, e.false_negatives_after_meta, e.segments) == (2, 2, 0)
    curve = trade_off(table_of(0, 2, []), np.empty(0))
    assert (curve["false_positives"].tolist(), curve["false_negatives"].tolist()) == ([0], [2])


def test_lengths_must_fit() -> None:
    with pytest.raises(ValueError, match="6 segments"):
        segment_errors(TABLE, np.zeros(5, bool))
    with pytest.raises(ValueError, match="6 segments"):
        trade_off(TABLE, np.zeros(7))


def test_components_found_by_size_and_label() -> None:
    edges = np.array([1, 100, 200, 1000.0])
    found = found_by(TABLE, removed(0, 1), TABLE.component_size, edges)
    names = ("components", "found", "found_after_meta")
    assert {group: tuple(counts[name] for name in names) for group, counts in found.items()} == {
        "1-100": (1, 1, 0),  # 60
        "100-200": (2, 2, 2),  # 120, 180
        "200-1000": (1, 0, 0),  # 240
    }
    found = found_by(TABLE, removed(2), np.array([27, 3, 27, 3]))
    assert {group: tuple(counts[name] for name in names) for group, counts in found.items()} == {
        "3": (2, 1, 0),
        "27": (2, 2, 1),
    }
    nothing = table_of(0, 0, [])
    assert found_by(nothing, np.empty(0, bool), np.empty(0, int)) == {}


def test_removing_segments_is_clearing_their_pixels() -> None:
    r = np.random.default_rng(6)
    eight = np.ones((3, 3), bool)
    for index in range(10):
        target = np.where(ndimage.gaussian_filter(r.random((40, 60)), 2) > 0.53, OOD, IN)
        target = target.astype(np.uint8)
        target[r.random(target.shape) < 0.01] = IGNORE
        soft = np.clip(3 * ndimage.gaussian_filter(r.random((40, 60)), 1.5) - 1, 0, 1)
        p = np.stack([1 - soft / 2, soft / 2]).astype(np.float32)
        table = measure_segments(Prediction.from_softmax(str(index), p, target))
        gone = r.random(len(table.image)) < 0.4
        entropy = -(p.astype(np.float64) * np.log(np.maximum(p, 1e-30))).sum(0) / np.log(2)
        labels, count = ndimage.label((entropy >= 0.7) & (target != IGNORE), eight)
        assert count == len(table.image)
        components, true = ndimage.label(target == OOD, eight)
        left = np.isin(labels, np.flatnonzero(~gone) + 1)
        hit = set(np.unique(components[left])) - {0}
        false = [s for s in range(count) if not (target[labels == s + 1] == OOD).any()]
        e = segment_errors(table, gone)
        assert e.false_negatives_after_meta == true - len(hit)
        assert e.false_positives == len(false)
        assert e.false_positives_after_meta == sum(not gone[s] for s in false)
        assert missed(table, ~gone).sum() == true - len(hit)
        assert e.summary()["before"]["f1"] == pytest.approx(slow_f1(labels, components))
        labels[~left] = 0
        assert e.summary()["after_meta"]["f1"] == pytest.approx(slow_f1(labels, components))


def slow_f1(labels: np.ndarray, components: np.ndarray) -> float:
    """Return segment F1 as the harmonic mean of its two rates, found pixel by pixel."""
    right, segments, found = set(), set(), set()
    for segment, component in zip(labels.flat, components.flat, strict=True):
        segments |= {segment} - {0}
        if segment and component:
            right.add(segment)
            found.add(component)
    lost = set(components.flat) - found - {0}
    if not right:
        return 0.0
    precision, recall = len(right) / len(segments), len(right) / (len(right) + len(lost))
    return 2 * precision * recall / (precision + recall)


def published(name: str, tag: str) -> tuple[SegmentTable, dict[str, np.ndarray]]:
    with np.load(REFERENCE / f"{name}.npz") as file:
        reference = {k.removeprefix(f"{tag}_"): file[k] for k in file.files if k.startswith(tag)}
    with np.load(REFERENCE / f"{name}_inputs.npz") as file:
        softmax, targets = file[f"probs_{tag}"], file["gt_train"]
        threshold = float(file["threshold"])
    ood, known = (2, 1) if name == "g5_A_laf" else (1, 0)
    tables = []
    for index, (p, raw) in enumerate(zip(softmax, targets, strict=True)):
        target = np.select([raw == ood, raw == known, raw == 255], [OOD, IN, IGNORE], 252)
        prediction = Prediction.from_softmax(f"{index:04d}", p, target.astype(np.uint8))
        tables.append(measure_segments(prediction, threshold=threshold))
    return SegmentTable.concatenate(tables), reference


@pytest.mark.parametrize("tag", ["base", "trained"])
@pytest.mark.parametrize("name", ["g5_A_laf", "g5_B_fs"])
def test_published_counts(name: str, tag: str) -> None:
    table, reference = published(name, tag)
    e = segment_errors(table, reference["kick"].astype(bool))
    assert e.false_positives == reference["fp_before"]
    assert e.false_positives_after_meta == reference["fp_remaining_correct"]
    assert e.published_false_positives_after_meta == reference["fp_after_upstream"]
    assert e.true_segments_removed == reference["tp_removed"]
    assert e.false_negatives_after_meta == reference["fn_after"]
    assert e.false_negatives == (reference["gt_iou0"] == 1).sum()
