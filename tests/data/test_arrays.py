"""Arrays of other programs: every damage, every claim of size and every foreign link is refused."""

import io
import shutil
import tracemalloc
import zipfile

import h5py
import numpy as np
import pytest
from PIL import Image

from meta_ood.data.arrays import MAX_PIXELS, read_array
from meta_ood.data.prediction_files import open_predictions, read_prediction, write_prediction
from meta_ood.data.predictions import Prediction
from meta_ood.segments import measure_segments, table_file
from png_files import grey_png

SCORE = np.random.default_rng(0).normal(size=(12, 17)).astype(np.float32)


def npy_header(shape: str, dtype: str = "<f4") -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros((1, 1), np.float32))
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}}}".ljust(117) + "\n"
    return buffer.getvalue()[:10] + text.encode()


@pytest.fixture
def files(tmp_path):
    """Return one file of every format, all with the same array."""
    np.save(tmp_path / "a.npy", SCORE)
    np.savez_compressed(tmp_path / "a.npz", value=SCORE)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("deep/value", data=SCORE, compression="gzip")
    Image.fromarray(SCORE).save(tmp_path / "a.tif")
    return tmp_path


def test_every_format_gives_the_same(files):
    for path in files.iterdir():
        np.testing.assert_array_equal(read_array(path), SCORE)
    np.save(files / "flat.npy", SCORE[None])
    np.testing.assert_array_equal(read_array(files / "flat.npy"), SCORE)


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.h5", "a.tif"])
def test_damage_is_a_value_error_with_the_name(files, name):
    content = (files / name).read_bytes()
    rng = np.random.default_rng(0)
    path = files / name.replace("a.", "damaged.")
    messages = []
    for _ in range(150):
        damaged = bytearray(content)
        for place in rng.integers(0, len(content), 3):
            damaged[place] = rng.integers(256)
        end = rng.integers(1, len(content)) if rng.random() < 0.3 else len(content)
        path.write_bytes(damaged[:end])
        try:
            read_array(path)
        except ValueError as error:
            messages.append(str(error))
    assert len(messages) > 30
    assert all(str(path) in message for message in messages)


def test_claimed_sizes_are_refused_before_memory_is_asked_for(tmp_path):
    huge = npy_header("(1000000, 1000000)")
    (tmp_path / "huge.npy").write_bytes(huge)
    with zipfile.ZipFile(tmp_path / "huge.npz", "w") as archive:
        archive.writestr("value.npy", huge)
    with h5py.File(tmp_path / "huge.h5", "w") as file:
        file.create_dataset("value", (1_000_000, 1_000_000), np.float32, chunks=(8, 8))
    Image.new("1", (9_500, 9_500)).save(tmp_path / "huge.png")
    message = f"at most {MAX_PIXELS}|exceeds limit|claims"
    for path in tmp_path.iterdir():
        with pytest.raises(ValueError, match=rf"{path.name}: .*({message})"):
            read_array(path)


def test_a_long_header_is_refused_before_it_is_read(tmp_path):
    """A header of 300 MB of blanks packs to 300 kB."""
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("value.npy", b"\x93NUMPY\x02\0" + (300_000_000).to_bytes(4, "little") + bytes(300_000_000))
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"bomb\.npz: .*a header of 300000000 bytes"):
        read_array(tmp_path / "bomb.npz")
    assert tracemalloc.get_traced_memory()[1] < 10e6
    tracemalloc.stop()


def test_nested_groups_end_the_search(tmp_path):
    with h5py.File(tmp_path / "deep.h5", "w") as file:
        group = file
        for _ in range(1100):
            group = group.create_group("g")
    with pytest.raises(ValueError, match=r"deep\.h5: .*none in 1001 groups"):
        read_array(tmp_path / "deep.h5")


def test_grey_values_of_few_bits_are_not_stretched(tmp_path):
    for bits in (1, 2, 4):
        values = np.arange(8).reshape(2, 4) % 2**bits
        grey_png(tmp_path / "a.png", values, bits)
        assert np.array_equal(read_array(tmp_path / "a.png"), values)


def test_a_zip_bomb_is_refused(tmp_path):
    content = npy_header("(20000, 20000)") + bytes(10**6)
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("value.npy", content)
    with pytest.raises(ValueError, match="at most"):
        read_array(tmp_path / "bomb.npz")


def test_links_and_storage_in_other_files_are_refused(tmp_path):
    secret = tmp_path / "secret.bin"
    secret.write_bytes(SCORE.tobytes())
    with h5py.File(tmp_path / "inner.h5", "w") as file:
        file["value"] = SCORE
    with h5py.File(tmp_path / "external.h5", "w") as file:
        file.create_dataset("value", SCORE.shape, SCORE.dtype, external=[(str(secret), 0, 816)])
    with h5py.File(tmp_path / "link.h5", "w") as file:
        file["value"] = h5py.ExternalLink("inner.h5", "/value")
    with h5py.File(tmp_path / "virtual.h5", "w") as file:
        layout = h5py.VirtualLayout(SCORE.shape, SCORE.dtype)
        layout[:] = h5py.VirtualSource("inner.h5", "value", SCORE.shape)
        file.create_virtual_dataset("value", layout)
    for name, message in (
        ("external.h5", "lie in another file"),
        ("link.h5", "found none"),
        ("virtual.h5", "lie in another file"),
    ):
        with pytest.raises(ValueError, match=message):
            read_array(tmp_path / name)


def test_what_is_no_map_is_named(tmp_path):
    np.savez(tmp_path / "two.npz", a=SCORE, b=SCORE)
    np.savez(tmp_path / "none.npz")
    np.save(tmp_path / "deep.npy", np.zeros((2, 2, 3)))
    np.save(tmp_path / "text.npy", np.array([["a", "b"]]))
    np.save(tmp_path / "objects.npy", np.array([[None, {}]]), allow_pickle=True)
    with h5py.File(tmp_path / "none.h5", "w"):
        pass
    with h5py.File(tmp_path / "text.h5", "w") as file:
        file["value"] = "text"
    (tmp_path / "noise.png").write_bytes(b"no picture")
    (tmp_path / "eps.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    Image.new("RGB", (4, 4)).save(tmp_path / "colour.png")
    for name, message in (
        ("two.npz", "one array, found a, b"),
        ("none.npz", "found none"),
        ("deep.npy", "one value a pixel"),
        ("text.npy", "numbers"),
        ("objects.npy", "numbers"),
        ("none.h5", "found none"),
        ("text.h5", "numbers"),
        ("noise.png", "not an image"),
        ("eps.png", "not an image"),
        ("colour.png", "mode RGB"),
    ):
        with pytest.raises(ValueError, match=rf"{name}: .*{message}"):
            read_array(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_array(tmp_path / "nowhere.npy")


# --- our own formats, from others -----------------------------------------------------------


@pytest.fixture
def prediction_file(tmp_path):
    rng = np.random.default_rng(0)
    logits, target = rng.normal(size=(5, 8, 12)).astype(np.float32), np.zeros((16, 24), np.uint8)
    names = {"class_names": list("abcde"), "network": "n", "weights_sha256": "0"}
    write_prediction(tmp_path / "a.h5", Prediction("a", logits, (16, 24), True, target), **names)
    return tmp_path / "a.h5"


def external(file, name):
    shape, dtype = file[name].shape, file[name].dtype
    del file[name]
    file.create_dataset(name, shape, dtype, external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)])


def link(file, name):
    del file[name]
    file[name] = h5py.ExternalLink("other.h5", "/x")


def soft(file, name):
    file.move(name, "elsewhere")
    file[name] = h5py.SoftLink("/elsewhere")


def huge(file, name):
    dtype = file[name].dtype
    del file[name]
    file.create_dataset(name, (5, 10**6, 10**6), dtype, chunks=(1, 8, 8))


def text(file, name):
    del file[name]
    file[name] = "text"


@pytest.mark.parametrize("change", [external, link, soft, huge, text], ids=lambda f: f.__name__)
def test_hostile_predictions_and_tables_are_refused(prediction_file, change):
    prediction = read_prediction(prediction_file)
    table_file.write_table(prediction_file.with_name("t.h5"), measure_segments(prediction), {})
    (prediction_file.parent / "other.h5").write_bytes(prediction_file.read_bytes())
    for name, field, read in (
        ("a.h5", "target", read_prediction),
        ("a.h5", "logits", read_prediction),
        ("t.h5", "features", table_file.read_table),
    ):
        path = shutil.copy(prediction_file.with_name(name), prediction_file.with_name("h.h5"))
        with h5py.File(path, "r+") as file:
            change(file, field)
        tracemalloc.start()
        with pytest.raises(ValueError, match=r"h\.h5: damaged or not a file of ours"):
            read(path)
        assert tracemalloc.get_traced_memory()[1] < 10e6
        tracemalloc.stop()


@pytest.mark.parametrize("key", ["format", "version", "size", "align_corners", "image_id"])
def test_attributes_of_other_types_are_refused(prediction_file, key):
    for value in (np.zeros(3), "text", [1, 2, 3, 4], -5.5):
        with h5py.File(prediction_file, "r+") as file:
            before = file.attrs[key]
            file.attrs[key] = value
        message = ""
        try:
            read_prediction(prediction_file)  # some values are no mistake: "text" as a name
        except ValueError as error:
            message = str(error)
        assert message == "" or "a.h5" in message
        with h5py.File(prediction_file, "r+") as file:
            file.attrs[key] = before


@pytest.mark.parametrize("where", ["begin", "end"])
def test_a_heap_that_does_not_advance_is_refused(prediction_file, where):
    """HDF5 itself would read it for ever."""
    if where == "end":  # numbers first, so that the texts lie a megabyte behind them
        with h5py.File(prediction_file.with_name("b.h5"), "w") as file, h5py.File(prediction_file) as source:
            file["first"] = np.zeros(200_000)
            for name in source:
                source.copy(name, file)
            file.attrs.update(source.attrs)
        prediction_file = prediction_file.with_name("b.h5")
        assert read_prediction(prediction_file).image_id == "a"
    content = bytearray(prediction_file.read_bytes())
    first = content.index(b"GCOL") + 16
    assert (first > 2**20) == (where == "end")
    for damage in (bytes(16), bytes(8) + b"\x08".ljust(8, b"\0"), content[first : first + 8] + b"\xff" * 8):
        prediction_file.write_bytes(content[:first] + damage + content[first + 16 :])
        for read in (read_prediction, lambda path: open_predictions(path.parent)):
            with pytest.raises(ValueError, match=rf"{prediction_file.name}: .*heap of texts is damaged"):
                read(prediction_file)
