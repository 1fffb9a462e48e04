"""The demo world on disk: four miniature datasets in the real folder layouts."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from meta_ood.data.files import write_text
from meta_ood.data.images import write_image
from meta_ood.datasets.coco import decompress
from meta_ood.demo.canvas import Camera, Canvas, Pen
from meta_ood.demo.obstacles import HAZARDS, NON_HAZARDS, footprint
from meta_ood.demo.proxies import PROXIES, draw_proxy, scenery
from meta_ood.demo.street import add_car_body, aim, render
from meta_ood.demo.textures import vector
from meta_ood.demo.things import THINGS, Item, dice
from meta_ood.demo.world import ROAD, Extra, World, sample_world

Draw = Callable[[Pen, tuple[float, ...]], None]

_CITIES = {"train": ("altstadt", "bergheim", "seedorf"), "val": ("neustadt", "waldau")}
_STATIC_CITIES = ("neustadt", "waldau", "hafen", "mark", "furt")
_SCENES = (
    "02_Hanns_Klemm_Str_44",
    "04_Maurener_Weg_8",
    "05_Schafgasse_1",
    "07_Festplatz_Flugfeld",
    "15_Rechbergstr_Deckenpfronn",
    "21_Demo_Allee",
    "22_Demo_Hof",
    "23_Demo_Ufer",
)
_STREET_CATEGORIES: dict[int, str] = {
    1: "person",
    2: "bicycle",
    3: "car",
    4: "motorcycle",
    6: "bus",
    7: "train",
    8: "truck",
    10: "traffic light",
}
# part of the seed of each dataset: no two share a street
_WORLD_CITYSCAPES, _WORLD_COCO, _WORLD_LAF, _WORLD_STATIC = range(4)


def marked(pixels: npt.NDArray[np.uint8], index: int) -> npt.NDArray[np.uint8]:
    """Write the index into the corner, black and white in squares, so that no frames are equal."""
    marked = pixels.copy()
    columns = max(pixels.shape[1] // 8, 1)
    for bit in range(17):  # enough for the 118,287 images of COCO
        row, column = 8 * (bit // columns), 8 * (bit % columns)
        marked[row : row + 8, column : column + 8] = 255 * (index >> bit & 1)
    return marked


def light(rng: np.random.Generator) -> tuple[float, float]:
    """Draw a camera's exposure and the grain of its sensor."""
    return float(rng.uniform(0.85, 1.12)), float(rng.uniform(0.008, 0.02))


def photo(
    rng: np.random.Generator, canvas: Canvas, world: World, exposure: float, grain: float
) -> npt.NDArray[np.uint8]:
    """Develop a street: the light of the day, then the camera."""
    canvas.rgb *= vector((1 + 0.05 * world.warmth, 1, 1 - 0.05 * world.warmth))
    return canvas.develop(rng, exposure, grain)


def write_cityscapes_frame(root: Path, split: str, index: int, seed: int, height: int, width: int) -> None:
    """Write one frame of Cityscapes: image, labelIds, instanceIds."""
    cities = _CITIES[split]
    rng = np.random.default_rng([seed, _WORLD_CITYSCAPES, split == "val", index])
    world = sample_world(rng, index)
    canvas = render(world, aim(rng, height, width), height, width)
    add_car_body(canvas)
    city = cities[index % len(cities)]
    name = f"{city}_{index // len(cities):06d}_000019"
    write_image(root / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png", photo(rng, canvas, world, *light(rng)))
    labels = root / "gtFine" / split / city
    write_image(labels / f"{name}_gtFine_labelIds.png", canvas.ids)
    # as in Cityscapes: things have label id * 1000 + number, everything else its label id
    things = (canvas.ids >= 24) & (canvas.instances > 0)
    instances = np.where(things, canvas.ids.astype(np.uint16) * 1000 + canvas.instances, canvas.ids)
    write_image(labels / f"{name}_gtFine_instanceIds.png", instances.astype(np.uint16))


def stand(
    canvas: Canvas,
    camera: Camera,
    *,
    draw: Draw,
    x: float,
    z: float,
    rolled: tuple[float, ...],
    label: int,
    size: float,
    instance: int = 1,
) -> None:
    """Put an object on the ground at (X, Z) [m], with its shadow."""
    scale = camera.scale(z) * size
    pen = Pen(canvas, camera.project(x, 0, z), scale, label, instance)
    canvas.shadow(footprint(pen), 0.45)
    draw(pen, rolled)


def write_lost_and_found_scene(
    root: Path, name: str, frames: int, seed: int, index: int, height: int, width: int
) -> None:
    """Write one scene of LostAndFound: a drive past a few objects; the last frame has none."""
    rng = np.random.default_rng([seed, _WORLD_LAF, index])
    street = sample_world(rng, index, things=False)
    cameras = aim(rng, height, width)
    # 1. the objects in the order in which the camera passes them
    objects: list[Extra] = []
    z, start = 3.5 + 0.6 * frames + float(rng.uniform(0, 1.5)), float(rng.uniform(0, 1))
    for number in range(int(rng.integers(2, 5))):
        objects.append(obstacle(rng, street, number, start, z))
        z += float(rng.uniform(0.7, 6))
    # 2. one picture each 0.6 m
    sequence, day = int(rng.integers(0, 3)), light(rng)
    for step in range(frames):
        camera = replace(cameras, x=cameras.x + 0.03 * step, z=0.6 * step)
        last = step == frames - 1 and frames > 1
        world = replace(street, extras=() if last else tuple(objects))
        own = np.random.default_rng([seed, _WORLD_LAF, index, step])
        frame = f"{name}_{sequence:06d}_{10 * (step + 1):06d}"
        write_lost_and_found_frame(root, frame, own, world, camera, day, height, width)


def obstacle(rng: np.random.Generator, street: World, number: int, start: float, z: float) -> Extra:
    """Draw the number-th object of a drive, at depth `z` [m]; `start` in [0, 1) shifts all of them across the road."""
    # the first one is always a hazard, a third of the others may be driven over
    harmless = number > 0 and rng.uniform() < 0.35
    label = int(rng.choice(list(NON_HAZARDS if harmless else HAZARDS)))
    draw = NON_HAZARDS[label] if harmless else HAZARDS[label]
    left, right = 0.7 * street.sides[0].road, 0.8 * street.sides[1].road
    x = (left + right) * ((start + 0.37 * number) % 1) - left
    size = float(rng.uniform(0.8, 1.4))
    rolled = dice(rng)
    return z, partial(stand, draw=draw, x=x, z=z, rolled=rolled, label=100 + label, size=size, instance=number + 1)


def write_lost_and_found_frame(
    root: Path,
    frame: str,
    rng: np.random.Generator,
    world: World,
    camera: Camera,
    day: tuple[float, float],
    height: int,
    width: int,
) -> Path:
    """Write a frame of LostAndFound, named scene_sequence_number, with its labels; return the image's path."""
    canvas = render(world, camera, height, width)
    add_car_body(canvas, ego=False)
    name = frame[:-14]  # without _sequence_number, of six digits each
    image = root / "leftImg8bit" / "test" / name / f"{frame}_leftImg8bit.png"
    write_image(image, photo(rng, canvas, world, *day))
    # label ids (1 free road, objects from 2) and the train ids of the archive
    ids = np.where(canvas.ids == ROAD, 1, 0).astype(np.uint8)
    ids = np.where(canvas.ids >= 100, canvas.ids - 100, ids).astype(np.uint8)
    train_ids = np.where(ids == 1, 1, 255)
    train_ids[np.isin(ids, list(HAZARDS))] = 2
    train_ids[np.isin(ids, list(NON_HAZARDS))] = 0
    labels = root / "gtCoarse" / "test" / name
    write_image(labels / f"{frame}_gtCoarse_labelIds.png", ids)
    write_image(labels / f"{frame}_gtCoarse_labelTrainIds.png", train_ids.astype(np.uint8))
    instances = np.where(ids > 1, ids.astype(np.uint16) * 1000 + canvas.instances, ids)
    write_image(labels / f"{frame}_gtCoarse_instanceIds.png", instances.astype(np.uint16))
    return image


def write_static_frame(root: Path, index: int, seed: int, height: int, width: int) -> None:
    """Write one frame of Fishyscapes Static: a street with pasted objects of any size."""
    rng = np.random.default_rng([seed, _WORLD_STATIC, index])
    world = sample_world(rng, index)
    canvas = render(world, aim(rng, height, width), height, width)
    add_car_body(canvas)
    # void (ego vehicle, border, ground without class) is 255, everything known 0
    known = np.where(np.isin(canvas.ids, (1, 2, 4, 6, 9, 10)), 255, 0)
    canvas.ids[:] = known
    hazards = list(HAZARDS.values())
    for _ in range(int(rng.integers(1, 3))):
        scale = height * float(rng.uniform(0.12, 0.45))
        foot = (width * float(rng.uniform(0.05, 0.95)), height * float(rng.uniform(0.45, 0.9)))
        hazards[int(rng.integers(len(hazards)))](Pen(canvas, foot, scale, 1), dice(rng))
    stem = f"{index:04d}_{_STATIC_CITIES[index % len(_STATIC_CITIES)]}_{index:06d}_000019"
    folder = root / "Static"
    write_image(folder / f"{stem}.jpg", photo(rng, canvas, world, *light(rng)), quality=92, subsampling=0)
    write_image(folder / f"{stem}.png", canvas.ids)


def write_coco(root: Path, count: int, seed: int, side: int, progress: Callable[[int], None]) -> None:
    """Write COCO: `count` images with an entry in the json, and the oddities of real folders.

    Args:
        root: Folder for ``train2017`` and ``annotations``.
        count: Number of images.
        seed: Seed of the demo world.
        side: Shorter side [px] of an image that is large enough; some are smaller.
        progress: Called with 1 after each image.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index in range(count):
        rng = np.random.default_rng([seed, _WORLD_COCO, index])
        # of 15 images one is too small, one has no annotation, one holds something of the street
        height, width = _coco_size(rng, side, too_small=index % 15 == 7)
        canvas = scenery(rng, height, width)
        image: dict[str, Any] = {
            "id": 1000 + 37 * index,
            "file_name": f"{1000 + 37 * index:012d}.jpg",
            "height": height,
            "width": width,
            "license": 1,
        }
        number = 0 if index % 15 == 11 else int(rng.integers(1, 4))
        categories = list(PROXIES)
        for instance in range(1, number + 1):
            category = categories[int(rng.integers(len(categories)))]
            pen = draw_proxy(rng, canvas, category, instance)
            form = (index + instance) % 5
            annotations.append(annotation(canvas, pen, image["id"], category[0], form))
        if index % 15 == 3:
            add_street_thing(rng, canvas, image["id"], index // 15, annotations)
        for k, entry in enumerate(annotations):
            entry["id"] = k + 1
        picture = canvas.develop(rng, float(rng.uniform(0.8, 1.15)), float(rng.uniform(0.008, 0.02)))
        write_image(root / "train2017" / str(image["file_name"]), picture, quality=90, subsampling=0)
        images.append(image)
        progress(1)
    # a file that the json lacks, and an entry without a file, as real folders have them
    rng = np.random.default_rng([seed, _WORLD_COCO, count])
    unlisted = scenery(rng, side, side).develop(rng, 1.0, 0.02)
    write_image(root / "train2017" / f"{900001:012d}.jpg", unlisted, quality=90)
    images.append({"id": 900002, "file_name": f"{900002:012d}.jpg", "height": side, "width": side, "license": 1})
    instances = {
        "info": {"description": "demo world", "version": "1.0"},
        "licenses": [{"id": 1, "name": "Apache-2.0", "url": ""}],
        "images": images,
        "annotations": annotations,
        "categories": category_list(),
    }
    path = root / "annotations" / "instances_train2017.json"
    write_text(path, json.dumps(instances))


def _coco_size(rng: np.random.Generator, side: int, too_small: bool) -> tuple[int, int]:
    short = round(side * float(rng.uniform(0.6, 0.95))) if too_small else side
    long = round(side * float(rng.choice((1.0, 1.25, 1.5))))
    return (short, long) if rng.uniform() < 0.7 else (long, short)


def category_list() -> list[dict[str, Any]]:
    """Return the json's categories: what is drawn, and COCO's street classes, by their ids."""
    names = dict(tuple(PROXIES)) | _STREET_CATEGORIES | {13: "stop sign"}
    return [{"id": key, "name": names[key], "supercategory": "demo"} for key in sorted(names)]


def annotation(canvas: Canvas, pen: Pen, image_id: int, category: int, form: int) -> dict[str, Any]:
    """Return the json's entry of what a pen drew, its outline in one of COCO's forms (0 to 4)."""
    from pycocotools.mask import encode

    mask = canvas.instances == pen.instance
    height, width = mask.shape
    segmentation: Any
    if form in (3, 4):
        text = encode(np.asfortranarray(mask, np.uint8))["counts"].decode()
        counts = text if form == 3 else decompress(text)
        segmentation = {"counts": counts, "size": [height, width]}
    else:
        segmentation = [
            [round(min(max(value, 0.0), bound), 2) for x, y in part for value, bound in ((x, width), (y, height))]
            for part in pen.parts
        ]
    rows, columns = np.nonzero(mask)
    box = [0, 0, 0, 0]
    if rows.size:
        box = [int(columns.min()), int(rows.min()), int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1]
    return {
        "image_id": image_id,
        "category_id": category,
        "segmentation": segmentation,
        "iscrowd": int(form == 4),
        "area": float(rows.size),
        "bbox": box,
    }


def add_street_thing(
    rng: np.random.Generator, canvas: Canvas, image_id: int, turn: int, annotations: list[dict[str, Any]]
) -> None:
    """Draw something from the street into a proxy image, which must then be left out."""
    category = sorted(_STREET_CATEGORIES)[turn % len(_STREET_CATEGORIES)]
    height, width = canvas.ids.shape
    camera = Camera(float(height), (width * 0.5, height * 0.35), 0.0, 1.5, 0.0)
    canvas.instances[:] = 0
    item = Item(_STREET_CATEGORIES[category], 0.0, 4.5, dice(rng), 99)
    THINGS[item.kind](canvas, camera, item)
    pen = Pen(canvas, (0, 0), 1.0, 0, 99)
    annotations.append(annotation(canvas, pen, image_id, category, 3))


def scene_names(count: int) -> tuple[str, ...]:
    """Return the folders of a small LostAndFound of `count` frames, five at least if it can be."""
    return _SCENES[: max(1, min(len(_SCENES), max(5, count // 5), count))]
