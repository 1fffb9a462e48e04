"""What a served detector is sent and answers, and the limits of a request.

No web framework is imported here: the scoring server of MLflow brings one, see :mod:`meta_ood.tracking.served`.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import io
import json
import os
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from PIL import Image

from meta_ood.data.images import decode_image
from meta_ood.detector.detector import Detection, Detector
from meta_ood.evaluation.overlays import Picture, encode_png

EXPECTED = "expected a PNG or JPEG file as base64 text, or an array (H, W, 3) of whole numbers in [0, 255]"
FORMATS = ("PNG", "JPEG")
_SMALLEST = 32  # [px] each way: the networks reduce height and width by up to 32

Asgi = Callable[
    [MutableMapping[str, Any], Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]
]


class RequestError(ValueError):
    """A request that is answered with status 400; the message says what is expected."""


@dataclass(frozen=True)
class Limits:
    """The most that one request may ask for. The defaults need about 2 GB of memory.

    Attributes:
        pixels: Of one image, checked from its header before it is decoded. A network takes about 100 bytes of memory a
            pixel: 0.8 GB for 2048 x 4096.
        images: In one request.
        pixels_in_sum: Of all images of a request: bounds the time of an answer and the size of its maps.
        body_bytes: Of the body. JSON of many small lists takes up to 30 times as much when it is parsed.
        body_seconds: Until the body has arrived.
        answer_seconds: After this time no further image of a request is begun. The default is the time after which
            MLflow tells the client that its request failed.
    """

    pixels: int = 2048 * 4096
    images: int = 16
    pixels_in_sum: int = 4 * 2048 * 4096
    body_bytes: int = 32 * 2**20
    body_seconds: int = 60
    answer_seconds: int = 60

    @classmethod
    def from_environment(cls) -> Limits:
        """Return the limits with the values of ``META_OOD_MAX_PIXELS`` and the like over them.

        Raises:
            ValueError: If a variable is no whole number above 0; it is named.
        """
        values = {}
        for name in (field.name for field in fields(cls)):
            variable = f"META_OOD_MAX_{name.upper()}"
            if text := os.environ.get(variable):
                if not text.isdecimal() or int(text) < 1:
                    raise ValueError(f"{variable}={text}: expected a whole number above 0")
                values[name] = int(text)
        return cls(**values)


def answers(detector: Detector, request: Any, limits: Limits, maps: bool = True) -> Iterator[dict[str, Any]]:
    """Yield the answer to each image of a request; one image at a time is decoded.

    Args:
        detector: Finds the segments.
        request: What the server was sent, see :func:`images_of`.
        limits: Checked before anything is decoded.
        maps: False leaves the pictures out of the answers.

    Raises:
        RequestError: If a limit is exceeded or an image is none; the image is numbered, from 1.
    """
    images = images_of(request)
    if len(images) > limits.images:
        raise RequestError(f"{len(images)} images in one request: at most {limits.images}")
    # 1. sizes, from the headers
    contents, total = [], 0
    for number, given in enumerate(images, start=1):
        content = _content(given, number)
        height, width = _size(content, number)
        if min(height, width) < _SMALLEST or height * width > limits.pixels:
            raise RequestError(
                f"image {number} has {height} x {width} pixels: expected at least {_SMALLEST} each "
                f"way and at most {limits.pixels} in all"
            )
        total += height * width
        contents.append(content)
    if total > limits.pixels_in_sum:
        raise RequestError(f"{total} pixels in one request: at most {limits.pixels_in_sum}")
    # 2. decoding and detection, one after another
    end = time.monotonic() + limits.answer_seconds
    for number, content in enumerate(contents, start=1):
        if time.monotonic() >= end:
            raise RequestError(f"image {number} was not begun within {limits.answer_seconds} s")
        yield answer(detector(_decoded(content, number)), maps)


def answer(found: Detection, maps: bool = True) -> dict[str, Any]:
    """Return a detection as plain values.

    Args:
        found: What a detector found in one image.
        maps: Whether to add pictures.

    Returns:
        :meth:`Detection.to_dict`, and with `maps` base64 PNG files: ``mask`` and ``kept_mask`` (255 = OoD, before and
        after meta classification), ``score`` (0 is ``score_low``, 255 ``score_high``) and ``classes`` (indices of
        ``class_names``, with a palette).
    """
    values = found.to_dict()
    if maps:
        low, high = min(0.0, float(found.score.min())), max(1.0, float(found.score.max()))
        grey = np.rint((found.score - low) / (high - low) * 255).astype(np.uint8)
        values |= {
            "mask": _base64(encode_png(found.mask.astype(np.uint8) * 255)),
            "kept_mask": _base64(encode_png(found.kept_mask.astype(np.uint8) * 255)),
            "score": _base64(encode_png(grey)),
            "score_low": low,
            "score_high": high,
            "classes": _base64(encode_png(found.classes, palette=True)),
        }
    return values


def images_of(request: Any) -> list[Any]:
    """Return the images in what a server was sent: under ``image``, one or a list of them.

    Raises:
        RequestError: If there is nothing under ``image``.
    """
    columns = getattr(request, "columns", None)
    names = request if isinstance(request, Mapping) else columns
    if names is not None and "image" not in names:
        raise RequestError(f"nothing under `image`, only {list(names)}: {EXPECTED}")
    if columns is not None:  # a table
        return _flat(request["image"])
    return _flat([request["image"] if isinstance(request, Mapping) else request])


def _flat(given: Any) -> list[Any]:
    """Return images and lists of images as one list."""
    found = []
    for item in given:
        many = isinstance(item, list | tuple | np.ndarray) and len(item) > 0
        if many and (isinstance(item[0], str | bytes) or _dimensions(item) == 4):
            found += list(item)
        else:
            found.append(item)
    return found


def _dimensions(item: Any) -> int:
    """Return how deep nested lists are, by their first elements; an array's own number."""
    if isinstance(item, np.ndarray) and item.dtype != object:
        return item.ndim
    depth = 0
    while isinstance(item, list | tuple | np.ndarray) and len(item) and depth < 5:
        item, depth = item[0], depth + 1
    return depth


def _content(given: Any, number: int) -> bytes | Picture:
    """Return an image's encoded bytes, or its array."""
    if isinstance(given, bytes):
        return given
    if isinstance(given, str):
        try:
            return base64.b64decode(given, validate=True)
        except (binascii.Error, ValueError):
            raise RequestError(f"image {number}: the text is no base64: {EXPECTED}") from None
    try:
        values = np.asarray(given)
        fits = values.ndim == 3 and values.shape[2] == 3 and values.dtype.kind in "iuf"
    except (ValueError, RecursionError):  # ragged or too deep
        fits = False
    if not fits:
        kind = f"an array of shape {np.shape(given)}" if hasattr(given, "shape") else type(given)
        raise RequestError(f"image {number} is {kind}: {EXPECTED}")
    whole = np.rint(values)
    if not np.array_equal(whole, values) or whole.min() < 0 or whole.max() > 255:
        raise RequestError(f"image {number} has numbers from {values.min()} to {values.max()}: {EXPECTED}")
    array: Picture = whole.astype(np.uint8)
    return array


def _size(content: bytes | Picture, number: int) -> tuple[int, int]:
    """Return height and width [px] from an image's header."""
    if not isinstance(content, bytes):
        return content.shape[0], content.shape[1]
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            return image.height, image.width
    except Exception:  # on damaged files decoders raise nearly anything
        raise RequestError(f"image {number}: {len(content)} bytes that are no image: {EXPECTED}") from None


def _decoded(content: bytes | Picture, number: int) -> Picture:
    if not isinstance(content, bytes):
        return content
    try:
        return decode_image(content, f"image {number}")
    except ValueError as error:
        raise RequestError(f"{error}: {EXPECTED}") from None


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


class Guard:
    """ASGI middleware around a scoring server: bounds the body, and takes images as the body.

    A body that is too large or too slow is refused before it is complete. A body of type ``image/jpeg`` or
    ``image/png`` is passed on as the JSON that the scoring server expects.
    """

    def __init__(self, app: Asgi, limits: Limits) -> None:
        self._app, self._limits = app, limits

    async def __call__(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[Any]],
        send: Callable[[Any], Awaitable[None]],
    ) -> None:
        """Answer one connection."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        most, seconds = self._limits.body_bytes, self._limits.body_seconds
        try:
            body = await asyncio.wait_for(_read_body(receive, most), seconds)
        except TimeoutError:
            await _refuse(send, 408, f"the body did not arrive within {seconds} s")
            return
        if body is None:
            await _refuse(send, 413, f"the body has more than {most} bytes")
            return
        headers = dict(scope["headers"])
        if headers.get(b"content-type", b"").startswith(b"image/"):
            body = json.dumps({"inputs": {"image": [_base64(body)]}}).encode()
            headers[b"content-type"] = b"application/json"
            headers[b"content-length"] = str(len(body)).encode()
            headers.pop(b"transfer-encoding", None)
        parts = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def replay() -> Any:
            # after the body the application waits for the end of the connection
            return next(parts, None) or await receive()

        await self._app({**scope, "headers": list(headers.items())}, replay, send)


async def _read_body(receive: Callable[[], Awaitable[Any]], most: int) -> bytes | None:
    """Return the body of a request, None if it has more than `most` bytes."""
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > most:
            return None
        if not message.get("more_body"):
            return bytes(body)


async def _refuse(send: Callable[[Any], Awaitable[None]], status: int, message: str) -> None:
    content = json.dumps({"error_code": "BAD_REQUEST", "message": message}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(content)).encode()),
        (b"connection", b"close"),  # the rest of the body is not read
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
