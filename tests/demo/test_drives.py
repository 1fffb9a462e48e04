"""Drawn drives: layout, names, times; objects that stay in the world while the camera moves."""

import shutil

import numpy as np
import pytest
from PIL import Image

from meta_ood.data.files import read_csv
from meta_ood.data.labels import OOD
from meta_ood.datasets import read
from meta_ood.demo.drives import LIST, METRES_PER_FRAME, write_drives

FRAMES = 30


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("drives")
    assert sum(write_drives(root, 2, FRAMES, seed=3, height=64, width=128)) == 2 * FRAMES
    return root


def test_they_are_a_lost_and_found_with_times(root):
    rows = read_csv(root / LIST, ["source", "id", "sequence", "time"])
    assert [float(row["time"]) for row in rows] == [k / 10 for k in range(FRAMES)] * 2
    assert len({row["sequence"] for row in rows}) == 2
    frames = read("lost_and_found", root, "test", {"reading": "smiyc"})
    assert [frame.image_id for frame in frames] == [row["id"] for row in rows]
    assert any((frame.target() == OOD).any() for frame in frames)


def test_an_object_grows_as_the_camera_comes_nearer(root):
    """A pinhole camera shows the foot of what stands at depth Z at focal * height / Z below the horizon."""
    feet: dict[int, list[tuple[int, int]]] = {}
    for step, path in enumerate(sorted((root / "gtCoarse" / "test").glob("00_*/*_instanceIds.png"))):
        instances = np.asarray(Image.open(path))
        for number in np.unique(instances[instances >= 1000]).tolist():
            feet.setdefault(number, []).append((step, int(np.nonzero((instances == number).any(axis=1))[0].max()) + 1))
    # one that is seen whole in most frames, until the bottom of the picture cuts it off
    seen = np.array(max(feet.values(), key=lambda rows: rows[-1][0] - rows[0][0]))
    seen = seen[seen[:, 1] < 62]
    assert len(seen) > 8
    # 1 / (row - horizon) falls by METRES_PER_FRAME / (focal * height) a frame; both are within the camera's range
    horizons = np.arange(0.36, 0.48, 0.01) * 64
    rates = [-np.polyfit(seen[:, 0], 1 / (seen[:, 1] - horizon), 1)[0] for horizon in horizons]
    low, high = METRES_PER_FRAME / (128 * 1.1 * 1.6), METRES_PER_FRAME / (128 * 0.95 * 1.3)
    assert any(0.8 * low < rate < 1.25 * high for rate in rates)


def test_same_seed_same_bytes_and_each_drive_by_itself(root, tmp_path):
    """Fewer drives are the first ones of more."""
    list(write_drives(tmp_path, 1, FRAMES, seed=3, height=64, width=128))
    for path in (tmp_path / "leftImg8bit").rglob("*.png"):
        assert path.read_bytes() == (root / path.relative_to(tmp_path)).read_bytes()
    shutil.rmtree(tmp_path / "leftImg8bit")
    list(write_drives(tmp_path, 1, FRAMES, seed=4, height=64, width=128))
    path = next((tmp_path / "leftImg8bit").rglob("*.png"))
    assert path.read_bytes() != (root / path.relative_to(tmp_path)).read_bytes()
