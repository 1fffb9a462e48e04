"""Miniatures of COCO: the real numbers of images, a json in its format, small pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from meta_ood.data.files import replacing
from meta_ood.data.images import write_image
from meta_ood.demo.proxies import PROXIES, draw_proxy, scenery
from meta_ood.demo.write import add_street_thing, annotation, category_list, marked

SPLITS = {"train2017": 118287, "val2017": 5000}
"""Split -> number of images as published."""


class _Picture(NamedTuple):
    pixels: npt.NDArray[np.uint8]
    annotations: list[dict[str, Any]]


def _picture(seed: int, number: int, height: int, width: int) -> _Picture:
    """Draw one picture with its annotations; every third holds something of the street too."""
    rng = np.random.default_rng([seed, 10, number])
    canvas = scenery(rng, height, width)
    found: list[dict[str, Any]] = []
    categories = list(PROXIES)
    for instance in range(1, int(rng.integers(1, 4)) + 1):
        category = categories[int(rng.integers(len(categories)))]
        pen = draw_proxy(rng, canvas, category, instance)
        found.append(annotation(canvas, pen, 0, category[0], (number + instance) % 5))
    if number % 3 == 2:
        add_street_thing(rng, canvas, 0, number // 3, found)
    return _Picture(canvas.develop(rng, 1.0, 0.012), found)


def write_coco_miniature(
    root: Path, split: str, count: int, *, seed: int, height: int, width: int, distinct: int
) -> int:
    """Write ``{split}/<id>.jpg`` and the json; parameters as in ``write_miniature``.

    Returns:
        The number of images written.
    """
    pictures = [_picture(seed, k, height, width) for k in range(min(distinct, max(count, 1)))]
    images: list[str] = []
    annotations: list[str] = []
    # pictures repeat, but for the mark; ids and annotations do not
    for index in range(count):
        picture, number = pictures[index % len(pictures)], 9 + 4 * index
        name = f"{number:012d}.jpg"
        write_image(root / split / name, marked(picture.pixels, index), quality=90)
        entry = {"license": 1, "file_name": name, "height": height, "width": width, "id": number}
        images.append(json.dumps(entry))
        for one in picture.annotations:
            numbered = {**one, "image_id": number, "id": len(annotations) + 1}
            annotations.append(json.dumps(numbered))
    path = root / "annotations" / f"instances_{split}.json"
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write('{"info": {"description": "miniature"}, "licenses": [], "images": [')
        file.write(",\n".join(images) + '], "annotations": [')
        file.write(",\n".join(annotations))
        file.write(f'], "categories": {json.dumps(category_list())}}}')
    return count
