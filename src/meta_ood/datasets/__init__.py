"""Raw datasets: one small module for each, and their readers by name."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from meta_ood.data.registry import resolve
from meta_ood.datasets.cityscapes import cityscapes
from meta_ood.datasets.coco import coco
from meta_ood.datasets.fishyscapes import (
    fishyscapes,
    fishyscapes_lost_and_found,
    fishyscapes_processed,
    fishyscapes_static,
)
from meta_ood.datasets.folder import folder
from meta_ood.datasets.lost_and_found import lost_and_found
from meta_ood.datasets.reader import LayoutReader, RawFrame
from meta_ood.datasets.road_anomaly import road_anomaly, road_anomaly21, road_obstacle21

READERS: dict[str, Callable[..., Iterator[RawFrame]]] = {
    "cityscapes": LayoutReader(cityscapes),
    "coco": coco,
    "fishyscapes": LayoutReader(fishyscapes),
    "fishyscapes_lost_and_found": LayoutReader(fishyscapes_lost_and_found),
    "fishyscapes_processed": LayoutReader(fishyscapes_processed),
    "fishyscapes_static": LayoutReader(fishyscapes_static),
    "folder": LayoutReader(folder),
    "lost_and_found": LayoutReader(lost_and_found),
    "road_anomaly": LayoutReader(road_anomaly),
    "road_anomaly21": LayoutReader(road_anomaly21),
    "road_obstacle21": LayoutReader(road_obstacle21),
}
"""Name in params (``datasets.*.reader``) -> reader(root, split, *, options); see :func:`find_reader` for others."""


def find_reader(name: str) -> Callable[..., Iterator[RawFrame]]:
    """Return the reader of this name: a key of :data:`READERS`, or ``package.module:name`` of one of your own."""
    reader: Callable[..., Iterator[RawFrame]] = resolve("reader", READERS, name)
    if not callable(reader):
        raise ValueError(f"reader {name}: expected a function of root, split and options, got {type(reader).__name__}")
    return reader


def check_options(reader: str, options: Mapping[str, Any]) -> None:
    """Raise a ``ValueError`` if the reader, the name of an option or a layout's option is wrong; no data is read."""
    function = find_reader(reader)
    described = function.layout if isinstance(function, LayoutReader) else function
    parameters = inspect.signature(described).parameters.values()
    known = {parameter.name: parameter for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY}
    for name in options:
        if name not in known:
            raise ValueError(f"{reader} reader: unknown option {name!r}; known: {', '.join(known) or 'none'}")
    for name, parameter in known.items():
        if parameter.default is parameter.empty and name not in options:
            raise ValueError(f"{reader} reader: the option {name} is missing")
    if isinstance(function, LayoutReader):
        function.layout(**options)


def label_names(reader: str, options: Mapping[str, Any] | None = None) -> Mapping[int, str]:
    """Return the names of the label ids that a reader keeps beside the targets, if it keeps any."""
    function = find_reader(reader)
    return function.layout(**(options or {})).names if isinstance(function, LayoutReader) else {}


def read(reader: str, root: Path | str, split: str, options: Mapping[str, Any] | None = None) -> list[RawFrame]:
    """List the frames of a split of the raw dataset below `root`; `options` are the reader's keyword arguments.

    Raises:
        ValueError: If the reader or an option is unknown, or an image id occurs twice.
        FileNotFoundError: If something is missing; the file is named.
    """
    check_options(reader, options or {})
    frames = list(find_reader(reader)(Path(root), split, **(options or {})))
    first: dict[str, RawFrame] = {}
    for frame in frames:
        if not isinstance(frame, RawFrame):
            raise ValueError(f"reader {reader}: expected frames as RawFrame, got {type(frame).__name__}")
        if (other := first.setdefault(frame.image_id, frame)) is not frame:
            raise ValueError(f"{frame.image}: image id {frame.image_id!r} occurs twice, also {other.image}")
    return frames
