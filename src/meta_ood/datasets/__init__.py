"""Raw datasets: one small module each, and the readers by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from meta_ood.datasets.cityscapes import cityscapes
from meta_ood.datasets.coco import coco
from meta_ood.datasets.fishyscapes import fishyscapes
from meta_ood.datasets.lost_and_found import lost_and_found
from meta_ood.datasets.reader import RawFrame
from meta_ood.labels import lookup

READERS: dict[str, Callable[..., Iterator[RawFrame]]] = {
    "cityscapes": cityscapes,
    "coco": coco,
    "fishyscapes": fishyscapes,
    "lost_and_found": lost_and_found,
}
"""Name in params (``datasets.*.reader``) -> reader(root, split, **options)."""


def read(
    reader: str, root: Path, split: str, options: Mapping[str, Any] | None = None
) -> list[RawFrame]:
    """List the frames of a raw dataset.

    Parameters
    ----------
    reader
        A key of :data:`READERS`.
    root, split
        What the reader is to read.
    options
        The reader's keyword arguments.

    Raises
    ------
    ValueError
        If the reader or an option is unknown, or an image id occurs twice.
    FileNotFoundError
        If something is missing; the file is named.
    """
    function = lookup("reader", READERS, reader)
    known = [
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    ]
    for name in options or {}:
        if name not in known:
            raise ValueError(
                f"{reader} reader: unknown option {name!r}; known: {', '.join(known) or 'none'}"
            )
    frames = list(function(root, split, **(options or {})))
    seen: dict[str, RawFrame] = {}
    for frame in frames:
        if frame.image_id in seen:
            first = seen[frame.image_id].image
            raise ValueError(
                f"{frame.image}: image id {frame.image_id!r} occurs twice, also {first}"
            )
        seen[frame.image_id] = frame
    return frames
