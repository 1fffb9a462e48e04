"""Requests to a served detector, their limits, and its answers.

No web framework is imported here: the scoring server of MLflow brings one, see :mod:`meta_ood.tracking.served`.
"""

import asyncio
import base64
import io
import json
import os
import time
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
from PIL import Image, UnidentifiedImageError

from meta_ood.data.images import check_scans, to_rgb
from meta_ood.data.overlays import encode_png
from meta_ood.detector.detector import SMALLEST, Detection, Detector

EXPECTED = "expected a PNG or JPEG file as base64 text, or an array (H, W, 3) of whole numbers in [0, 255]"
_TABLES = ("application/json", "text/csv", "application/vnd.apache.parquet")  # what the scoring server takes itself


class RequestError(ValueError):
    """A request that is answered with status 400; the message says what is expected."""


@dataclass(frozen=True)
class Limits:
    """The most that one request may ask for. The defaults need about 2 GB of memory."""

    # of one image, checked from its header before it is decoded: a network takes about 100 bytes of memory a pixel
    pixels: int = 2048 * 4096
    images: int = 16
    pixels_in_sum: int = 4 * 2048 * 4096  # bounds the time of an answer and the size of its maps
    body_bytes: int = 32 * 2**20  # JSON of many small lists takes up to 30 times as much when it is parsed
    body_seconds: int = 60  # until the body has arrived
    # then no further image is begun; the default is the time after which MLflow reports a failure to the client
    answer_seconds: int = 60

    @classmethod
    def from_environment(cls) -> Self:
        """Return the limits with the values of ``META_OOD_MAX_PIXELS`` and the like over them, else a ValueError."""
        values = {}
        for field in fields(cls):
            variable = f"META_OOD_MAX_{field.name.upper()}"
            if text := os.environ.get(variable):
                if not text.isdecimal() or int(text) < 1:
                    raise ValueError(f"{variable}={text}: expected a whole number above 0")
                values[field.name] = int(text)
        return cls(**values)


def answers(detector: Detector, request: Any, limits: Limits, maps: bool = True) -> Iterator[dict[str, Any]]:
    """Yield the :func:`answer` to each image of a request (see :func:`images_of`); one image at a time is decoded.

    RequestError if a limit is exceeded or an image is none; the image is numbered, from 1.
    """
    given = images_of(request)
    if len(given) > limits.images:
        raise RequestError(f"{len(given)} images in one request: at most {limits.images}")
    # 1. sizes, from the headers: Pillow decodes an image when its pixels are asked for
    images = [_opened(one, number) for number, one in enumerate(given, start=1)]
    for number, image in enumerate(images, start=1):
        if min(image.size) < SMALLEST or image.height * image.width > limits.pixels:
            expected = f"at least {SMALLEST} each way and at most {limits.pixels} in all"
            raise RequestError(f"image {number} has {image.height} x {image.width} pixels: expected {expected}")
    total = sum(image.height * image.width for image in images)
    if total > limits.pixels_in_sum:
        raise RequestError(f"{total} pixels in one request: at most {limits.pixels_in_sum}")
    # 2. decoding and detection, one after another
    end = time.monotonic() + limits.answer_seconds
    for number, image in enumerate(images, start=1):
        if time.monotonic() >= end:
            raise RequestError(f"image {number} was not begun within {limits.answer_seconds} s")
        try:
            with image:  # the decoded pixels are released with it
                rgb = to_rgb(image)
        except Exception as error:  # on damaged files decoders raise nearly anything
            raise RequestError(f"image {number}: {error}: {EXPECTED}") from None
        yield answer(detector(rgb), maps)


def answer(found: Detection, maps: bool = True) -> dict[str, Any]:
    """Return a detection as plain values, with `maps` also pictures, as the text of PNG files in base64.

    ``mask`` and ``kept_mask`` (255 = OoD, before and after meta classification), ``score`` (0 is ``score_low``, 255
    ``score_high``) and ``classes`` (indices of ``class_names``, with a palette).
    """
    values = found.to_dict()
    if maps:
        low, high = min(0.0, float(found.score.min())), max(1.0, float(found.score.max()))
        values |= {
            "mask": _base64(encode_png(found.mask.astype(np.uint8) * 255)),
            "kept_mask": _base64(encode_png(found.kept_mask.astype(np.uint8) * 255)),
            "score": _base64(encode_png(np.rint((found.score - low) / (high - low) * 255).astype(np.uint8))),
            "score_low": low,
            "score_high": high,
            "classes": _base64(encode_png(found.classes, palette=True)),
        }
    return values


def images_of(request: Any) -> list[Any]:
    """Return the images under ``image`` in a mapping or a table: one, or lists of them; else a RequestError."""
    if not hasattr(request, "keys") or "image" not in request:
        names = list(request.keys()) if hasattr(request, "keys") else type(request).__name__
        raise RequestError(f"nothing under `image`, only {names}: {EXPECTED}")
    rows = list(request["image"]) if hasattr(request, "columns") else [request["image"]]
    return [image for row in rows for image in (row if _is_list(row) else [row])]


def _is_list(item: Any) -> bool:
    """Return whether it is a list of images: of texts, or one level deeper than an array (H, W, 3)."""
    depth = 0
    while isinstance(item, list | tuple | np.ndarray) and len(item) and depth < 5:
        item, depth = item[0], depth + 1
    return depth == 4 or (depth == 1 and isinstance(item, str | bytes))


def _opened(given: Any, number: int) -> Image.Image:
    """Return an image whose header was read, from a file's bytes, their base64 text, or numbers."""
    try:
        if isinstance(given, str | bytes):
            content = base64.b64decode(given, validate=True) if isinstance(given, str) else given
            check_scans(content)
            return Image.open(io.BytesIO(content), formats=("PNG", "JPEG"))
        values = np.asarray(given)
        whole = np.clip(np.rint(values), 0, 255)
        if values.ndim != 3 or values.shape[2] != 3 or not np.array_equal(whole, values):
            numbers = f"numbers from {values.min()} to {values.max()}"
            raise ValueError(f"got an array of shape {values.shape} and dtype {values.dtype}, {numbers}")
        return Image.fromarray(whole.astype(np.uint8))
    except UnidentifiedImageError:  # its text names an object in memory
        raise RequestError(f"image {number} is no PNG or JPEG file: {EXPECTED}") from None
    except Exception as error:  # on damaged files decoders raise nearly anything
        raise RequestError(f"image {number}: {error}: {EXPECTED}") from None


def _base64(content: bytes | bytearray) -> str:
    return base64.b64encode(content).decode("ascii")


class Guard:
    """ASGI middleware around a scoring server: bounds the body, and takes images as the body.

    A body that is too large or too slow is refused before it is complete, and so is one of an unknown type. A body of
    type ``image/jpeg`` or ``image/png`` is passed on as the JSON that the scoring server expects.
    """

    def __init__(self, app: Any, limits: Limits) -> None:
        self._app, self._limits = app, limits

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        """Answer one connection."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        most, seconds = self._limits.body_bytes, self._limits.body_seconds
        # 1. the body, before the scoring server gets it
        body, more = bytearray(), True
        status, problem = 413, f"the body has more than {most} bytes"
        try:
            async with asyncio.timeout(seconds):
                while more and len(body) <= most:
                    message = await receive()
                    body += message.get("body", b"")
                    more = message.get("more_body", False)
        except TimeoutError:
            status, problem = 408, f"the body did not arrive within {seconds} s"
        is_accepted = not more and len(body) <= most
        headers = dict(scope["headers"])
        kind = headers.get(b"content-type", b"").decode("latin-1").partition(";")[0].strip().lower()
        is_image = kind.startswith("image/")
        if is_accepted and is_image and not body:
            is_accepted, status, problem = False, 400, f"the body is empty, of type {kind}: expected an image file"
        elif is_accepted and not is_image and kind not in _TABLES:
            expected = "image/jpeg or image/png with the file as the body, or application/json, see docs/serve.md"
            is_accepted, status, problem = False, 415, f"content type {kind or 'unknown'}: expected {expected}"
        if not is_accepted:
            from starlette.responses import JSONResponse

            content = {"error_code": "BAD_REQUEST", "message": problem}
            # the connection ends, since the rest of the body may not be read
            await JSONResponse(content, status, {"connection": "close"})(scope, receive, send)
            return
        # 2. an image becomes the JSON that the scoring server takes
        if is_image:
            body = bytearray(json.dumps({"inputs": {"image": [_base64(body)]}}).encode())
            headers |= {b"content-type": b"application/json", b"content-length": str(len(body)).encode()}
        headers.pop(b"transfer-encoding", None)
        # 3. the whole body is replayed as one part
        parts = iter([{"type": "http.request", "body": bytes(body), "more_body": False}])

        async def replay() -> Any:
            # after the body the application waits for the end of the connection
            return next(parts, None) or await receive()

        await self._app({**scope, "headers": list(headers.items())}, replay, send)
