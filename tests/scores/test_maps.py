import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import segment_oracle as oracle
from meta_ood.data.predictions import Prediction
from meta_ood.scores import SCORES, _kernel
from meta_ood.scores.maps import MAPS, PixelMaps, Workspace, pixel_maps

SETS = _kernel.INSTRUCTION_SETS[: _kernel.BEST + 1]


def frame(logits: np.ndarray, size: tuple[int, int], align_corners: bool = True) -> Prediction:
    return Prediction("x", logits.astype(np.float32), size, align_corners, np.zeros(size, np.uint8))


def check(prediction: Prediction, maps: PixelMaps, tolerance: float) -> None:
    full = oracle.upsampled(prediction.logits.astype(np.float64), prediction.size, prediction.align_corners)
    p = oracle.softmax(full)
    ordered = np.sort(p, axis=0)
    largest = full.max(0)
    expected = {
        "entropy": oracle.entropy(p),
        "first": ordered[-1],
        "second": ordered[-2],
        "max_logit": largest,
        "log_sum_exp": largest + np.log(np.exp(full - largest).sum(0)),
    }
    for name, values in expected.items():
        atol = tolerance * max(1.0, float(np.abs(values).max()))
        np.testing.assert_allclose(getattr(maps, name), values, rtol=0, atol=atol, err_msg=name)
    chosen = np.take_along_axis(full, maps.arg_max[None].astype(int), 0)[0]
    np.testing.assert_allclose(chosen, largest, rtol=0, atol=tolerance * 10)
    assert maps.entropy.min() >= 0
    assert maps.entropy.max() <= 1


@pytest.fixture(params=SETS)
def instruction_set(request: pytest.FixtureRequest):
    _kernel.use_instruction_set(request.param)
    yield request.param
    _kernel.use_instruction_set()


@pytest.mark.parametrize("classes", [2, 3, 19, 200])
@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize(
    ("small", "size"),
    [((8, 16), (16, 32)), ((5, 7), (40, 131)), ((9, 9), (9, 9)), ((1, 1), (1, 1)),
     ((1, 1), (5, 70)), ((2, 9), (2, 65)), ((13, 11), (6, 5))],
)  # fmt: skip
def test_maps_are_those_of_double_precision(
    instruction_set: str, classes: int, small: tuple[int, int], size: tuple[int, int], align_corners: bool
) -> None:
    rng = np.random.default_rng(classes)
    prediction = frame(4 * rng.standard_normal((classes, *small)), size, align_corners)
    check(prediction, pixel_maps(prediction), 1e-5)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    classes=st.integers(2, 40),
    scale=st.sampled_from([1e-6, 1e-3, 1.0, 30.0, 1000.0]),
    shift=st.sampled_from([0.0, -50.0, 200.0]),
)
def test_any_logits(seed: int, classes: int, scale: float, shift: float) -> None:
    values = shift + scale * np.random.default_rng(seed).standard_normal((classes, 3, 5))
    # the coarser the logits' own float32 grid, the further even exact arithmetic is off
    prediction = frame(values, (3, 5))
    check(prediction, pixel_maps(prediction), 5e-6)


@pytest.mark.parametrize("classes", [2, 19, 200])
def test_near_uniform_entropy_does_not_exceed_one(instruction_set: str, classes: int) -> None:
    rng = np.random.default_rng(0)
    for scale in (0.0, 1e-7, 1e-5, 1e-3):
        maps = pixel_maps(frame(scale * rng.standard_normal((classes, 8, 9)), (16, 30)))
        assert maps.entropy.max() <= 1
        np.testing.assert_allclose(maps.entropy, 1, atol=1e-6 + 10 * scale**2)
    p = np.full((classes, 6, 7), 1 / classes, np.float32)
    given_maps = pixel_maps(Prediction.from_softmax("x", p, np.zeros((6, 7), np.uint8)))
    assert given_maps.entropy.max() <= 1
    np.testing.assert_allclose(given_maps.entropy, 1, atol=2e-6)


@pytest.mark.parametrize("height", [90.0, 1e4, 1e30])
def test_saturated_logits(instruction_set: str, height: float) -> None:
    values = np.zeros((5, 4, 6))
    values[3] = height
    values[1] = -height
    maps = pixel_maps(frame(values, (8, 12)))
    assert (maps.entropy == 0).all()
    assert (maps.first == 1).all()
    assert maps.second.max() < 1e-37
    assert (maps.arg_max == 3).all()
    np.testing.assert_allclose(maps.max_logit, height, rtol=1e-6)
    np.testing.assert_allclose(maps.log_sum_exp, height, rtol=1e-6)


def test_ties_go_to_the_first_class(instruction_set: str) -> None:
    values = np.zeros((7, 5, 70))
    values[[2, 5]] = 1.5
    maps = pixel_maps(frame(values, (5, 70)))
    assert (maps.arg_max == 2).all()
    np.testing.assert_array_equal(maps.first, maps.second)


def test_a_given_softmax_is_taken_as_it_is(instruction_set: str) -> None:
    p = np.zeros((4, 2, 3), np.float32)
    p[:, 0, 0] = (0.5, 0.25, 0.0, 0.125)
    p[:, 0, 1] = (0, 0, 1, 0)
    p[:, 0, 2] = (0.3, 0.3, 0.3, 0.3)
    p[:, 1] = 0.25
    maps = pixel_maps(Prediction.from_softmax("x", p, np.zeros((2, 3), np.uint8)))
    np.testing.assert_allclose(maps.entropy, oracle.entropy(p.astype(np.float64)), atol=1e-6)
    np.testing.assert_array_equal(maps.first, p.max(0))
    np.testing.assert_array_equal(maps.second, np.sort(p, axis=0)[-2])
    np.testing.assert_array_equal(maps.arg_max, [[0, 2, 0], [0, 0, 0]])
    assert maps.max_logit.size == maps.log_sum_exp.size == 0


def test_only_what_is_wanted_is_there() -> None:
    maps = pixel_maps(frame(np.ones((3, 2, 2)), (4, 4)), ["first", "arg_max"])
    assert {name for name in MAPS if getattr(maps, name).size} == {"first", "arg_max"}
    with pytest.raises(ValueError, match="the map entropy is absent"):
        SCORES["entropy"](maps)


@pytest.mark.parametrize("threads", [2, 5, 64])
def test_threads_change_nothing(threads: int) -> None:
    values = np.random.default_rng(0).standard_normal((19, 9, 12))
    one = pixel_maps(frame(values, (33, 47)))
    many = pixel_maps(frame(values, (33, 47)), threads=threads)
    for name in MAPS:
        np.testing.assert_array_equal(getattr(one, name), getattr(many, name))


def test_instruction_sets_agree() -> None:
    values = 5 * np.random.default_rng(0).standard_normal((19, 9, 40))
    by_set = []
    for name in SETS:
        _kernel.use_instruction_set(name)
        assert _kernel.instruction_set() == name
        by_set.append(pixel_maps(frame(values, (18, 80))))
    _kernel.use_instruction_set()
    for maps in by_set[1:]:
        for name in MAPS[:-1]:
            np.testing.assert_allclose(getattr(maps, name), getattr(by_set[0], name), rtol=0, atol=3e-6)


def test_a_workspace_gives_its_memory_again() -> None:
    workspace = Workspace()
    first = workspace.array("a", (4, 5), np.float32)
    assert workspace.array("a", (2, 3), np.int32).base is first.base.base or np.shares_memory(
        first, workspace.array("a", (2, 3), np.int32)
    )
    assert not np.shares_memory(first, workspace.array("b", (4, 5), np.float32))
    assert workspace.array("a", (40, 50), np.float64).shape == (40, 50)


def test_up_sampling_is_torch_s() -> None:
    values = np.random.default_rng(0).standard_normal((6, 33, 65)).astype(np.float32)
    for align_corners in (True, False):
        reference = torch.nn.functional.interpolate(
            torch.from_numpy(values)[None], (131, 257), mode="bilinear",
            align_corners=align_corners,
        )[0].numpy()  # fmt: skip
        maps = pixel_maps(frame(values, (131, 257), align_corners), ["max_logit"])
        np.testing.assert_allclose(maps.max_logit, reference.max(0), rtol=0, atol=2e-6)


def test_more_classes_than_a_class_map_holds() -> None:
    with pytest.raises(ValueError, match="256 classes"):
        pixel_maps(frame(np.zeros((256, 1, 1)), (1, 1)))
