"""Drawings of the Cityscapes classes that are things: vehicles, people, poles, lights, signs, trees."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from meta_ood.demo.canvas import Camera, Canvas, Pen, Point
from meta_ood.demo.textures import Colour, Material, tint

POLE, LIGHT, SIGN, VEGETATION = 17, 19, 20, 21
PERSON, RIDER, CAR, TRUCK, BUS, TRAIN, MOTORCYCLE, BICYCLE = 24, 25, 26, 27, 28, 31, 32, 33

GLASS = Material((0.12, 0.16, 0.2), (0.3, 0.36, 0.42), "diagonal", 1.1)
RUBBER = Material((0.07, 0.07, 0.08))
STEEL = Material((0.13, 0.3, 0.33), shade=0.0)
SKIN = Material((0.78, 0.58, 0.47))
CLOTHES: tuple[Colour, ...] = ((0.62, 0.12, 0.2), (0.75, 0.3, 0.35), (0.5, 0.14, 0.4), (0.72, 0.2, 0.1))
PAINTS: tuple[Colour, ...] = (
    (0.12, 0.12, 0.14),
    (0.6, 0.62, 0.65),
    (0.82, 0.82, 0.82),
    (0.1, 0.18, 0.42),
    (0.5, 0.07, 0.09),
    (0.32, 0.34, 0.36),
)


@dataclass(frozen=True)
class Item:
    """One thing in the street: what, where (X, Z of its foot [m]), and its own random numbers."""

    kind: str
    x: float
    z: float
    dice: tuple[float, ...]
    instance: int = 0

    def pick(self, choices: Sequence[Colour], die: int) -> Colour:
        """Choose by one of the item's random numbers in [0, 1)."""
        return choices[int(self.dice[die] * len(choices))]


def _pen(canvas: Canvas, camera: Camera, item: Item, label: int) -> Pen:
    foot = camera.project(item.x, 0.0, item.z)
    return Pen(canvas, foot, camera.scale(item.z), label, item.instance)


def _shadow(canvas: Canvas, camera: Camera, item: Item, half: float, depth: float) -> None:
    points = [
        camera.project(item.x + dx, 0.0, item.z + dz)
        for dx, dz in ((-half, -0.2), (half * 1.3, -0.2), (half * 1.5, depth), (-half, depth))
    ]
    canvas.shadow(points, 0.4)


def _pole(canvas: Canvas, camera: Camera, item: Item) -> None:
    pen = _pen(canvas, camera, item, POLE)
    pen.line((0, 0), (0, 5.5 + 2 * item.dice[0]), 0.2, STEEL)
    if item.dice[1] < 0.5:
        side = 1.4 if item.x < 0 else -1.4
        top = 5.4 + 2 * item.dice[0]
        pen.line((0, top), (side, top + 0.2), 0.12, STEEL)


def _light(canvas: Canvas, camera: Camera, item: Item) -> None:
    pen = _pen(canvas, camera, item, POLE)
    pen.line((0, 0), (0, 3.2), 0.18, STEEL)
    housing = Material((0.04, 0.05, 0.04), shade=0.0)
    pen.rectangle(-0.4, 2.6, 0.4, 4.5, housing, LIGHT)
    lit = int(item.dice[0] * 3)
    lamps: tuple[Colour, ...] = ((0.1, 0.9, 0.45), (1.0, 0.75, 0.15), (1.0, 0.18, 0.12))
    for k, lamp in enumerate(lamps):
        colour = lamp if k == lit else tint(lamp, 0.25)
        pen.ellipse(0, 3.0 + 0.58 * k, 0.22, 0.24, Material(colour, shade=0), LIGHT)


def _sign(canvas: Canvas, camera: Camera, item: Item) -> None:
    pen = _pen(canvas, camera, item, POLE)
    pen.line((0, 0), (0, 2.4), 0.14, STEEL)
    red, white = Material((0.8, 0.08, 0.1), shade=0), Material((0.95, 0.95, 0.95), shade=0)
    blue, yellow = Material((0.05, 0.25, 0.7), shade=0), Material((0.95, 0.8, 0.1), shade=0)
    variant = int(item.dice[0] * 4)
    if variant == 0:
        pen.ellipse(0, 2.7, 0.5, 0.5, red, SIGN)
        pen.ellipse(0, 2.7, 0.32, 0.32, white, SIGN)
    elif variant == 1:
        pen.polygon([(-0.58, 2.3), (0.58, 2.3), (0, 3.3)], red, SIGN)
        pen.polygon([(-0.32, 2.45), (0.32, 2.45), (0, 3.0)], white, SIGN)
    elif variant == 2:
        pen.rectangle(-0.48, 2.2, 0.48, 3.2, blue, SIGN)
        pen.polygon([(-0.25, 2.4), (0.25, 2.4), (0, 2.95)], white, SIGN)
    else:
        pen.rectangle(-0.9, 2.2, 0.9, 3.0, yellow, SIGN)
        pen.rectangle(-0.7, 2.5, 0.7, 2.65, RUBBER, SIGN)


def _tree(canvas: Canvas, camera: Camera, item: Item) -> None:
    pen = _pen(canvas, camera, item, VEGETATION)
    pen.line((0, 0), (0, 3), 0.35, Material((0.28, 0.2, 0.14)))
    green = (0.16 + 0.12 * item.dice[0], 0.33 + 0.1 * item.dice[1], 0.12)
    for k in range(4):
        leaves = Material(tint(green, 0.8 + 0.14 * k), tint(green, 0.5), "leaves", 1.0, 0.2)
        seed = int(item.dice[2] * 100) + k
        pen.blob((k - 1.5) * 0.7, 3.6 + 0.9 * item.dice[3] + 0.8 * (k % 2), 1.5, 0.35, seed, leaves)


def _person(canvas: Canvas, camera: Camera, item: Item) -> None:
    _shadow(canvas, camera, item, 0.35, 0.5)
    pen = _pen(canvas, camera, item, PERSON)
    tall = 1.6 + 0.25 * item.dice[0]
    upper, lower = Material(item.pick(CLOTHES, 1)), Material(tint(item.pick(CLOTHES, 2), 0.6))
    stride = 0.1 + 0.18 * item.dice[3]
    pen.polygon([(-0.06, 0.85), (-stride - 0.1, 0), (-stride + 0.08, 0), (0.06, 0.5)], lower)
    pen.polygon([(-0.02, 0.5), (stride - 0.08, 0), (stride + 0.1, 0), (0.18, 0.85)], lower)
    pen.polygon(
        [
            (-0.22, 0.8),
            (0.22, 0.8),
            (0.29, tall - 0.35),
            (0.15, tall - 0.25),
            (-0.15, tall - 0.25),
            (-0.29, tall - 0.35),
        ],
        upper,
    )
    pen.line((-0.28, tall - 0.4), (-0.34, 0.85), 0.13, upper)
    pen.line((0.28, tall - 0.4), (0.34, 0.85), 0.13, upper)
    pen.ellipse(0, tall - 0.12, 0.13, 0.16, SKIN)


def _wheels(pen: Pen, distance: float, radius: float, label: int, spokes: Material) -> None:
    for a in (-distance, distance):
        pen.ellipse(a, radius, radius, radius, RUBBER, label)
        pen.ellipse(a, radius, radius * 0.72, radius * 0.72, spokes, label)


def _bicycle(canvas: Canvas, camera: Camera, item: Item) -> None:
    pen = _pen(canvas, camera, item, BICYCLE)
    spokes = Material((0.42, 0.42, 0.42), (0.2, 0.2, 0.22), "grid", 0.12)
    _wheels(pen, 0.55, 0.36, BICYCLE, spokes)
    frame = Material(item.pick(((0.75, 0.1, 0.1), (0.1, 0.4, 0.7), (0.1, 0.6, 0.3)), 0), shade=0)
    for start, end in (
        ((-0.55, 0.36), (-0.15, 0.85)),
        ((-0.15, 0.85), (0.4, 0.85)),
        ((0.4, 0.95), (0.55, 0.36)),
        ((-0.15, 0.85), (0.05, 0.34)),
        ((0.05, 0.34), (0.42, 0.8)),
    ):
        pen.line(start, end, 0.09, frame)


def _rider(canvas: Canvas, camera: Camera, item: Item) -> None:
    _shadow(canvas, camera, item, 0.6, 0.6)
    _bicycle(canvas, camera, item)
    pen = _pen(canvas, camera, item, RIDER)
    upper = Material(item.pick(((0.85, 0.75, 0.1), (0.9, 0.4, 0.1), (0.55, 0.8, 0.2)), 1))
    lower = Material((0.1, 0.1, 0.13))
    pen.polygon([(-0.28, 0.95), (-0.05, 0.95), (0.15, 0.3), (0.0, 0.25)], lower)
    pen.polygon([(-0.35, 0.9), (-0.05, 0.9), (0.3, 1.45), (0.05, 1.6), (-0.15, 1.5)], upper)
    pen.line((0.2, 1.4), (0.45, 1.0), 0.12, upper)
    pen.ellipse(0.2, 1.72, 0.15, 0.16, SKIN)
    pen.polygon([(0.03, 1.76), (0.38, 1.76), (0.3, 1.92), (0.1, 1.92)], Material((0.9, 0.9, 0.92)))


def _motorcycle(canvas: Canvas, camera: Camera, item: Item) -> None:
    _shadow(canvas, camera, item, 0.9, 0.6)
    pen = _pen(canvas, camera, item, MOTORCYCLE)
    _wheels(pen, 0.75, 0.37, MOTORCYCLE, Material((0.3, 0.3, 0.32)))
    tank = Material(item.pick(((0.65, 0.05, 0.3), (0.45, 0.1, 0.55), (0.1, 0.15, 0.6)), 0))
    pen.polygon([(-0.8, 0.5), (0.6, 0.4), (0.5, 0.75), (-0.8, 0.8)], Material((0.15, 0.15, 0.17)))
    pen.polygon([(-0.3, 0.75), (0.55, 0.7), (0.45, 1.08), (-0.1, 1.05)], tank)
    pen.polygon([(-0.95, 0.8), (-0.2, 0.78), (-0.3, 0.98), (-0.95, 1.0)], RUBBER)
    pen.line((0.45, 1.25), (0.75, 0.4), 0.12, STEEL)


@dataclass(frozen=True)
class _Box:
    """A cuboid standing in the street: half width, bottom, top and length [m]."""

    half: float
    bottom: float
    top: float
    length: float


def _box(canvas: Canvas, camera: Camera, item: Item, box: _Box, paint: Material, label: int) -> list[Point]:
    """Draw the side that the camera sees and the near face; return the side's corners."""
    # the side that faces the middle of the picture
    x = item.x + (box.half if item.x < camera.x else -box.half)
    near, far = item.z, item.z + box.length
    side = [
        camera.project(x, box.bottom, near),
        camera.project(x, box.bottom, far),
        camera.project(x, box.top, far),
        camera.project(x, box.top, near),
    ]
    scale = camera.scale(near)
    dark = Material(tint(paint.colour, 0.72), tint(paint.second, 0.72), paint.pattern, paint.period)
    canvas.polygon(side, dark, label, scale, item.instance)
    face = [
        camera.project(item.x - box.half, box.bottom, near),
        camera.project(item.x + box.half, box.bottom, near),
        camera.project(item.x + box.half, box.top, near),
        camera.project(item.x - box.half, box.top, near),
    ]
    canvas.polygon(face, paint, label, scale, item.instance)
    return side


def _side_windows(canvas: Canvas, camera: Camera, item: Item, box: _Box, low: float, high: float, count: int) -> None:
    x = item.x + (box.half if item.x < camera.x else -box.half)
    for k in range(count):
        z0 = item.z + box.length * (k + 0.15) / count
        z1 = item.z + box.length * (k + 0.85) / count
        canvas.polygon(
            [
                camera.project(x, low, z0),
                camera.project(x, low, z1),
                camera.project(x, high, z1),
                camera.project(x, high, z0),
            ],
            GLASS,
            None,
            camera.scale(z0),
        )


def _wheels_of_box(canvas: Canvas, camera: Camera, item: Item, box: _Box, label: int) -> None:
    x = box.half if item.x < camera.x else -box.half
    for z in (item.z + 0.18 * box.length, item.z + 0.8 * box.length):
        foot = camera.project(item.x + x * 0.97, 0, z)
        Pen(canvas, foot, camera.scale(z), label, item.instance).ellipse(0, 0.33, 0.16, 0.33, RUBBER)
    pen = _pen(canvas, camera, item, label)
    for a in (-box.half + 0.2, box.half - 0.2):
        pen.rectangle(a - 0.13, 0, a + 0.13, box.bottom + 0.15, RUBBER)


def _lamps(pen: Pen, half: float, b: float, front: bool) -> None:
    lamp = Material((0.95, 0.93, 0.8) if front else (0.75, 0.05, 0.05), shade=0)
    for a in (-half + 0.2, half - 0.2):
        pen.rectangle(a - 0.16, b - 0.09, a + 0.16, b + 0.09, lamp)
    pen.rectangle(-0.28, b - 0.28, 0.28, b - 0.14, Material((0.85, 0.85, 0.8), shade=0))


def _car(canvas: Canvas, camera: Camera, item: Item) -> None:
    _shadow(canvas, camera, item, 1.0, 4.2)
    paint = Material(item.pick(PAINTS, 0), rough=0.03, shade=0.5)
    body, cabin = _Box(0.9, 0.28, 0.95, 4.1), _Box(0.72, 0.9, 1.5, 2.2)
    _wheels_of_box(canvas, camera, item, body, CAR)
    _box(canvas, camera, item, body, paint, CAR)
    # the cabin stands 0.7 m behind the bumper
    moved = Item(item.kind, item.x, item.z + 0.7, item.dice, item.instance)
    _box(canvas, camera, moved, cabin, paint, CAR)
    _side_windows(canvas, camera, moved, cabin, 1.0, 1.4, 2)
    pen = _pen(canvas, camera, moved, CAR)
    pen.polygon([(-0.68, 0.92), (0.68, 0.92), (0.58, 1.42), (-0.58, 1.42)], GLASS)
    _lamps(_pen(canvas, camera, item, CAR), 0.9, 0.72, item.dice[1] < 0.4)


def _truck(canvas: Canvas, camera: Camera, item: Item) -> None:
    _shadow(canvas, camera, item, 1.3, 6.5)
    cargo = item.pick(((0.72, 0.72, 0.7), (0.15, 0.38, 0.3), (0.35, 0.42, 0.55)), 0)
    box = _Box(1.25, 0.75, 3.3, 6.5)
    _wheels_of_box(canvas, camera, item, box, TRUCK)
    paint = Material(cargo, tint(cargo, 0.85), "stripes", 0.5, shade=0.2)
    _box(canvas, camera, item, box, paint, TRUCK)
    pen = _pen(canvas, camera, item, TRUCK)
    pen.rectangle(-1.2, 0.5, 1.2, 0.78, Material((0.2, 0.2, 0.2)))
    if item.dice[1] < 0.5:
        cab = Material(item.pick(((0.75, 0.15, 0.1), (0.9, 0.9, 0.9), (0.15, 0.25, 0.55)), 2))
        pen.rectangle(-1.2, 0.4, 1.2, 2.5, cab)
        pen.rectangle(-1.05, 1.45, 1.05, 2.3, GLASS)
    else:
        pen.rectangle(-0.03, 0.8, 0.03, 3.25, Material((0.3, 0.3, 0.3)))
    _lamps(pen, 1.2, 0.72, item.dice[1] < 0.5)


def _bus(canvas: Canvas, camera: Camera, item: Item) -> None:
    _shadow(canvas, camera, item, 1.35, 10)
    box = _Box(1.28, 0.35, 3.1, 10)
    colour = item.pick(((0.88, 0.68, 0.12), (0.92, 0.78, 0.35), (0.9, 0.5, 0.1)), 0)
    _wheels_of_box(canvas, camera, item, box, BUS)
    _box(canvas, camera, item, box, Material(colour, shade=0.3), BUS)
    _side_windows(canvas, camera, item, box, 1.5, 2.6, 6)
    pen = _pen(canvas, camera, item, BUS)
    pen.rectangle(-1.15, 1.3, 1.15, 2.55, GLASS)
    pen.rectangle(-0.8, 2.68, 0.8, 2.98, Material((0.1, 0.1, 0.08), (0.95, 0.7, 0.1), "stripes", 0.2))
    _lamps(pen, 1.2, 0.75, item.dice[1] < 0.5)


def _train(canvas: Canvas, camera: Camera, item: Item) -> None:
    _shadow(canvas, camera, item, 1.35, 16)
    box = _Box(1.25, 0.3, 3.5, 18)
    colour = item.pick(((0.62, 0.1, 0.14), (0.7, 0.16, 0.1), (0.55, 0.08, 0.2)), 0)
    band = Material(colour, (0.9, 0.88, 0.8), "bands", 2.1, shade=0.2)
    _box(canvas, camera, item, box, band, TRAIN)
    _side_windows(canvas, camera, item, box, 1.6, 2.7, 8)
    pen = _pen(canvas, camera, item, TRAIN)
    pen.polygon([(-1.1, 1.5), (1.1, 1.5), (0.9, 2.9), (-0.9, 2.9)], GLASS)
    pen.ellipse(0, 0.95, 0.2, 0.2, Material((1, 0.95, 0.8), shade=0))
    pen.line((-0.5, 3.5), (0.3, 4.3), 0.08, STEEL)
    pen.line((0.3, 4.3), (-0.5, 4.8), 0.08, STEEL)


THINGS: dict[str, Callable[[Canvas, Camera, Item], None]] = {
    "pole": _pole,
    "traffic light": _light,
    "traffic sign": _sign,
    "tree": _tree,
    "person": _person,
    "rider": _rider,
    "bicycle": _bicycle,
    "motorcycle": _motorcycle,
    "car": _car,
    "truck": _truck,
    "bus": _bus,
    "train": _train,
}
"""Kind of :class:`Item` -> what draws it."""


def dice(rng: np.random.Generator) -> tuple[float, ...]:
    """Draw an item's own random numbers in [0, 1)."""
    return tuple(float(value) for value in rng.uniform(0, 1, 6))
