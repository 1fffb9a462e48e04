import dataclasses
import fcntl
from pathlib import Path

import h5py
import numpy as np
import pytest

from children import start
from meta_ood.data.prediction_files import as_stored, map_as_stored, open_predictions, read_prediction, write_prediction
from meta_ood.data.predictions import Prediction
from meta_ood.scores.maps import pixel_maps
from meta_ood.segments import SegmentTable, measure_segments
from meta_ood.segments.table_file import read_table, write_table
from segment_oracle import entropy, softmax

NAMES = ("road", "car", "sky")


def _prediction(image_id: str = "a", seed: int = 0, scale: float = 5.0) -> Prediction:
    rng = np.random.default_rng(seed)
    return Prediction(
        image_id=image_id,
        logits=(scale * rng.standard_normal((3, 5, 7))).astype(np.float32),
        size=(9, 13),
        align_corners=bool(seed % 2),
        target=rng.choice(np.array([0, 1, 2, 254, 255], np.uint8), (9, 13)),
        scene="street",
    )


def _write(path: Path, prediction: Prediction, weights: str = "f00d") -> None:
    write_prediction(path, prediction, class_names=NAMES, network="net", weights_sha256=weights)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_prediction_comes_back_within_half_a_step(tmp_path: Path, seed: int) -> None:
    written = _prediction(seed=seed)
    _write(tmp_path / "a.h5", written)
    read = read_prediction(tmp_path / "a.h5")
    step = np.ptp(written.logits, axis=(1, 2), keepdims=True) / 65535
    assert (np.abs(read.logits - written.logits) <= 0.51 * step).all()
    assert (read.image_id, read.size, read.align_corners, read.scene, read.is_softmax) == (
        "a",
        (9, 13),
        bool(seed % 2),
        "street",
        False,
    )
    np.testing.assert_array_equal(read.target, written.target)


@pytest.mark.parametrize("value", [0.0, -3.5, 1e6])
def test_constant_logits_come_back(tmp_path: Path, value: float) -> None:
    written = _prediction()
    written.logits[:] = value
    _write(tmp_path / "a.h5", written)
    np.testing.assert_allclose(read_prediction(tmp_path / "a.h5").logits, value, rtol=1e-6)


def test_a_range_too_large_for_16_bits_is_stored_exactly(tmp_path: Path) -> None:
    written = _prediction(scale=1e4)
    _write(tmp_path / "a.h5", written)
    np.testing.assert_array_equal(read_prediction(tmp_path / "a.h5").logits, written.logits)


def test_a_given_softmax_is_stored_exactly(tmp_path: Path) -> None:
    softmax = np.random.default_rng(0).dirichlet(np.ones(3), (4, 6)).transpose(2, 0, 1)
    written = Prediction.from_softmax("s", softmax, np.zeros((4, 6), np.uint8))
    _write(tmp_path / "s.h5", written)
    read = read_prediction(tmp_path / "s.h5")
    assert read.is_softmax
    np.testing.assert_array_equal(read.logits, written.logits)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_names_the_frame(tmp_path: Path, value: float) -> None:
    written = _prediction("frame_7")
    written.logits[1, 2, 3] = value
    with pytest.raises(ValueError, match="frame_7"):
        _write(tmp_path / "a.h5", written)
    assert not list(tmp_path.iterdir())


def test_a_folder_is_read_in_file_name_order(tmp_path: Path) -> None:
    for name in ("b", "c", "a"):
        _write(tmp_path / f"{name}.h5", _prediction(name))
    (tmp_path / ".d.h5.1.0.tmp").write_bytes(b"half a file")
    folder = open_predictions(tmp_path)
    assert [p.image_id for p in folder] == ["a", "b", "c"]
    assert len(folder) == 3
    assert (folder.class_names, folder.network, folder.weights_sha256) == (NAMES, "net", "f00d")


@pytest.mark.parametrize("keep", [0, 100, 2000])
def test_a_damaged_file_is_named(tmp_path: Path, keep: int) -> None:
    for name in ("a", "b"):
        _write(tmp_path / f"{name}.h5", _prediction(name))
    whole = (tmp_path / "b.h5").read_bytes()
    assert len(whole) > keep
    (tmp_path / "b.h5").write_bytes(whole[:keep])
    with pytest.raises(ValueError, match=r"b\.h5"):
        open_predictions(tmp_path)


def test_files_of_other_weights_do_not_mix(tmp_path: Path) -> None:
    _write(tmp_path / "a.h5", _prediction("a"))
    _write(tmp_path / "b.h5", _prediction("b"), weights="beef")
    with pytest.raises(ValueError, match=r"b\.h5.*weights differ"):
        open_predictions(tmp_path)


def test_an_empty_folder_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="infer"):
        open_predictions(tmp_path)


def test_a_table_comes_back(tmp_path: Path) -> None:
    tables = [measure_segments(_prediction(str(seed), seed), "entropy", 0.3) for seed in range(4)]
    written = SegmentTable.concatenate(tables)
    assert len(written.image) > 0
    assert len(written.component_image) > 0
    path = tmp_path / "deep" / "table.h5"
    write_table(path, written, {"network": "net"})
    read = read_table(path)
    for name, value in vars(written).items():
        np.testing.assert_array_equal(getattr(read, name), value, err_msg=name)
    before = path.read_bytes()
    write_table(path, written, {"network": "net"})
    assert path.read_bytes() == before


def test_a_table_is_no_prediction(tmp_path: Path) -> None:
    write_table(tmp_path / "t.h5", measure_segments(_prediction()), {})
    with pytest.raises(ValueError, match="meta-ood prediction"):
        read_prediction(tmp_path / "t.h5")


@pytest.mark.parametrize("spread", [1.0, 10.0, 64.0])
def test_the_entropy_changes_by_less_than_a_thousandth(tmp_path: Path, spread: float) -> None:
    rng = np.random.default_rng(0)
    logits = rng.uniform(-spread, 64 - spread, (3, 60, 60)).astype(np.float32)
    logits[:, :30] = rng.normal(0, 1.5, (3, 30, 60))
    written = Prediction("a", logits, (60, 60), True, np.zeros((60, 60), np.uint8))
    _write(tmp_path / "a.h5", written)
    read = read_prediction(tmp_path / "a.h5")
    before, after = (entropy(softmax(p.logits.astype(float))) for p in (written, read))
    assert 0 < np.abs(after - before).max() < 1e-3


def test_a_writer_that_was_killed_leaves_nothing_behind_the_next(tmp_path: Path) -> None:
    (tmp_path / ".a.h5.99999.0.tmp").write_bytes(b"half a file")
    (tmp_path / ".b.h5.99999.0.tmp").write_bytes(b"another writer's")
    _write(tmp_path / "a.h5", _prediction())
    assert sorted(p.name for p in tmp_path.iterdir()) == [".b.h5.99999.0.tmp", "a.h5"]


def test_files_are_the_same_byte_for_byte(tmp_path: Path) -> None:
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
        _write(tmp_path / name / "a.h5", _prediction())
    assert (tmp_path / "x" / "a.h5").read_bytes() == (tmp_path / "y" / "a.h5").read_bytes()


def test_a_file_can_be_read_as_documented(tmp_path: Path) -> None:
    """docs/formats.md, without a line of ours."""
    written = _prediction()
    _write(tmp_path / "a.h5", written)
    with h5py.File(tmp_path / "a.h5") as file:
        assert (file.attrs["format"], file.attrs["version"]) == ("meta-ood prediction", 1)
        stored = file["logits"]
        scale, offset = (stored.attrs[name][:, None, None] for name in ("scale", "offset"))
        logits = stored[()] * scale + offset
        assert list(file.attrs["class_names"]) == list(NAMES)
        np.testing.assert_array_equal(file["target"][()], written.target)
    np.testing.assert_allclose(logits, written.logits, atol=5e-4)


def test_scores_can_be_computed_as_documented(tmp_path: Path) -> None:
    """docs/formats.md, without a line of ours: logits, up-sampling, entropy."""
    for seed in (0, 1):
        _write(tmp_path / "a.h5", _prediction(seed=seed))
        with h5py.File(tmp_path / "a.h5") as file:
            stored = file["logits"]
            scale, offset = (stored.attrs[name][:, None, None] for name in ("scale", "offset"))
            logits = stored[()] * scale + offset
            for axis, size in zip((1, 2), file.attrs["size"], strict=True):
                y, h = np.arange(size), logits.shape[axis]
                at = np.maximum(0, (y + 0.5) * h / size - 0.5)
                if file.attrs["align_corners"]:
                    at = y * (h - 1) / (size - 1)
                grid = np.minimum([np.floor(at), np.floor(at) + 1], h - 1).astype(int)
                low, high = (logits.take(part, axis) for part in grid)
                share = (at - grid[0])[:, None] if axis == 1 else at - grid[0]
                logits = low + share * (high - low)
        p = np.exp(logits) / np.exp(logits).sum(0)
        documented = -(p * np.log(p)).sum(0) / np.log(len(p))
        ours = pixel_maps(read_prediction(tmp_path / "a.h5"), ["entropy"]).entropy
        np.testing.assert_allclose(ours, documented, atol=2e-5)


def test_a_table_can_be_read_as_documented(tmp_path: Path) -> None:
    """docs/formats.md, without a line of ours."""
    tables = [measure_segments(_prediction(str(seed), seed), "entropy", 0.3) for seed in range(4)]
    written = SegmentTable.concatenate(tables)
    write_table(tmp_path / "t.h5", written, {"network": "net"})
    with h5py.File(tmp_path / "t.h5") as file:
        assert (file.attrs["format"], file.attrs["version"]) == ("meta-ood segments", 2)
        assert (file.attrs["score"], file.attrs["threshold"]) == ("entropy", 0.3)
        assert file.attrs["provenance.network"] == "net"
        names = [name.decode() for name in file["feature_names"]]
        size = file["features"][:, names.index("S")]
        images = [file["image_ids"][i].decode() for i in file["image"]]
        found = set(file["overlaps"][:, 1].tolist())
        missed = [i for i in range(len(file["component_size"])) if i not in found]
        false = int((file["iou"][()] == 0).sum())
    assert len(names) == 37 + 2 * 3
    assert size.sum() == written.segment_size.sum()
    assert images == [written.image_ids[i] for i in written.image]
    assert missed == np.flatnonzero(written.is_missed).tolist()
    assert false == written.is_false.sum()


def test_tables_of_version_1_are_read_without_their_other_columns(tmp_path: Path) -> None:
    path, written = tmp_path / "t.h5", measure_segments(_prediction(), "entropy", 0.3)
    write_table(path, written, {})
    with h5py.File(path, "r+") as file:
        file.attrs["version"] = 1
        file["component_iou"] = np.zeros(len(written.component_size))
    for name, value in vars(written).items():
        np.testing.assert_array_equal(getattr(read_table(path), name), value, err_msg=name)


def test_label_ids_come_back(tmp_path: Path) -> None:
    ids = np.random.default_rng(0).integers(0, 44, (9, 13)).astype(np.uint8)
    _write(tmp_path / "a.h5", dataclasses.replace(_prediction(), label_ids=ids))
    read = read_prediction(tmp_path / "a.h5")
    assert read.label_ids is not None
    np.testing.assert_array_equal(read.label_ids, ids)
    with h5py.File(tmp_path / "a.h5") as file:
        np.testing.assert_array_equal(file["label_ids"][()], ids)
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        del file["label_ids"]  # as in files of before
    assert read_prediction(tmp_path / "a.h5").label_ids is None


def _write_some(folder: Path, first: int) -> None:
    for seed in range(first, 40, 4):
        _write(folder / f"{seed:02d}.h5", _prediction(f"{seed:02d}", seed))
        _write(folder / "common.h5", _prediction("common"))


def test_many_writers_at_once(tmp_path: Path) -> None:
    for name in ("alone", "together"):
        (tmp_path / name).mkdir()
    for first in range(4):
        _write_some(tmp_path / "alone", first)
    writers = [start(_write_some, tmp_path / "together", first) for first in range(4)]
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    both = [{p.name: p.read_bytes() for p in d.iterdir()} for d in sorted(tmp_path.iterdir())]
    assert both[0] == both[1]
    assert len(both[0]) == 41


def test_what_a_killed_writer_left_is_swept_and_nothing_else(tmp_path: Path) -> None:
    left, written, other = (tmp_path / f".{name}.tmp" for name in ("a.h5.1.0", "a.h5.2.0", "b.h5.1.0"))
    for path in (left, written, other):
        path.write_bytes(b"half")
    with written.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        _write(tmp_path / "a.h5", _prediction())
    assert {path.name for path in tmp_path.iterdir()} == {"a.h5", written.name, other.name}
    assert written.read_bytes() == b"half"


def test_a_file_that_vanished_is_not_taken_for_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace = Path.replace

    def after_a_loss(temporary: Path, target: Path) -> Path:
        temporary.unlink()
        return replace(temporary, target)

    monkeypatch.setattr(Path, "replace", after_a_loss)
    with pytest.raises(FileNotFoundError, match=r"a\.h5"):
        _write(tmp_path / "a.h5", _prediction())


def test_an_unknown_version_is_named(tmp_path: Path) -> None:
    _write(tmp_path / "a.h5", _prediction())
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file.attrs["version"] = 99
    with pytest.raises(ValueError, match=r"a\.h5.*version 1.*99"):
        open_predictions(tmp_path)


def test_a_file_without_its_logits_is_named(tmp_path: Path) -> None:
    _write(tmp_path / "a.h5", _prediction())
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        del file["logits"]
    with pytest.raises(ValueError, match=r"a\.h5.*damaged"):
        read_prediction(tmp_path / "a.h5")


@pytest.mark.parametrize("scale", [0.0, 3.0, 1e4])
def test_as_stored_is_what_comes_back_to_the_bit(tmp_path: Path, scale: float) -> None:
    written = _prediction(scale=scale)
    _write(tmp_path / "a.h5", written)
    np.testing.assert_array_equal(read_prediction(tmp_path / "a.h5").logits, as_stored(written.logits))


def test_score_maps_come_back_as_half_floats(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    maps = {
        "distances": np.exp(4 * rng.standard_normal((40, 50))).astype(np.float32),  # from 1e-6 to 1e6
        "shifted": (1000 + rng.standard_normal((6, 7))).astype(np.float32),
        "constant": np.full((2, 3), 7, np.float32),
        "two": np.array([[0, 0, 0, 0, 0, 0, 0, 1e30]], np.float32),
    }
    _write(tmp_path / "a.h5", dataclasses.replace(_prediction(), stored=maps))
    read = read_prediction(tmp_path / "a.h5").stored
    assert set(read) == set(maps)
    for name, values in maps.items():
        np.testing.assert_array_equal(read[name], map_as_stored(values))
        median, spread = np.median(values), np.subtract(*np.quantile(values, (0.75, 0.25)))
        away = np.abs(values.astype(np.float64) - median)
        assert (np.abs(read[name] - values) <= 2.0**-11 * away + 1e-7 * (spread + np.abs(values))).all()
    broken = dataclasses.replace(_prediction(), stored={"rba": np.full((2, 3), np.nan, np.float32)})
    with pytest.raises(ValueError, match="a: NaN or infinity in the rba"):
        _write(tmp_path / "b.h5", broken)
