"""A json in COCO's format, read element by element: memory does not grow with the annotations."""

from __future__ import annotations

import codecs
import json
import re
from array import array
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

Json = Mapping[str, Any]
Span = tuple[int, int]
"""Where an element stands in its file: first byte and number of bytes."""

CHUNK = 1 << 20
"""Bytes read at a time."""
_LISTS = ("images", "annotations", "categories")
_SPACE = re.compile(r"[ \t\r\n]*")


class ListedImage(NamedTuple):
    """What we keep of an image's entry; height and width in pixels."""

    id: Any
    file_name: str
    height: int
    width: int


@dataclass(frozen=True)
class Instances:
    """A json in COCO's format: its images and categories, and where each annotation stands.

    Attributes
    ----------
    path
        The file; annotations are read from it when they are asked for.
    images
        In the order of the file.
    categories
        Id -> name.
    owners, kinds
        For each annotation the position of its image id in `image_ids` and of its category id in
        `category_ids`, ``(N,) int64``.
    starts, lengths
        Where it stands in the file [bytes], ``(N,) int64``.
    image_ids, category_ids
        The ids that annotations name, each once; they need not be in the json's lists.
    """

    path: Path
    images: Sequence[ListedImage]
    categories: Mapping[Any, str]
    owners: npt.NDArray[np.int64]
    kinds: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]
    image_ids: Sequence[Any]
    category_ids: Sequence[Any]

    def annotations(self) -> Iterator[Json]:
        """Read all annotations again, one by one, in the order of the file."""
        for key, value, _ in _elements(self.path):
            if key == "annotations":
                yield value

    def spans(self, chosen: npt.NDArray[np.bool_]) -> dict[Any, tuple[Span, ...]]:
        """Return image id -> where its annotations stand, of those that are `chosen`, ``(N,)``."""
        found: dict[Any, list[Span]] = {}
        places = (self.owners[chosen], self.starts[chosen], self.lengths[chosen])
        for owner, start, length in zip(*(place.tolist() for place in places), strict=True):
            found.setdefault(self.image_ids[owner], []).append((start, length))
        return {image: tuple(spans) for image, spans in found.items()}


def read_instances(path: Path) -> Instances:
    """Read a json in COCO's format, or say what is wrong with it.

    Raises
    ------
    FileNotFoundError
        If it is not there.
    ValueError
        If it is cut off, no json, or not in COCO's format; the file is named.
    """
    if not path.is_file():
        raise FileNotFoundError(f"COCO: {path} is missing: the annotations of the images")
    images: list[ListedImage] = []
    categories: dict[Any, str] = {}
    image_ids: dict[Any, int] = {}
    category_ids: dict[Any, int] = {}
    rows = array("q")
    for key, value, (start, length) in _elements(path):
        try:
            if key == "images":
                size = int(value["height"]), int(value["width"])
                images.append(ListedImage(value["id"], str(value["file_name"]), *size))
            elif key == "categories":
                categories[value["id"]] = str(value["name"])
            else:
                owner = image_ids.setdefault(value["image_id"], len(image_ids))
                kind = category_ids.setdefault(value["category_id"], len(category_ids))
                rows.extend((owner, kind, start, length))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path}: an element of {key!r} is not as in COCO's format, at byte {start}: "
                f"{type(error).__name__}: {error}"
            ) from None
    columns = np.frombuffer(rows, np.int64).reshape(-1, 4).T.copy()
    owners, kinds, starts, lengths = columns
    return Instances(
        path,
        images,
        categories,
        owners,
        kinds,
        starts,
        lengths,
        list(image_ids),
        list(category_ids),
    )


def read_spans(path: Path, spans: Sequence[Span]) -> list[Json]:
    """Read single elements of a json.

    Raises
    ------
    ValueError
        If the file has changed since the spans were found.
    """
    found = []
    with path.open("rb") as file:
        for start, length in spans:
            file.seek(start)
            try:
                found.append(json.loads(file.read(length)))
            except ValueError:
                raise ValueError(f"{path}: was changed while it was being read") from None
    return found


def _elements(path: Path) -> Iterator[tuple[str, Any, Span]]:
    """Yield list, element and place of everything in the json's three lists."""
    with path.open("rb") as file:
        try:
            missing = yield from _walk(_Window(file))
        except ValueError as error:
            raise ValueError(f"{path}: not a complete json file ({error})") from None
    for key in missing:
        raise ValueError(f"{path}: expected a list under {key!r}, as in COCO's format")


def _walk(window: _Window) -> Generator[tuple[str, Any, Span], None, list[str]]:
    """Yield as :func:`_elements`; return the lists that were not there."""
    missing = list(_LISTS)
    if window.peek() != "{":
        window.value()
        return missing
    window.take("{")
    while window.peek() != "}":
        key, _ = window.value()
        window.take(":")
        if key in missing and window.peek() == "[":
            missing.remove(key)
            yield from ((key, value, span) for value, span in window.listed())
        else:
            window.value()
        if window.take(",}") == "}":
            return missing
    return missing


class _Window:
    """A window onto a UTF-8 json that moves forward and knows its place in bytes."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._decode = codecs.getincrementaldecoder("utf-8")().decode
        self._parse = json.JSONDecoder().raw_decode
        self._text, self._at, self._byte, self._is_whole = "", 0, 0, False

    def peek(self) -> str:
        """Return the next character that is no space; empty at the end."""
        while True:
            space = _SPACE.match(self._text, self._at)
            self._move(space.end() if space else self._at)
            if self._at < len(self._text) or not self._more():
                return self._text[self._at : self._at + 1]

    def take(self, characters: str) -> str:
        """Go beyond the next character, which must be one of `characters`."""
        found = self.peek()
        if not found or found not in characters:
            wanted = " or ".join(characters)
            raise ValueError(f"expected {wanted} at byte {self._byte}, got {found or 'the end'}")
        self._move(self._at + 1)
        return found

    def value(self) -> tuple[Any, Span]:
        """Go beyond the next value; return it and where it stands."""
        self.peek()
        while True:
            try:
                value, end = self._parse(self._text, self._at)
            except json.JSONDecodeError as error:
                if not self._more():
                    raise ValueError(f"{error.msg} after byte {self._byte}") from None
            else:
                if end < len(self._text) or not self._more():  # a number may go on
                    break
        start = self._byte
        self._move(end)
        return value, (start, self._byte - start)

    def listed(self) -> Iterator[tuple[Any, Span]]:
        """Go through a list; yield its elements and where they stand."""
        self.take("[")
        if self.peek() == "]":
            self.take("]")
            return
        while True:
            yield self.value()
            if self.take(",]") == "]":
                return

    def _move(self, end: int) -> None:
        text = self._text
        count = end - self._at
        self._byte += count if text.isascii() else len(text[self._at : end].encode())
        self._at = end

    def _more(self) -> bool:
        """Read on, the more the longer the value that is cut; return False at the end."""
        if self._is_whole:
            return False
        left = self._text[self._at :]
        data = self._file.read(max(CHUNK, len(left)))
        self._is_whole = not data
        self._text, self._at = left + self._decode(data, self._is_whole), 0
        return True
