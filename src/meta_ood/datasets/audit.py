"""What the OoD proxies are: categories kept and dropped, areas, and what evaluation sets hold."""

from __future__ import annotations

import csv
import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from meta_ood.data.labels import OOD
from meta_ood.datasets import read
from meta_ood.datasets.coco import places
from meta_ood.datasets.instances import read_instances

EVALUATION: dict[str, str] = {
    "dog": "LostAndFound 24, 25 (dog)",
    "sports ball": "LostAndFound 22 (ball)",
    "bicycle": "LostAndFound 23 (bicycle)",
    "person": "LostAndFound 40-43 (kid), Cityscapes",
    "suitcase": "like LostAndFound's crates and boxes",
    "car": "Cityscapes",
    "motorcycle": "Cityscapes",
    "bus": "Cityscapes",
    "train": "Cityscapes",
    "truck": "Cityscapes",
    "traffic light": "Cityscapes",
    "stop sign": "Cityscapes (traffic sign)",
}
"""COCO category -> where the networks meet it again: a proxy that is in the test is a leak."""


@dataclass(frozen=True)
class Category:
    """One COCO category.

    Attributes
    ----------
    name
        Its name.
    images_kept, images_dropped
        Images with at least one annotation of it.
    annotations_kept, annotations_dropped
        Annotations.
    area_kept, area_dropped
        Sum of its annotations' shares of their image, in images.
    evaluation
        Where the evaluation sets hold it; empty if they do not.
    """

    name: str
    images_kept: int
    images_dropped: int
    annotations_kept: int
    annotations_dropped: int
    area_kept: float
    area_dropped: float
    evaluation: str


@dataclass(frozen=True)
class Audit:
    """The proxies of one split.

    Attributes
    ----------
    images, kept
        Images in the json, and those that become proxies.
    empty
        Proxies without any annotation.
    unannotated
        Share of pixels of the proxies that no annotation covers, in [0, 1].
    measured
        Number of proxies that share was measured on.
    categories
        By annotations kept, most first.
    """

    images: int
    kept: int
    empty: int
    unannotated: float
    measured: int
    categories: tuple[Category, ...]

    @property
    def leaks(self) -> tuple[Category, ...]:
        """The categories that are kept as proxies although evaluation sets hold them."""
        return tuple(c for c in self.categories if c.evaluation and c.annotations_kept)

    def numbers(self) -> dict[str, float]:
        """Return what is worth a chart."""
        return {
            "audit/images": float(self.images),
            "audit/kept": float(self.kept),
            "audit/empty": float(self.empty),
            "audit/unannotated": self.unannotated,
            "audit/leaking_categories": float(len(self.leaks)),
        }


def audit(root: Path, split: str, options: Mapping[str, Any], sample: int = 500) -> Audit:
    """Count what the COCO reader keeps and drops under its options.

    Parameters
    ----------
    root, split, options
        As an entry under ``datasets`` whose reader is ``coco``.
    sample
        Number of proxies whose pixels are counted, evenly spread; 0 = all.
    """
    frames = read("coco", root, split, options)
    kept = {frame.image.name for frame in frames}
    where = {key: options[key] for key in ("images", "annotations") if key in options}
    instances = read_instances(places(root, split, **where)[1])
    images = {image.id: image for image in instances.images}
    names = instances.categories
    counts: dict[bool, Counter[str]] = {True: Counter(), False: Counter()}
    areas: dict[bool, defaultdict[str, float]] = {
        True: defaultdict(float),
        False: defaultdict(float),
    }
    seen: dict[bool, dict[str, set[int]]] = {True: defaultdict(set), False: defaultdict(set)}
    annotated = set()
    for annotation in instances.annotations():
        image = images.get(annotation["image_id"])
        if image is None:
            continue
        is_kept = image.file_name in kept
        name = names[annotation["category_id"]]
        annotated.add(image.file_name)
        counts[is_kept][name] += 1
        areas[is_kept][name] += float(annotation["area"]) / (image.height * image.width)
        seen[is_kept][name].add(image.id)
    categories = [
        Category(
            name,
            len(seen[True][name]),
            len(seen[False][name]),
            counts[True][name],
            counts[False][name],
            areas[True][name],
            areas[False][name],
            EVALUATION.get(name, ""),
        )
        for name in names.values()
    ]
    categories.sort(key=lambda c: (-c.annotations_kept, c.name))
    chosen = frames if sample <= 0 else frames[:: max(1, -(-len(frames) // sample))]
    covered = total = 0
    for frame in chosen:
        target = frame.target()
        covered += int((target == OOD).sum())
        total += target.size
    return Audit(
        len(images),
        len(frames),
        len(kept - annotated),
        1 - covered / total if total else 0.0,
        len(chosen),
        tuple(categories),
    )


def table(found: Audit) -> list[tuple[str, ...]]:
    """Return the categories as rows of text, the header first."""
    header = ("category", "images", "dropped", "annotations", "area/image", "also in")
    rows = [
        (
            c.name,
            str(c.images_kept),
            str(c.images_dropped),
            str(c.annotations_kept),
            f"{c.area_kept / c.images_kept:.1%}" if c.images_kept else "-",
            c.evaluation,
        )
        for c in found.categories
    ]
    return [header, *rows]


def chart(found: Audit, rows: int = 40) -> npt.NDArray[np.uint8]:
    """Draw images kept and dropped per category as bars.

    Returns
    -------
    ``(H, 720, 3) uint8``.
    """
    shown: Sequence[Category] = found.categories[:rows]
    longest = max((c.images_kept + c.images_dropped for c in shown), default=1) or 1
    picture = Image.new("RGB", (720, 48 + 16 * len(shown)), (255, 255, 255))
    draw = ImageDraw.Draw(picture)
    text = f"{found.kept} of {found.images} images are proxies; blue kept, grey dropped"
    draw.text((8, 8), text, (0, 0, 0))
    for row, category in enumerate(shown):
        top = 32 + 16 * row
        colour = (178, 34, 34) if category in found.leaks else (0, 0, 0)
        draw.text((8, top), category.name, colour)
        left = 140
        for count, fill in (
            (category.images_kept, (0, 114, 178)),
            (category.images_dropped, (190, 190, 190)),
        ):
            right = left + round(500 * count / longest)
            if right > left:
                draw.rectangle((left, top + 2, right - 1, top + 12), fill)
            left = right
        draw.text((left + 4, top), f"{category.images_kept} / {category.images_dropped}", (0, 0, 0))
    return np.asarray(picture)


def write(found: Audit, folder: Path) -> None:
    """Write ``audit.json``, ``categories.csv`` and ``categories.png``."""
    folder.mkdir(parents=True, exist_ok=True)
    values = {**vars(found), "categories": [vars(c) for c in found.categories]}
    (folder / "audit.json").write_text(json.dumps(values, indent=2), encoding="utf-8")
    with (folder / "categories.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(table(found))
    Image.fromarray(chart(found)).save(folder / "categories.png")
