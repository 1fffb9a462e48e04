"""The one reader of image files, against files of every format, depth and kind of damage."""

import io
import struct
import zlib
from contextlib import suppress

import numpy as np
import pytest
from PIL import Image

from meta_ood.data.images import image_size, read_image, read_label_map, read_numbers, to_rgb, write_image
from png_files import grey_png

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (40, 60, 3), dtype=np.uint8)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "BMP", "TIFF", "PPM"])
def test_format_is_decided_by_content(tmp_path, kind):
    path = tmp_path / "a.jpg"  # the name does not matter
    Image.fromarray(PIXELS).save(path, kind, lossless=True)
    assert np.array_equal(read_image(path), PIXELS)
    assert image_size(path) == (40, 60)


@pytest.mark.parametrize("kind", ["EPS", "GIF", "PDF", "ICO"])
@pytest.mark.parametrize("read", [read_image, read_label_map, image_size])
def test_other_formats_are_refused_whatever_their_name(tmp_path, kind, read):
    path = tmp_path / "a.png"
    Image.fromarray(PIXELS).save(path, kind)
    with pytest.raises(ValueError, match=r"a\.png: not an image of the formats PNG"):
        read(path)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_orientation_is_applied(tmp_path, orientation, kind):
    path = tmp_path / "a"
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(PIXELS).save(path, kind, exif=exif, lossless=True, quality=100)
    with Image.open(path) as stored:
        raw = np.asarray(stored.convert("RGB"))
    # where row 0 and column 0 of the stored image are in the upright one (EXIF 2.3, tag 0x0112)
    upright = {
        1: raw, 2: raw[:, ::-1], 3: raw[::-1, ::-1], 4: raw[::-1], 5: raw.swapaxes(0, 1),
        6: raw[::-1].swapaxes(0, 1), 7: raw[::-1, ::-1].swapaxes(0, 1),
        8: raw[:, ::-1].swapaxes(0, 1),
    }[orientation]  # fmt: skip
    assert np.array_equal(read_image(path), upright)
    assert image_size(path) == upright.shape[:2]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_other_colour_modes_become_rgb(tmp_path, mode):
    image = Image.fromarray(PIXELS).convert(mode)
    path = tmp_path / "a"
    image.save(path, "TIFF" if mode == "CMYK" else "PNG")
    assert np.array_equal(read_image(path), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bit_grey_is_refused_and_not_clipped_to_white(tmp_path, kind):
    path = tmp_path / "a.png"
    Image.fromarray(np.full((4, 4), 30000, np.uint16)).save(path, kind)
    for read in (read_image, read_label_map):
        with pytest.raises(ValueError, match=r"a\.png: .*(8 bits|formats)"):
            read(path)


@pytest.mark.parametrize(("colour", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_photos_of_16_bits_are_refused_and_not_cut_to_8(tmp_path, colour, channels):
    path = tmp_path / "a.png"  # Cityscapes has such photos, of 12 bits in 16
    grey_png(path, np.full((4, 5 * channels), 4000), 16, colour, channels)
    with pytest.raises(ValueError, match=r"a\.png: .*expected 8 bits per channel"):
        read_image(path)


def test_16_bit_pillow_images_are_refused_too():
    with pytest.raises(ValueError, match="expected 8 bits per channel"):
        to_rgb(Image.fromarray(np.full((4, 4), 30000, np.uint16)))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF"])
def test_damage_anywhere_names_the_file_or_gives_an_image(tmp_path, kind):
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, kind)
    whole = buffer.getvalue()
    path = tmp_path / "a.png"
    for end in (0, 1, 10, len(whole) // 2, len(whole) * 9 // 10):
        path.write_bytes(whole[:end])
        with pytest.raises(ValueError, match=r"a\.png: (cannot be read|not an image)"):
            read_image(path)
    for position in RNG.integers(0, len(whole), 150).tolist():
        damaged = bytearray(whole)
        damaged[position] ^= int(RNG.integers(1, 256))
        path.write_bytes(damaged)
        with suppress(ValueError):  # nothing else may be raised
            assert read_image(path).dtype == np.uint8


def test_a_decompression_bomb_is_refused(tmp_path):
    path = tmp_path / "bomb.png"
    grey_png(path, np.zeros((1, 8), np.uint8), 1)
    content = bytearray(path.read_bytes())
    for side in (10_000, 60_000):  # Pillow warns of the one and refuses the other
        content[16:24] = struct.pack(">II", side, side)
        content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
        path.write_bytes(content)
        for read in (read_image, read_label_map, image_size):
            with pytest.raises(ValueError, match=r"bomb\.png"):
                read(path)


def test_endless_scans_are_refused(tmp_path):
    """A progressive JPEG may repeat its last scan, 17 bytes here, each time with a pass over all pixels."""
    buffer = io.BytesIO()
    Image.new("L", (64, 64)).save(buffer, "JPEG", progressive=True)
    whole = buffer.getvalue()
    scan = whole[whole.rindex(b"\xff\xda") : -2]
    path = tmp_path / "scans.jpg"
    path.write_bytes(whole[:-2] + 20 * scan + whole[-2:])
    assert read_image(path).shape == (64, 64, 3)
    path.write_bytes(whole[:-2] + 2000 * scan + whole[-2:])
    with pytest.raises(ValueError, match=r"scans\.jpg: .*more than 1000 scans"):
        read_image(path)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_label_ids_are_not_stretched(tmp_path, bits):
    ids = RNG.integers(0, 2**bits, (5, 11), dtype=np.uint8)
    grey_png(tmp_path / "grey.png", ids, bits)
    assert np.array_equal(read_label_map(tmp_path / "grey.png"), ids)
    palette = Image.fromarray(ids).convert("P")
    palette.putdata(ids.ravel().tolist())
    palette.putpalette([k * 7 % 256 for k in range(3 * 2**bits)])
    palette.save(tmp_path / "palette.png", bits=bits)
    assert np.array_equal(read_label_map(tmp_path / "palette.png"), ids)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("read", [read_label_map, read_numbers])
def test_inverted_grey_values_are_refused(tmp_path, bits, read):
    """In such a TIFF, 0 is white: Pillow would turn id k into 255 - k."""
    path = tmp_path / "a.tif"
    tags = {256: 8, 257: 2, 258: bits, 259: 1, 262: 0, 273: 200, 277: 1, 278: 2, 279: 2 * bits}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    path.write_bytes((struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries).ljust(200, b"\0") + bytes(2 * bits))
    with pytest.raises(ValueError, match=r"a\.tif: .*inverted"):
        read(path)
    # the same file without this sign is read
    path.write_bytes(path.read_bytes().replace(struct.pack("<HHII", 262, 4, 1, 0), struct.pack("<HHII", 262, 4, 1, 1)))
    assert np.array_equal(read(path), np.zeros((2, 8)))


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "BMP"])
def test_label_maps_of_other_formats_are_refused(tmp_path, kind):
    path = tmp_path / "labels.png"
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(path, kind)
    with pytest.raises(ValueError, match=r"labels\.png: not an image of the formats PNG, TIFF"):
        read_label_map(path)


def test_a_label_map_in_colour_is_refused(tmp_path):
    write_image(tmp_path / "labels.png", PIXELS)
    with pytest.raises(ValueError, match=r"labels\.png: .*expected label ids .*got mode RGB"):
        read_label_map(tmp_path / "labels.png")


def test_written_images_are_read_back(tmp_path):
    write_image(tmp_path / "new" / "a.png", PIXELS, compress_level=1)
    assert np.array_equal(read_image(tmp_path / "new" / "a.png"), PIXELS)
    write_image(tmp_path / "a.jpg", PIXELS, quality=90)
    with Image.open(tmp_path / "a.jpg") as image:
        assert image.format == "JPEG"
    with pytest.raises(FileNotFoundError):
        read_image(tmp_path / "missing.png")
