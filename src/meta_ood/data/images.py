"""Reading and writing image files: photos as RGB, label maps as ids.

Every image that this package reads comes through this module. The format is decided by the file's content and must be
on a list of allowed formats; whatever a decoder raises becomes a ``ValueError`` that names the file.
"""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageFile, ImageOps, UnidentifiedImageError

from meta_ood.data.files import replacing
from meta_ood.data.labels import LabelMap

RgbImage = npt.NDArray[np.uint8]

# Formats of photos. All are decoded in this process; EPS, for example, would start a program.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "PPM")
# Formats of label maps: without loss, since a neighbouring id is another object; of BMP files Pillow reads some of
# 4 bits as if they had 8.
LABEL_FORMATS = ("PNG", "TIFF")
# Pillow's limit for images that may be decompression bombs: 256 MiB as RGB.
MAX_PIXELS = 89_478_485
# In a JPEG file; cameras write one, progressive files about ten. Each passes over the whole image: 17 bytes, 2 ms.
_MOST_SCANS = 1000
# Pillow's modes of at most 8 bits per channel, which convert to RGB without clipping.
_COLOUR_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")
# Its modes of one number per pixel.
_NUMBER_MODES = ("1", "L", "I", "I;16", "I;16L", "I;16B", "F")


def read_image(path: Path) -> RgbImage:
    """Return an image file as ``(H, W, 3) uint8`` RGB, upright.

    The EXIF orientation is applied, an alpha channel is dropped, grey becomes three equal channels.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, of a format outside :data:`FORMATS`, of more than 8 bits per channel or larger
            than :data:`MAX_PIXELS`; the file is named.
    """
    return decode_image(path.read_bytes(), str(path))


def decode_image(content: bytes, name: str) -> RgbImage:
    """Return the content of an image file as in :func:`read_image`; `name` is for messages."""
    with _opened(content, name, FORMATS) as image:
        return to_rgb(image)


def to_rgb(image: Image.Image) -> RgbImage:
    """Return a Pillow image as in :func:`read_image`; more than 8 bits per channel are a ValueError."""
    # Pillow would clip more bits, so that grey becomes white, or cut them off, so that 12 bits in 16 become black
    if image.mode not in _COLOUR_MODES or ";16" in _raw_mode(image):
        raise ValueError(f"expected 8 bits per channel, got mode {image.mode}; convert it")
    upright = image if _orientation(image) == 1 else ImageOps.exif_transpose(image)
    return np.array(upright.convert("RGB"), np.uint8)


def check_scans(content: bytes) -> None:
    """Refuse a JPEG file, with a ValueError, whose scans would keep the decoder busy for minutes."""
    if content.startswith(b"\xff\xd8") and content.count(b"\xff\xda") > _MOST_SCANS:
        raise ValueError(f"more than {_MOST_SCANS} scans in a JPEG file")


def image_size(path: Path) -> tuple[int, int]:
    """Return ``(height, width)`` [px] of an upright image from its header; errors as :func:`read_image`."""
    with path.open("rb") as file, _opened(file, str(path), FORMATS) as image:
        swapped = _orientation(image) in (5, 6, 7, 8)  # turned by a quarter
        return (image.width, image.height) if swapped else (image.height, image.width)


def is_upright(path: Path) -> bool:
    """Return whether an image lies in its file as it is seen, without EXIF rotation; errors as :func:`read_image`."""
    with path.open("rb") as file, _opened(file, str(path), FORMATS) as image:
        return _orientation(image) == 1


def image_header(content: bytes, name: str) -> tuple[str, dict[Any, Any]]:
    """Return Pillow's mode and metadata of an image file's content; `name` is for messages."""
    with _opened(content, name, FORMATS) as image:
        return image.mode, dict(image.info)


def read_label_map(path: Path) -> LabelMap:
    """Return a label map as ``(H, W) uint8`` ids, exactly as they are stored.

    Grey images of 1, 2, 4 and 8 bits and palette images are read; ids are not stretched to 0..255.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, of a format with loss, in colour or of more than 8 bits; the file is named.
    """
    with _opened(path.read_bytes(), str(path), LABEL_FORMATS) as image:
        if image.mode not in ("L", "P", "1") or image.info.get("compression") in ("jpeg", "webp"):
            raise ValueError(f"expected label ids (one channel, 8 bits), got mode {image.mode}")
        return _numbers(image).astype(np.uint8)


def read_numbers(path: Path) -> npt.NDArray[Any]:
    """Return a PNG or TIFF file of one number per pixel as ``(H, W)``, exactly as they are stored.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged or has several channels or a palette; the file is named.
    """
    with _opened(path.read_bytes(), str(path), ("PNG", "TIFF")) as image:
        if image.mode not in _NUMBER_MODES:
            raise ValueError(f"expected one number per pixel, got mode {image.mode}")
        return _numbers(image)


def _numbers(image: Image.Image) -> npt.NDArray[Any]:
    """Return the numbers in a file's pixels, which Pillow may have changed."""
    raw = _raw_mode(image)
    if re.search(r";\d*I", raw) and image.mode in ("1", "L"):  # a TIFF in which 0 is white: Pillow turns it around
        raise ValueError("its grey values are inverted (0 is white): convert it")
    # it stretches grey values of 2 and 4 bits to 0..255 by these factors
    scale = 85 if "L;2" in raw else 17 if "L;4" in raw else 1
    pixels = np.array(image)
    return pixels if scale == 1 else pixels // np.uint8(scale)


def _raw_mode(image: Image.Image) -> str:
    """Return the arguments of Pillow's decoder, which name bits and order; empty once the pixels are read."""
    return str(image.tile[:1]) if isinstance(image, ImageFile.ImageFile) else ""


def write_image(path: Path, pixels: npt.NDArray[np.generic], **options: object) -> None:
    """Write ``(H, W)`` or ``(H, W, 3) uint8``, or ``(H, W) uint16``, atomically as an image file.

    A path that ends in ``.jpg`` makes it a JPEG, every other a PNG; `options` are those of Pillow's ``save``.
    """
    kind = "JPEG" if path.suffix in (".jpg", ".jpeg") else "PNG"
    with replacing(path) as temporary:
        Image.fromarray(pixels).save(temporary, format=kind, **options)


@contextmanager
def _opened(source: bytes | io.BufferedReader, name: str, formats: tuple[str, ...]) -> Iterator[Image.Image]:
    """Yield an open image; any error of the header or the body is a ValueError with its name."""
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        check_scans(source if isinstance(source, bytes) else b"")
        with Image.open(file, formats=formats) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"{image.width}x{image.height} px are more than {MAX_PIXELS}")
            yield image
    except UnidentifiedImageError:
        raise ValueError(f"{name}: not an image of the formats {', '.join(formats)}") from None
    # on damaged files decoders raise nearly anything: OSError, SyntaxError, struct.error, KeyError
    except Exception as error:
        raise ValueError(f"{name}: cannot be read as an image: {error}") from error


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1 (upright) where there is none or it is damaged."""
    try:
        # the base class's method: that of PNG would decode the whole image to look for it
        return int(Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged EXIF data do not make the picture unreadable
        return 1
