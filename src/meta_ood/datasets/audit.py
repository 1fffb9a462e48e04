"""Audit of the OoD proxies: categories kept and dropped, areas, overlap with evaluation sets."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from meta_ood.data.files import replacing, write_csv, write_json
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
"""COCO category -> the evaluation set that holds it too: then it is not unknown in the test."""


@dataclass(frozen=True)
class Category:
    """One COCO category; ``kept`` counts in proxies, ``dropped`` in the other images."""

    name: str
    images_kept: int
    images_dropped: int
    annotations_kept: int
    annotations_dropped: int
    area_kept: float  # sum of the annotations' shares of their image
    area_dropped: float
    evaluation: str  # the evaluation sets that hold it; empty if none does


@dataclass(frozen=True)
class Audit:
    """The proxies of one split."""

    images: int  # in the json
    kept: int  # of them become proxies
    empty: int  # proxies without any annotation
    unannotated: float  # share of the proxies' pixels that no annotation covers, in [0, 1]
    measured: int  # number of proxies on which that share was measured
    categories: tuple[Category, ...]  # most annotations kept first

    @property
    def leaks(self) -> tuple[Category, ...]:
        """The categories that are kept as proxies although evaluation sets hold them."""
        return tuple(c for c in self.categories if c.evaluation and c.annotations_kept)

    def numbers(self) -> dict[str, float]:
        """Return the values to log."""
        return {
            "audit/images": float(self.images),
            "audit/kept": float(self.kept),
            "audit/empty": float(self.empty),
            "audit/unannotated": self.unannotated,
            "audit/leaking_categories": float(len(self.leaks)),
        }


def audit(root: Path, split: str, options: Mapping[str, Any], sample: int = 500) -> Audit:
    """Count what the COCO reader keeps and drops under its options.

    Args:
        root, split, options: As an entry under ``datasets`` whose reader is ``coco``.
        sample: Number of proxies whose pixels are counted, evenly spread; 0 = all.
    """
    # 1. annotations by (category, whether their image is kept)
    frames = read("coco", root, split, options)
    kept = {frame.image.name for frame in frames}
    instances = read_instances(places(root, split, **options)[1])
    images = {image.id: image for image in instances.images}
    counts: Counter[tuple[str, bool]] = Counter()
    areas: defaultdict[tuple[str, bool], float] = defaultdict(float)
    holders: defaultdict[tuple[str, bool], set[int]] = defaultdict(set)
    annotated = set()
    for annotation in instances.read_annotations():
        image = images.get(annotation["image_id"])
        if image is None:
            continue
        key = instances.categories[annotation["category_id"]], image.file_name in kept
        annotated.add(image.file_name)
        counts[key] += 1
        areas[key] += float(annotation.get("area") or 0) / (image.height * image.width)
        holders[key].add(image.id)
    categories = [
        Category(
            name,
            len(holders[name, True]),
            len(holders[name, False]),
            counts[name, True],
            counts[name, False],
            areas[name, True],
            areas[name, False],
            EVALUATION.get(name, ""),
        )
        for name in instances.categories.values()
    ]
    categories.sort(key=lambda category: (-category.annotations_kept, category.name))

    # 2. pixels without annotation, on a sample of the proxies
    chosen = frames if sample <= 0 else frames[:: max(1, -(-len(frames) // sample))]
    covered = total = 0
    for frame in chosen:
        target = frame.target()
        covered += int((target == OOD).sum())
        total += target.size
    unannotated = 1 - covered / total if total else 0.0
    empty = len(kept - annotated)
    return Audit(len(images), len(frames), empty, unannotated, len(chosen), tuple(categories))


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


def write(found: Audit, folder: Path) -> None:
    """Write ``audit.json``, ``categories.csv`` and ``categories.png``."""
    header, *rows = table(found)
    write_json(folder / "audit.json", vars(found) | {"categories": [*map(vars, found.categories)]})
    write_csv(folder / "categories.csv", header, rows)
    _write_chart(found, folder / "categories.png")


def _write_chart(found: Audit, path: Path) -> None:
    """Draw images kept and dropped of the 40 most frequent categories as bars."""
    from matplotlib.figure import Figure  # takes half a second to import

    shown = found.categories[:40][::-1]  # the first one on top
    names = [category.name for category in shown]
    kept = [category.images_kept for category in shown]
    dropped = [category.images_dropped for category in shown]
    figure = Figure(figsize=(7.2, 1 + 0.2 * len(shown)), layout="constrained")
    axes = figure.subplots()
    axes.barh(names, kept, color="#0072b2", label="proxies")
    axes.barh(names, dropped, left=kept, color="#bebebe", label="left out")
    axes.set_xlabel("images")
    axes.set_title(f"{found.kept} of {found.images} images are proxies; red: in evaluation sets")
    for label, category in zip(axes.get_yticklabels(), shown, strict=True):
        label.set_color("#b22222" if category in found.leaks else "black")
    axes.legend()
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100)
