"""Thinned label maps as runs: against loops over pixels."""

import numpy as np
import pytest

from meta_ood.evaluation import masks
from meta_ood.segments import label_map


def painted(runs, size):
    flat = np.zeros(size[0] * size[1], np.int64)
    for start, length, label in runs:
        assert not flat[start : start + length].any()
        flat[start : start + length] = label
    return flat.reshape(size)


@pytest.mark.parametrize("size", [(5, 7), (64, 512), (65, 513), (30, 1100)])
def test_runs_paint_the_highest_label_of_each_block(size):
    labels = label_map(np.random.default_rng(size[1]).random(size) < 0.2)
    step = -(-size[1] // masks.WIDTH)
    rows, columns = thinned = masks.thinned_size(size)
    assert columns <= masks.WIDTH
    found = painted(masks.runs_of(labels), thinned)
    for row in range(0, rows, 7):
        for column in range(0, columns, 5):
            block = labels[row * step : (row + 1) * step, column * step : (column + 1) * step]
            assert found[row, column] == block.max()


def test_no_segment_and_nothing_else():
    assert masks.runs_of(np.zeros((3, 4), np.int32)).shape == (0, 3)
    assert masks.runs_of(np.full((3, 4), 2, np.int32)).tolist() == [[0, 12, 2]]


def test_a_file_gives_back_its_frames(tmp_path):
    frames = {"b": masks.runs_of(np.eye(6, dtype=np.int32)), "a": np.zeros((0, 3), np.int32)}
    masks.write_masks(tmp_path / "m.h5", frames)
    found = masks.read_masks(tmp_path / "m.h5")
    assert list(found) == ["a", "b"]
    for name, runs in frames.items():
        np.testing.assert_array_equal(found[name], runs)
    content = (tmp_path / "m.h5").read_bytes()
    masks.write_masks(tmp_path / "m.h5", dict(sorted(frames.items())))
    assert (tmp_path / "m.h5").read_bytes() == content


def test_another_file_is_refused(tmp_path):
    (tmp_path / "m.h5").write_bytes(b"no")
    with pytest.raises(ValueError, match=r"m\.h5"):
        masks.read_masks(tmp_path / "m.h5")
