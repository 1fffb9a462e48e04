"""Audit of the OoD proxies: categories kept and dropped, areas, overlap with evaluation sets."""

from collections import defaultdict
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
    "stop sign": "Cityscapes (traffic sign)",
    **dict.fromkeys(("car", "motorcycle", "bus", "train", "truck", "traffic light"), "Cityscapes"),
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
        values = {"images": self.images, "kept": self.kept, "empty": self.empty, "unannotated": self.unannotated}
        values["leaking_categories"] = len(self.leaks)
        return {f"audit/{name}": float(value) for name, value in values.items()}


def audit(root: Path, split: str, options: Mapping[str, Any], sample: int = 500) -> Audit:
    """Count what the COCO reader keeps and drops; pixels only on `sample` proxies, evenly spread, 0 = all."""
    # 1. images and annotations' shares of them by (category, whether the image is kept)
    frames = read("coco", root, split, options)
    kept = {frame.image.name for frame in frames}
    instances = read_instances(places(root, split, **options)[1])
    images = {image.id: image for image in instances.images}
    holders: defaultdict[tuple[str, bool], set[int]] = defaultdict(set)
    areas: defaultdict[tuple[str, bool], list[float]] = defaultdict(list)
    for annotation in instances.read_annotations():
        if image := images.get(annotation["image_id"]):
            key = instances.categories[annotation["category_id"]], image.file_name in kept
            holders[key].add(image.id)
            areas[key].append(float(annotation.get("area") or 0) / (image.height * image.width))
    categories = []
    for name in instances.categories.values():
        yes, no = (name, True), (name, False)
        counts = len(holders[yes]), len(holders[no]), len(areas[yes]), len(areas[no])
        categories.append(Category(name, *counts, sum(areas[yes]), sum(areas[no]), EVALUATION.get(name, "")))
    categories.sort(key=lambda category: (-category.annotations_kept, category.name))
    annotated = {number for (_, is_kept), numbers in holders.items() if is_kept for number in numbers}

    # 2. pixels without annotation, on a sample of the proxies
    chosen = frames if sample <= 0 else frames[:: max(1, -(-len(frames) // sample))]
    covered = total = 0
    for frame in chosen:
        target = frame.target()
        covered += int((target == OOD).sum())
        total += target.size
    unannotated = 1 - covered / total if total else 0.0
    return Audit(len(images), len(kept), len(kept) - len(annotated), unannotated, len(chosen), tuple(categories))


def table(found: Audit) -> list[tuple[str, ...]]:
    """Return the categories as rows of text, the header first."""
    rows: list[tuple[str, ...]] = [("category", "images", "dropped", "annotations", "area/image", "also in")]
    for c in found.categories:
        area = f"{c.area_kept / c.images_kept:.1%}" if c.images_kept else "-"
        rows.append((c.name, str(c.images_kept), str(c.images_dropped), str(c.annotations_kept), area, c.evaluation))
    return rows


def write(found: Audit, folder: Path) -> None:
    """Write ``audit.json``, ``categories.csv`` and ``categories.png``."""
    from matplotlib.figure import Figure  # takes half a second to import

    header, *rows = table(found)
    write_json(folder / "audit.json", vars(found) | {"categories": [*map(vars, found.categories)]})
    write_csv(folder / "categories.csv", header, rows)

    # bars of images kept and dropped of the 40 most frequent categories
    shown = found.categories[:40][::-1]  # the first one on top
    names, kept = [c.name for c in shown], [c.images_kept for c in shown]
    figure = Figure(figsize=(7.2, 1 + 0.2 * len(shown)), layout="constrained")
    axes = figure.subplots()
    axes.barh(names, kept, color="#0072b2", label="proxies")
    axes.barh(names, [c.images_dropped for c in shown], left=kept, color="#bebebe", label="left out")
    axes.set_xlabel("images")
    axes.set_title(f"{found.kept} of {found.images} images are proxies; red: in evaluation sets")
    for label, category in zip(axes.get_yticklabels(), shown, strict=True):
        label.set_color("#b22222" if category in found.leaks else "black")
    axes.legend()
    with replacing(folder / "categories.png") as temporary:
        figure.savefig(temporary, format="png", dpi=100)
