"""A json in COCO's format, read element by element.

The json of COCO's training images has 520 MB, which ``json.load`` turns into several GB of Python objects. Therefore
one element at a time is parsed; of an annotation only its ids and its place in the file are kept, from which it is read
again when its image is drawn.
"""

import json
import os
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from meta_ood.data.images import MAX_PIXELS
from meta_ood.datasets.checks.findings import Finding, find

Json = Mapping[str, Any]
Span = tuple[int, int]  # place of an element in its file: first byte and number of bytes

CHUNK = 1 << 11  # bytes read to find the end of an element; most of COCO's annotations are shorter
_DECODER = json.JSONDecoder()


class ListedImage(NamedTuple):
    """The part of an image's entry that is kept; height and width in pixels."""

    id: int
    file_name: str
    height: int
    width: int


@dataclass(frozen=True)
class Instances:
    """The images and categories of a json in COCO's format, and the place of each annotation."""

    path: Path
    images: Sequence[ListedImage]  # in the order of the file
    categories: Mapping[int, str]  # id -> name
    # (N, 4), of each annotation: image id, category id, first byte in the file, number of bytes
    annotations: npt.NDArray[np.int64]

    def read_annotations(self) -> Iterator[Json]:
        """Read all annotations again, one by one, in the order of the file."""
        return read_spans(self.path, ((int(start), int(length)) for start, length in self.annotations[:, 2:]))

    def spans(self, category_ids: Iterable[int]) -> dict[int, list[Span]]:
        """Return image id -> places of its annotations that have one of some categories."""
        chosen = np.isin(self.annotations[:, 1], list(category_ids))
        found: defaultdict[int, list[Span]] = defaultdict(list)
        for image, _, start, length in self.annotations[chosen].tolist():
            found[image].append((start, length))
        return found

    def findings(self) -> list[Finding]:
        """Return the contradictions between the ids of images, categories and annotations."""
        counts = Counter(image.id for image in self.images)
        twice = [f"{self.path}, image {number}" for number, n in counts.items() if n > 1]
        image_ids, category_ids, starts, _ = self.annotations.T
        unknown = starts[~np.isin(category_ids, list(self.categories))]
        orphans = starts[~np.isin(image_ids, list(counts))]
        return [
            *find("json_same_id", twice),
            *find("json_category", (f"{self.path}, annotation at byte {start}" for start in unknown)),
            *find("json_orphans", (f"{self.path}, annotation at byte {start}" for start in orphans)),
        ]


def read_instances(path: Path) -> Instances:
    """Read a json in COCO's format; if it is missing, cut off or not in that format, the error names file and place."""
    if not path.is_file():
        raise FileNotFoundError(f"COCO: {path} is missing: the annotations of the images")
    images: list[ListedImage] = []
    categories: dict[int, str] = {}
    rows = array("q")  # 64-bit integers: an eighth of the memory of Python's
    for key, value, (start, length) in _elements(path):
        try:
            if key == "images":
                height, width = _whole(value, "height"), _whole(value, "width")
                if height < 1 or width < 1 or height * width > MAX_PIXELS:
                    raise ValueError(f"{height} x {width} px: expected 1 to {MAX_PIXELS}")
                images.append(ListedImage(_whole(value, "id"), _text(value, "file_name"), height, width))
            elif key == "categories":
                number = _whole(value, "id")
                if number in categories:
                    raise ValueError(f"id {number} occurs twice")
                categories[number] = _text(value, "name")
            else:
                rows.extend((_whole(value, "image_id"), _whole(value, "category_id"), start, length))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            fault = f"an element of {key!r} is not as in COCO's format, at byte {start}"
            raise ValueError(f"{path}: {fault}: {type(error).__name__}: {error}") from None
    return Instances(path, images, categories, np.array(rows, np.int64).reshape(-1, 4))


def _whole(element: Json, name: str) -> int:
    """Return a whole number of an element; an id "5" would silently miss the image 5."""
    value = element[name]
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name}: expected a whole number, got {value!r}")
    return value


def _text(element: Json, name: str) -> str:
    """Return a text of an element; as a list, the name of a street class would not be known."""
    value = element[name]
    if not isinstance(value, str):
        raise TypeError(f"{name}: expected a text, got {value!r}")
    return value


def read_spans(path: Path, spans: Iterable[Span]) -> Iterator[Json]:
    """Yield single elements of a json; a ``ValueError`` if the file has changed since the spans were found."""
    with path.open("rb") as file:
        for start, length in spans:
            file.seek(start)
            try:
                element = json.loads(file.read(length))
            except ValueError:
                raise ValueError(f"{path}: was changed while it was being read") from None
            yield element


def _elements(path: Path) -> Iterator[tuple[str, Any, Span]]:
    """Yield list, element and place of everything in the json's three lists."""
    lists = ("images", "annotations", "categories")
    missing = [*lists]
    with path.open("rb", buffering=1 << 20) as file:
        try:
            if _peek(file) != "{":
                _value(file)  # may be sound json; the lists are missing then
                raise ValueError(f"expected an object with lists under {', '.join(missing)}")
            _take(file, "{")
            while _peek(file) != "}":
                key, _ = _value(file)
                _take(file, ":")
                if key in lists and key not in missing:
                    raise ValueError(f"{key!r} occurs twice")
                if key in missing and _peek(file) == "[":
                    missing.remove(key)
                    _take(file, "[")
                    after = _take(file, "]") if _peek(file) == "]" else ""
                    while after != "]":
                        yield key, *_value(file)
                        after = _take(file, ",]")
                else:
                    _value(file)
                if _take(file, ",}") == "}":
                    if _peek(file):
                        raise ValueError(f"more after its end, at byte {file.tell()}")
                    break
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}: not a complete json file ({error})") from None
    for key in missing:
        raise ValueError(f"{path}: expected a list under {key!r}, as in COCO's format")


def _peek(file: BinaryIO) -> str:
    """Move to the next character that is no space and return it; empty at the end."""
    while (found := file.read(1)) and found in b" \t\r\n":
        pass
    file.seek(-len(found), os.SEEK_CUR)
    return found.decode("latin-1")


def _take(file: BinaryIO, characters: str) -> str:
    """Move past the next character, which must be one of `characters`, and return it."""
    found = _peek(file)
    if not found or found not in characters:
        raise ValueError(f"expected {' or '.join(characters)} at byte {file.tell()}, got {found or 'the end'}")
    file.seek(1, os.SEEK_CUR)
    return found


def _value(file: BinaryIO) -> tuple[Any, Span]:
    """Move past the next value; return it and its place."""
    _peek(file)
    start, size = file.tell(), CHUNK
    while True:
        # in Latin-1 a character is a byte: places in the text are places in the file
        text = file.read(size).decode("latin-1")
        try:
            value, end = _DECODER.raw_decode(text)
            if end < size:  # else a number may go on
                break
        except json.JSONDecodeError as error:
            if len(text) < size:
                raise ValueError(f"{error.msg} after byte {start}") from None
        # twice as much: parsing it anew stays linear in its length
        size *= 2
        file.seek(start)
    file.seek(start + end)
    text = text[:end]
    return value if text.isascii() else json.loads(text.encode("latin-1")), (start, end)
