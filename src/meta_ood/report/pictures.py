"""The page's pictures: which frames have some, and each as a data URI."""

import base64
import io
from pathlib import Path

from PIL import Image

from meta_ood.data.images import image_size, read_image
from meta_ood.report.results import Evaluation, Results

# the report page is about so wide [px]: more would only make the file larger
_MAX_WIDTH = 640

MOST_BYTES = 20_000
"""Of a thumbnail of the gallery, before it is written as text, which takes a third more."""


def scenes(results: Results) -> dict[str, dict[str, list[list[Evaluation]]]]:
    """Return dataset -> image id -> one list per network: its evaluations with pictures of the frame."""
    found: dict[str, dict[str, list[list[Evaluation]]]] = {}
    for variants in results.groups:
        for image_id in {image_id for one in variants for image_id in one.pictures}:
            strips = found.setdefault(variants[0].dataset, {}).setdefault(image_id, [])
            strips.append([one for one in variants if image_id in one.pictures])
    return found


def data_uri(path: Path) -> str:
    """Return a picture as a data URI: as it is if it is narrow, else as a smaller JPEG."""
    height, width = image_size(path)
    if width <= _MAX_WIDTH:
        data, media = path.read_bytes(), "image/png"
    else:
        size = _MAX_WIDTH, max(1, round(height * _MAX_WIDTH / width))
        buffer = io.BytesIO()
        image = Image.fromarray(read_image(path)).resize(size, Image.Resampling.LANCZOS)
        image.save(buffer, "jpeg", quality=88)
        data, media = buffer.getvalue(), "image/jpeg"
    return f"data:{media};base64,{base64.b64encode(data).decode('ascii')}"


def thumbnail(path: Path, size: tuple[int, int]) -> str:
    """Return an image file at this size, ``(rows, columns)``, as base64 of a WebP file of at most MOST_BYTES.

    Only an image of noise is larger than that at the lowest quality, too.
    """
    image = Image.fromarray(read_image(path)).resize(size[::-1], Image.Resampling.LANCZOS)
    for quality in (80, 65, 50, 30, 10):
        buffer = io.BytesIO()
        image.save(buffer, "webp", quality=quality)
        if buffer.tell() <= MOST_BYTES:
            break
    return base64.b64encode(buffer.getvalue()).decode("ascii")
