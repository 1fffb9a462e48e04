"""Miniatures: any layout with the names and counts of the real dataset and small pictures.

For tests, load tests and benchmarks. The pictures repeat a few demo streets; only their noise differs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from meta_ood.data.images import write_image
from meta_ood.data.labels import CITYSCAPES, IGNORE, IN, OOD
from meta_ood.data.registry import lookup
from meta_ood.datasets.cityscapes import cityscapes
from meta_ood.datasets.fishyscapes import (
    fishyscapes,
    fishyscapes_lost_and_found,
    fishyscapes_processed,
    fishyscapes_static,
)
from meta_ood.datasets.lost_and_found import lost_and_found
from meta_ood.datasets.reader import Layout
from meta_ood.datasets.road_anomaly import road_anomaly, road_anomaly21, road_obstacle21
from meta_ood.demo import coco_miniature
from meta_ood.demo.canvas import Pen
from meta_ood.demo.obstacles import HAZARDS
from meta_ood.demo.street import add_car_body, aim, render
from meta_ood.demo.things import dice
from meta_ood.demo.world import ROAD, sample_world
from meta_ood.demo.write import light, marked, photo

Fields = dict[str, str]
Pixels = npt.NDArray[np.uint8]

_CITIES: dict[str, dict[str, int]] = {
    "train": {
        "aachen": 174, "bochum": 96, "bremen": 316, "cologne": 154, "darmstadt": 85,
        "dusseldorf": 221, "erfurt": 109, "hamburg": 248, "hanover": 196, "jena": 119,
        "krefeld": 99, "monchengladbach": 94, "strasbourg": 365, "stuttgart": 196,
        "tubingen": 144, "ulm": 95, "weimar": 142, "zurich": 122,
    },
    "val": {"frankfurt": 267, "lindau": 59, "munster": 174},
    "test": {
        "berlin": 544, "bielefeld": 181, "bonn": 46, "leverkusen": 58, "mainz": 298, "munich": 398,
    },
}  # fmt: skip
_SCENES: dict[str, tuple[str, ...]] = {
    "test": (
        "02_Hanns_Klemm_Str_44", "04_Maurener_Weg_8", "05_Schafgasse_1", "07_Festplatz_Flugfeld",
        "15_Rechbergstr_Deckenpfronn",
    ),
    "train": tuple(f"{number:02d}_Scene" for number in (1, 3, 6, 10, 11, 12, 13, 14)),
}  # fmt: skip


def cityscapes_names(split: str, count: int) -> list[Fields]:
    """Return folder and id of the first `count` frames, cities in the real proportions."""
    cities = _CITIES[split]
    total = sum(cities.values())
    names = [
        {"folder": city, "id": f"{city}_{number:06d}_000019"}
        for city, share in cities.items()
        for number in range(-(-count * share // total))
    ]
    return names[:count]


def lost_and_found_names(split: str, count: int) -> list[Fields]:
    """Return folder and id of `count` frames, spread over the scenes of the split."""
    scenes = _SCENES[split]
    return [
        {
            "folder": scenes[number % len(scenes)],
            "id": f"{scenes[number % len(scenes)]}_000000_{10 * (number // len(scenes)):06d}",
        }
        for number in range(count)
    ]


def _numbered(names: Iterable[Fields]) -> list[Fields]:
    return [{**name, "number": f"{number:04d}"} for number, name in enumerate(names)]


def _whole_ids(split: str, count: int) -> list[Fields]:
    source = cityscapes_names("val", count)
    if split == "LostAndFound":
        source = lost_and_found_names("test", count)
    return [{"id": f"{name['number']}_{name['id']}"} for name in _numbered(source)]


def _by_prefix(prefixes: Mapping[str, str]) -> Callable[[str, int], list[Fields]]:
    def names(split: str, count: int) -> list[Fields]:
        return [{"id": f"{prefixes[split]}{number:04d}"} for number in range(count)]

    return names


@dataclass(frozen=True)
class Miniature:
    """How to write a layout: the layout and the names of a split's frames."""

    layout: Layout
    names: Callable[[str, int], list[Fields]]
    image_template: str = ""


def miniatures() -> dict[str, Miniature]:
    """Return the layouts that can be written, by reader name (and version)."""
    return {
        "cityscapes": Miniature(cityscapes(), cityscapes_names),
        "cityscapes_train_ids": Miniature(cityscapes(labels="train_ids"), cityscapes_names),
        "cityscapes_coarse": Miniature(cityscapes(annotation="coarse"), cityscapes_names),
        "lost_and_found": Miniature(lost_and_found(), lost_and_found_names),
        "fishyscapes": Miniature(fishyscapes(), _whole_ids),
        "fishyscapes_processed": Miniature(fishyscapes_processed(), _whole_ids, "{split}/original/{id}.png"),
        "fishyscapes_lost_and_found": Miniature(
            fishyscapes_lost_and_found(),
            lambda _, count: _numbered(lost_and_found_names("test", count)),
            "leftImg8bit/test/{folder}/{id}_leftImg8bit.png",
        ),
        **{
            f"fishyscapes_static_{version}": Miniature(
                fishyscapes_static(version=version),
                lambda _, count: _numbered(cityscapes_names("val", count)),
                "leftImg8bit/val/{folder}/{id}_leftImg8bit.png",
            )
            for version in ("v1", "v2", "v3")
        },
        "road_anomaly": Miniature(road_anomaly(), _by_prefix({"all": "scene"}), "frames/{id}.jpg"),
        "road_anomaly21": Miniature(road_anomaly21(), _by_prefix({"val": "validation", "test": "airplane"})),
        "road_obstacle21": Miniature(
            road_obstacle21(),
            _by_prefix({"val": "validation_", "test": "gravel_", "night": "driveway_", "snow": "snowstorm1_"}),
        ),
    }


def splits_of(kind: str) -> list[str]:
    """Return the splits of a layout that have files of their own; an unknown kind lists all."""
    known = {"coco": coco_miniature.SPLITS} | {
        name: {s: n for s, n in what.layout.splits.items() if s not in what.layout.folders}
        for name, what in miniatures().items()
    }
    return [split for split in lookup("miniature", known, kind) if split != "train_extra"]


@dataclass(frozen=True)
class _Picture:
    """A street without and with an object, its classes, and its OoD encoding."""

    plain: Pixels
    pasted: Pixels
    classes: Pixels
    outside: Pixels


def _pictures(seed: int, height: int, width: int, count: int) -> Iterator[_Picture]:
    for index in range(count):
        rng = np.random.default_rng([seed, 9, index])
        world = sample_world(rng, index)
        canvas = render(world, aim(rng, height, width), height, width)
        add_car_body(canvas)
        classes = CITYSCAPES.encode(canvas.ids)
        outside = np.where(classes == IGNORE, IGNORE, IN).astype(np.uint8)
        day, grain = light(rng), int(rng.integers(1 << 30))
        before = canvas.rgb.copy()  # photo() changes the canvas
        # the same noise on both pictures: their difference is the pasted object alone
        plain = photo(np.random.default_rng(grain), canvas, world, *day)
        canvas.rgb = before
        canvas.ids[:] = ROAD
        hazards = list(HAZARDS.values())
        for _ in range(2):
            foot = (width * float(rng.uniform(0.2, 0.8)), height * float(rng.uniform(0.6, 0.9)))
            pen = Pen(canvas, foot, height * float(rng.uniform(0.15, 0.35)), 1)
            hazards[int(rng.integers(len(hazards)))](pen, dice(rng))
        outside[canvas.ids == 1] = OOD
        pasted = photo(np.random.default_rng(grain), canvas, world, *day)
        yield _Picture(plain, pasted, classes, outside)


def write_miniature(
    root: Path,
    kind: str,
    split: str,
    count: int | None = None,
    *,
    seed: int = 0,
    height: int = 64,
    width: int = 128,
    distinct: int = 6,
) -> int:
    """Write a split of a layout.

    Args:
        root: Raw root to write to; files of the same name are replaced.
        kind: ``coco`` or a key of :func:`miniatures`.
        split: A split of the layout.
        count: Number of frames; None = as published.
        seed, height, width: Of the pictures [px].
        distinct: Number of different streets.

    Returns:
        The number of frames written.
    """
    if kind == "coco":
        published = lookup("COCO split", coco_miniature.SPLITS, split)
        return coco_miniature.write_coco_miniature(
            root, split, published if count is None else count,
            seed=seed, height=height, width=width, distinct=distinct,
        )  # fmt: skip
    splits_of(kind)  # an unknown kind lists the known ones
    what = miniatures()[kind]
    layout = what.layout
    published = lookup(f"{layout.name} split", layout.splits, split)
    names = what.names(split, published if count is None else count)
    pictures = list(_pictures(seed, height, width, min(distinct, max(len(names), 1))))
    # target value -> label id of the files; of several the smallest, which is written last
    back: dict[int, int] = {}
    for label, value in sorted(layout.labels.items(), reverse=True):
        if label >= 0:
            back[value] = label
    folder = layout.folders.get(split, split)
    images = (what.image_template or layout.images).replace("{split}", folder)
    targets = "" if split in layout.unlabelled else layout.targets.replace("{split}", folder)
    for index, fields in enumerate(names):
        picture = pictures[index % len(pictures)]
        is_known = set(layout.labels.values()) >= set(range(19))
        target = picture.classes if is_known else picture.outside
        pixels = picture.plain if is_known or layout.compose else picture.pasted
        write_image(_fill(images, root, fields), marked(pixels, index))
        if not targets:
            continue
        path = _fill(targets, root, fields)
        write_image(path, _labels(target, back))
        if layout.compose is not None:
            overlay = picture.pasted.astype(np.int16) - picture.plain.astype(np.int16)
            np.savez_compressed(path.with_name(path.name.replace("_labels.png", "_rgb.npz")), rgb=overlay)
    return len(names)


def _fill(template: str, root: Path, fields: Mapping[str, str]) -> Path:
    for name, value in fields.items():
        template = template.replace("{" + name + "}", value)
    return root / template


def _labels(target: Pixels, back: Mapping[int, int]) -> Pixels:
    table = np.zeros(256, np.uint8)
    for value, label in back.items():
        table[value] = label % 256
    return table[target]
