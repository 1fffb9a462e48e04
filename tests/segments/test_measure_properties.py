"""The kernel against slow, obvious code, on random frames and on every shape that is special."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

import segment_oracle as oracle
from meta_ood.data.labels import IGNORE, NEUTRAL, OOD
from meta_ood.data.predictions import Prediction
from meta_ood.scores import _kernel as pixel_kernel
from meta_ood.scores.maps import Workspace, pixel_maps
from meta_ood.segments import SegmentTable, label_map, measure_segments, predicted_ood
from meta_ood.segments.features import scores_of

TARGETS = np.array([0, 1, NEUTRAL, OOD, OOD, IGNORE], np.uint8)


def assert_equal(table: SegmentTable, expected: dict[str, list], tolerance: float = 1e-12) -> None:
    assert len(table.image) == len(expected["iou"])
    for index, features in enumerate(expected["features"]):
        assert set(features) == set(table.feature_names)
        for name, value in features.items():
            atol = tolerance * max(1.0, abs(value)) if name[0] in "cEDV" else 1e-12
            assert table.feature(name)[index] == pytest.approx(value, rel=0, abs=atol), name
    np.testing.assert_allclose(table.iou, expected["iou"], rtol=0, atol=1e-12)
    assert table.component_size.tolist() == expected["component_size"]
    assert table.overlaps.tolist() == expected["overlaps"]
    assert table.segment_box.tolist() == expected["box"]
    assert table.component_box.tolist() == expected["component_box"]


def exact(mask: np.ndarray, target: np.ndarray, classes: int = 3, seed: int = 0) -> Prediction:
    """Return a softmax that is uniform inside `mask` and sure outside, of random class."""
    p = np.eye(classes, dtype=np.float32)[np.random.default_rng(seed).integers(0, classes, mask.shape)].transpose(
        2, 0, 1
    )
    return Prediction.from_softmax("mask", np.where(mask, np.float32(1 / classes), p), target)


def check_mask(mask: np.ndarray, target: np.ndarray, classes: int = 3) -> SegmentTable:
    prediction = exact(mask, target, classes)
    table = measure_segments(prediction, "entropy", 0.5)
    expected = oracle.table(prediction.logits.astype(np.float64), mask, target)
    assert_equal(table, expected, tolerance=1e-6)
    return table


shapes = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12)


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_any_mask_and_any_target(data: st.DataObject) -> None:
    shape = data.draw(shapes)
    mask = data.draw(hnp.arrays(bool, shape))
    target = TARGETS[data.draw(hnp.arrays(np.int8, shape, elements=st.integers(0, 5)))]
    check_mask(mask, target)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("density", [0.02, 0.3, 0.6, 0.97])
def test_random_masks_are_labelled_as_by_scipy(seed: int, density: float) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random((37 + seed, 150 - 11 * seed)) < density
    reference, count = ndimage.label(mask, np.ones((3, 3)))
    labels = label_map(mask)
    assert labels.dtype == np.int32
    assert labels.max() == count
    first = {k: np.argmax(reference == k) for k in range(1, count + 1)}
    order = sorted(first, key=first.__getitem__)
    renumbered = np.zeros(count + 1, np.int32)
    renumbered[order] = np.arange(1, count + 1)
    np.testing.assert_array_equal(labels, renumbered[reference])


def spiral(side: int) -> np.ndarray:
    mask = np.zeros((side, side), bool)
    row, column, step = 0, -1, (0, 1)
    length = side
    while length > 0:
        for _ in range(length):
            row, column = row + step[0], column + step[1]
            mask[row, column] = True
        step = (step[1], -step[0])
        if step[0] != 0 or length == side:
            length -= 2 if step[0] == 0 or length < side else 1
    return mask


def _grid(shape: tuple[int, int]) -> np.ndarray:
    return np.indices(shape).sum(0)


SHAPES = {
    "empty": np.zeros((9, 11), bool),
    "full": np.ones((9, 11), bool),
    "one pixel": np.eye(9, 11, k=20, dtype=bool) | (np.arange(99).reshape(9, 11) == 38),
    "checkerboard": _grid((9, 11)) % 2 == 0,
    "isolated pixels": (np.indices((9, 11)) % 2 == 0).all(0),
    "spiral": spiral(13),
    "border": np.pad(np.zeros((7, 9), bool), 1, constant_values=True),
    "diagonal": np.eye(10, 12, dtype=bool),
    "anti-diagonal": np.eye(10, 12, dtype=bool)[:, ::-1],
    "comb": (np.indices((9, 11))[1] % 2 == 0) | (np.indices((9, 11))[0] == 8),
    "comb upside down": (np.indices((9, 11))[1] % 2 == 0) | (np.indices((9, 11))[0] == 0),
    "row": np.ones((1, 17), bool),
    "column": np.ones((17, 1), bool),
    "1 x 1": np.ones((1, 1), bool),
}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("target", [0, OOD, IGNORE, "left", "holes"])
def test_special_shapes(name: str, target: int | str) -> None:
    mask = SHAPES[name]
    if isinstance(target, int):
        truth = np.full(mask.shape, target, np.uint8)
    else:
        truth = np.zeros(mask.shape, np.uint8)
        if target == "left":
            truth[:, : mask.shape[1] // 2] = OOD
        else:
            truth[1::3, 1::3] = IGNORE
            truth[2::3, 2::3] = OOD
    check_mask(mask, truth)


def test_the_spiral_is_one_segment() -> None:
    mask = spiral(13)
    assert 60 < mask.sum() < 110
    assert len(check_mask(mask, np.zeros((13, 13), np.uint8)).image) == 1


def logits(seed: int, classes: int, shape: tuple[int, int], scale: float = 3.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (scale * rng.standard_normal((classes, *shape))).astype(np.float32)


def gap_threshold(values: np.ndarray, quantile: float) -> float:
    """Return the middle of the widest gap near a quantile: rounding cannot cross it."""
    ordered = np.sort(values, axis=None)
    at = int(quantile * (ordered.size - 1))
    near = ordered[max(at - 6, 0) : at + 8]
    widest = int(np.diff(near).argmax())
    return float((near[widest] + near[widest + 1]) / 2)


CASES = [
    (2, (3, 4), (9, 13), True),
    (5, (6, 5), (12, 20), False),
    (19, (4, 8), (16, 31), True),
    (19, (1, 1), (3, 4), True),
    (19, (10, 12), (10, 12), True),
    (7, (12, 14), (6, 7), False),
    (200, (3, 3), (8, 9), True),
    (3, (2, 45), (3, 89), True),
]
SCORES = ["entropy", "max_softmax", "max_logit", "energy", "margin"]
BEST = pixel_kernel.INSTRUCTION_SETS[pixel_kernel.BEST]


@pytest.mark.parametrize(
    ("case", "score", "instruction_set"),
    [(case, "entropy", name) for case in CASES for name in ("baseline", BEST)]
    + [(case, score, BEST) for case in CASES[:3] for score in SCORES[1:]],
    ids=str,
)
def test_logits_against_double_precision(
    case: tuple[int, tuple[int, int], tuple[int, int], bool], score: str, instruction_set: str
) -> None:
    classes, small, size, align = case
    target = np.random.default_rng(classes).choice(TARGETS, size)
    prediction = Prediction("x", logits(classes, classes, small), size, align, target)
    full = oracle.upsampled(prediction.logits.astype(np.float64), size, align)
    p = oracle.softmax(full)
    ordered = np.sort(p, axis=0)
    values = {
        "entropy": oracle.entropy(p),
        "max_softmax": 1 - ordered[-1],
        "max_logit": -full.max(0),
        "energy": -np.log(np.exp(full).sum(0)),
        "margin": 1 - ordered[-1] + ordered[-2],
    }[score]
    threshold = gap_threshold(values, 0.6)
    pixel_kernel.use_instruction_set(instruction_set)
    try:
        table = measure_segments(prediction, score, threshold)
    finally:
        pixel_kernel.use_instruction_set()
    assert_equal(table, oracle.table(p, values >= threshold, target), tolerance=2e-5)


@pytest.mark.parametrize("seed", range(4))
def test_scores_are_features_as_heat_maps_are(seed: int) -> None:
    rng = np.random.default_rng(seed)
    size = (13 + seed, 21)
    stored = (5 + 3 * rng.standard_normal((3, 4))).astype(np.float32)
    target = rng.choice(TARGETS, size)
    prediction = Prediction("x", logits(seed, 5, (6, 7)), size, False, target, stored={"knn": stored})
    full = oracle.upsampled(prediction.logits.astype(np.float64), size, False)
    p = oracle.softmax(full)
    knn = oracle.upsampled(stored[None].astype(np.float64), size, False)[0]
    threshold = gap_threshold(knn, 0.4)
    table = measure_segments(prediction, "knn", threshold, features=["max_logit", "knn"])
    scores = {"max_logit": -full.max(0), "knn": knn}
    expected = oracle.table(p, knn >= threshold, target, scores)
    assert len(expected["iou"]) > 0
    for row, features in zip(table.features, expected["features"], strict=True):
        np.testing.assert_allclose(row, [features[name] for name in table.feature_names], rtol=2e-5, atol=2e-4)
    # the published ones are what they were, to the bit
    plain = measure_segments(prediction, "knn", threshold)
    np.testing.assert_array_equal(table.with_features(plain.feature_names).features, plain.features)
    assert scores_of(table.feature_names) == ["knn", "max_logit"]
    assert scores_of(plain.feature_names) == []


def test_maps_that_are_there_already_give_the_same_tables() -> None:
    target = np.random.default_rng(3).choice(TARGETS, (24, 40))
    prediction = Prediction("x", logits(3, 19, (6, 10), 1.0), (24, 40), True, target)
    maps = pixel_maps(prediction)
    sizes = set()
    for threshold in (0.8, 0.9, 0.85, 2.0):
        table = measure_segments(prediction, "entropy", threshold, maps=maps)
        alone = measure_segments(prediction, "entropy", threshold)
        for name, value in vars(alone).items():
            np.testing.assert_array_equal(getattr(table, name), value, err_msg=name)
        mask = predicted_ood(maps.entropy, threshold, target)
        assert np.bincount(label_map(mask).flat)[1:].tolist() == table.segment_size.tolist()
        sizes.add(mask.sum())
    assert len(sizes) == 4


def test_a_score_equal_to_the_threshold_is_ood_and_void_is_not() -> None:
    # the double 0.7 is below the float32 0.7 and the double 0.1 above: both must be reached
    score = np.array([[0.7, 0.1, 0.0, 1.0, np.inf]], np.float32)
    target = np.array([[0, 0, 0, IGNORE, NEUTRAL]], np.uint8)
    assert predicted_ood(score, 0.7, target).tolist() == [[True, False, False, False, True]]
    assert predicted_ood(score, 0.1).tolist() == [[True, True, False, True, True]]


def test_memory_that_is_used_again_changes_nothing() -> None:
    workspace = Workspace()
    for seed, shape, size in ((0, (8, 9), (31, 40)), (1, (3, 3), (5, 9)), (2, (8, 9), (31, 41))):
        target = np.random.default_rng(seed).choice(TARGETS, size)
        prediction = Prediction("x", logits(seed, 5 + seed, shape), size, True, target)
        fresh = measure_segments(prediction, "margin", 0.6)
        again = measure_segments(prediction, "margin", 0.6, workspace=workspace)
        for name, value in vars(fresh).items():
            np.testing.assert_array_equal(getattr(again, name), value, err_msg=name)


def test_threads_change_nothing() -> None:
    target = np.random.default_rng(0).choice(TARGETS, (33, 20))
    prediction = Prediction("x", logits(0, 5, (9, 9)), (33, 20), True, target)
    one = measure_segments(prediction, "entropy", 0.5)
    for threads in (2, 3, 40):
        many = measure_segments(prediction, "entropy", 0.5, threads=threads)
        for name, value in vars(one).items():
            np.testing.assert_array_equal(getattr(many, name), value, err_msg=name)


def test_memory_layout_changes_nothing() -> None:
    values = logits(0, 4, (5, 6))
    target = np.random.default_rng(0).choice(TARGETS, (10, 12))
    wanted = measure_segments(Prediction("x", values, (10, 12), True, target), "entropy", 0.4)
    strided = np.zeros((5, 6, 8), np.float32)[..., ::2]
    strided[:] = values.transpose(1, 2, 0)
    frozen, frozen_target = values.copy(), target.copy()
    frozen.flags.writeable = frozen_target.flags.writeable = False
    for array, truth in (
        (strided.transpose(2, 0, 1), np.asfortranarray(target)),
        (frozen, frozen_target),
        (values.astype(np.float64), target),
    ):
        table = measure_segments(Prediction("x", array, (10, 12), True, truth), "entropy", 0.4)
        for name, value in vars(wanted).items():
            np.testing.assert_array_equal(getattr(table, name), value, err_msg=name)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("given", [False, True])
def test_what_is_not_finite_names_the_frame(value: float, given: bool) -> None:
    values = oracle.softmax(logits(0, 19, (9, 10))).astype(np.float32)
    values[7, 8, 9] = value
    target = np.zeros((9, 10), np.uint8)
    prediction = (
        Prediction.from_softmax("frame_42", values, target)
        if given
        else Prediction("frame_42", values, (9, 10), True, target)
    )
    with pytest.raises(ValueError, match="frame_42"):
        measure_segments(prediction)
    with pytest.raises(ValueError, match="frame_42"):
        pixel_maps(prediction)


def test_an_unknown_score_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"entropy.*margin"):
        measure_segments(exact(SHAPES["full"], np.zeros((9, 11), np.uint8)), "entrophy")


def test_label_ids_are_those_of_the_first_pixel() -> None:
    target = np.zeros((4, 6), np.uint8)
    target[1, 3] = target[2, 2] = target[2, 0] = OOD
    prediction = exact(target == OOD, target)
    assert measure_segments(prediction, "entropy", 0.5).component_label_id.tolist() == [-1, -1]
    label_ids = np.arange(24, dtype=np.uint8).reshape(4, 6)
    known = dataclasses.replace(prediction, label_ids=label_ids)
    assert measure_segments(known, "entropy", 0.5).component_label_id.tolist() == [9, 12]


def test_a_million_segments() -> None:
    mask = np.zeros((2048, 2048), bool)
    mask[::2, ::2] = True
    target = np.where(mask, OOD, 0).astype(np.uint8)
    table = measure_segments(exact(mask, target, classes=2), "entropy", 0.5)
    assert len(table.image) == len(table.component_image) == 2**20
    assert (table.iou == 1).all()
    assert (table.feature("S") == 1).all()
    np.testing.assert_array_equal(table.overlaps[:, 0], table.overlaps[:, 1])
    np.testing.assert_array_equal(table.feature("mean_x")[::1024], np.arange(0, 2048, 2))


LARGE = """
import json
import sys
from pathlib import Path

import numpy as np

from meta_ood.data.labels import OOD
from meta_ood.data.predictions import Prediction
from meta_ood.segments import measure_segments
from test_measure_properties import large_mask

mask = large_mask()
logits = np.zeros((2, *mask.shape), np.float32)
logits[0] = np.where(mask, 0, 9)
target = np.zeros(mask.shape, np.uint8)
target[:, 4000:4010] = OOD
table = measure_segments(Prediction("large", logits, mask.shape, True, target), "entropy", 0.5)
peak = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024
covered = table.overlaps[:, 2].sum() / table.component_size
columns = (table.segment_size, table.segment_box, table.iou, covered)
json.dump([peak, *(column.tolist() for column in columns)], sys.stdout)
"""


def large_mask() -> np.ndarray:
    rng = np.random.default_rng(0)
    mask = np.zeros((4096, 8192), bool)
    for _ in range(300):
        row, column = rng.integers(0, mask.shape)
        mask[row : row + rng.integers(1, 90), column : column + rng.integers(1, 90)] = True
    mask[-1, :3000] = mask[0, 0] = mask[-1, -1] = True
    mask[np.arange(4000), 4096 + np.arange(4000)] = True
    return mask


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads memory as Linux says it")
def test_a_frame_of_4096_by_8192() -> None:
    run = [sys.executable, "-c", LARGE]
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    done = subprocess.run(run, capture_output=True, check=True, env=os.environ | {"PYTHONPATH": path})
    peak, sizes, boxes, ious, recall = json.loads(done.stdout)
    mask = large_mask()
    reference, count = ndimage.label(mask, np.ones((3, 3)))
    expected = [
        (int(size), s[0].start, s[1].start, s[0].stop, s[1].stop)
        for size, s in zip(np.bincount(reference.ravel())[1:], ndimage.find_objects(reference), strict=True)
    ]
    assert count > 200
    assert sorted((size, *box) for size, box in zip(sizes, boxes, strict=True)) == sorted(expected)
    stripe = np.unique(reference[:, 4000:4010][mask[:, 4000:4010]])
    assert sum(iou > 0 for iou in ious) == len(stripe)
    assert recall == [pytest.approx(mask[:, 4000:4010].mean(), rel=1e-12)]
    logits, maps = 2 * 4 * mask.size, 13 * mask.size  # entropy, classes, target and masks
    assert peak < (logits + 2 * maps) / 2**20
