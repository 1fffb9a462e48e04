"""A procedural street in metres, independent of any camera."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from meta_ood.demo.canvas import Camera, Canvas
from meta_ood.demo.textures import Colour, Floats
from meta_ood.demo.things import Item, dice

EGO, BORDER, STATIC, GROUND, PARKING, RAIL = 1, 2, 4, 6, 9, 10
ROAD, SIDEWALK, BUILDING, WALL, FENCE, VEGETATION, TERRAIN, SKY = 7, 8, 11, 12, 13, 21, 22, 23

RARE = ("person", "bus", "traffic light", "rider", "truck", "traffic sign", "motorcycle", "train", "bicycle")
"""Every street gets some of these in turn, so that no class is missing in a small set."""


@dataclass(frozen=True)
class Side:
    """One side of the street, along Z in stretches.

    Attributes:
        road, kerb, front: |X| [m] of the road's edge, the sidewalk's outer edge and the house fronts.
        breaks: Z [m] at which a new stretch begins, ascending.
        kinds: Label id of what stands along each stretch.
        heights: Its height [m].
        behind: Height [m] of the trees behind it.
        colours: Its colour.
        strip: Label id of the ground between sidewalk and front of each stretch.
        parking: Width [m] of the parking lane beside the road in each stretch.
    """

    road: float
    kerb: float
    front: float
    breaks: npt.NDArray[np.float64]
    kinds: npt.NDArray[np.int64]
    heights: npt.NDArray[np.float64]
    behind: npt.NDArray[np.float64]
    colours: Floats
    strip: npt.NDArray[np.int64]
    parking: npt.NDArray[np.float64]


Extra = tuple[float, Callable[[Canvas, Camera], None]]  # depth [m] and drawing of what a street holds beside its items


@dataclass(frozen=True)
class World:
    """A street, independent of any camera."""

    sides: tuple[Side, Side]
    items: tuple[Item, ...]
    sky: tuple[Colour, Colour]
    asphalt: float
    warmth: float
    rails: float
    phase: float
    extras: tuple[Extra, ...] = ()


_FRONTS: tuple[Colour, ...] = (
    (0.62, 0.55, 0.45),
    (0.6, 0.5, 0.4),
    (0.66, 0.64, 0.6),
    (0.55, 0.5, 0.36),
    (0.45, 0.42, 0.42),
    (0.68, 0.58, 0.5),
)


def _side(rng: np.random.Generator, road: float, wanted: Sequence[int], start: float, length: float) -> Side:
    kerb = road + rng.uniform(1.8, 3.0)
    front = kerb + rng.uniform(1.2, 3.2)
    # 1. stretches of 200 m and the length of the drive; the wanted kinds come first, where the camera sees them
    breaks, kinds = [start], []
    first = list(wanted)
    while breaks[-1] < start + 200 + length:
        if first:
            kind = first.pop(0)
        else:
            kind = int(rng.choice((BUILDING, BUILDING, BUILDING, WALL, FENCE, VEGETATION)))
        kinds.append(kind)
        breaks.append(breaks[-1] + rng.uniform(5, 12) * (1.4 if kind == BUILDING else 1))
    count = len(kinds)
    # 2. heights [m] and colours of each stretch
    tall = {BUILDING: (7, 16), WALL: (1.8, 3.2), FENCE: (1.5, 2.3), VEGETATION: (3, 7)}
    heights = [rng.uniform(*tall[kind]) for kind in kinds]
    green = np.array((0.18, 0.33, 0.13)) * rng.uniform(0.8, 1.25, (count, 1))
    brick = np.array((0.56, 0.3, 0.24)) * rng.uniform(0.85, 1.15, (count, 1))
    wire = np.array((0.42, 0.36, 0.2)) * rng.uniform(0.8, 1.3, (count, 1))
    fronts = np.array(_FRONTS)[rng.integers(0, len(_FRONTS), count)]
    fronts = fronts * rng.uniform(0.75, 1.2, (count, 1))
    colours = np.select(
        [np.equal(kinds, kind)[:, None] for kind in (VEGETATION, WALL, FENCE)], [green, brick, wire], fronts
    )
    # 3. the ground before it
    strip = np.where(rng.uniform(0, 1, count) < 0.55, TERRAIN, SIDEWALK)
    strip = np.where(rng.uniform(0, 1, count) < 0.05, GROUND, strip)
    return Side(
        road,
        kerb,
        front,
        np.array(breaks[:-1]),
        np.array(kinds),
        np.array(heights),
        np.where(rng.uniform(0, 1, count) < 0.6, rng.uniform(3, 8, count), 0.0),
        colours.astype(np.float32),
        strip,
        np.where(rng.uniform(0, 1, count) < 0.15, 2.0, 0.0),
    )


def sample_world(
    rng: np.random.Generator, turn: int, things: bool = True, traffic: float = 1.0, length: float = 0.0
) -> World:
    """Draw a street.

    Args:
        rng: Where all randomness comes from.
        turn: Number of the street in its set; decides which rare classes it gets.
        things: Whether there is traffic; without it the road is free.
        traffic: Scale of the number of cars.
        length: How far [m] the camera will drive.

    Returns:
        The street; the camera starts at Z = 0.
    """
    # 1. both sides; the order of the draws decides what a seed gives
    left = _side(rng, rng.uniform(3.6, 5.2), (_TURNS[turn % 4][0], _TURNS[turn % 4][1]), 4.0, length)
    right = _side(rng, rng.uniform(3.2, 4.6), (_TURNS[turn % 4][2], _TURNS[turn % 4][3]), 4.0, length)
    left = replace(left, strip=_with(left.strip, 0, TERRAIN if turn % 2 == 0 else left.strip[0]))
    right = replace(right, strip=_with(right.strip, 0, TERRAIN if turn % 2 else right.strip[0]))
    # 2. things: three rare kinds in turn, two at random
    forced = [RARE[(turn * 4 + k) % len(RARE)] for k in range(3)]
    extra = [str(kind) for kind in rng.choice(RARE, 2) if things or kind not in _ON_ROAD]
    kinds = [*forced, *extra] if things else [k for k in (*forced, *extra) if k not in _ON_ROAD]
    items = _items(rng, kinds, left, right, things, traffic, length)
    # 3. the weather: a third of the skies is overcast
    clear = rng.uniform(0, 1)
    sky = ((0.42 + 0.2 * clear, 0.58 + 0.12 * clear, 0.8 + 0.12 * clear), (0.76, 0.85, 0.95))
    if rng.uniform() < 0.35:
        sky = ((0.7, 0.74, 0.8), (0.84, 0.87, 0.92))
    rails = -left.road * 0.55 if any(item.kind == "train" for item in items) else 0.0
    return World(
        (left, right),
        tuple(items),
        sky,
        float(rng.uniform(0.3, 0.42)),
        float(rng.uniform(-1, 1)),
        float(rails),
        float(rng.uniform(0, 200)),
    )


_AGAIN = 25.0  # [m] after which the things that every street gets are repeated along a drive
_ON_ROAD = ("bus", "truck", "train", "rider", "motorcycle")
_TURNS = (
    (BUILDING, WALL, VEGETATION, BUILDING),
    (FENCE, BUILDING, BUILDING, WALL),
    (BUILDING, VEGETATION, FENCE, BUILDING),
    (WALL, BUILDING, BUILDING, FENCE),
)


def _with(values: npt.NDArray[np.int64], index: int, value: int) -> npt.NDArray[np.int64]:
    changed = values.copy()
    changed[index] = value
    return changed


def _items(
    rng: np.random.Generator, kinds: Sequence[str], left: Side, right: Side, things: bool, traffic: float, length: float
) -> list[Item]:
    items: list[Item] = []

    def add(kind: str, x: float, z: float) -> None:
        items.append(Item(kind, x, z, dice(rng), len(items) + 1))

    # 1. the forced things: on a lane, at its edge, or on the sidewalk; again every 25 m of the drive
    own, other = right.road * 0.5, -left.road * 0.55
    lanes = {own: rng.uniform(13, 20), other: rng.uniform(9, 17)}
    for number in range((1 + int(length // _AGAIN)) * len(kinds)):
        kind, ahead = kinds[number % len(kinds)], _AGAIN * (number // len(kinds))
        if kind in ("bus", "truck", "train", "motorcycle", "rider"):
            lane = other if kind == "train" else float(rng.choice((own, other)))
            if kind in ("motorcycle", "rider"):
                side = 1 if lane == own else -1
                edge = (right if side > 0 else left).road
                add(kind, side * (edge - rng.uniform(0.7, 1.2)), ahead + float(rng.uniform(7, 13)))
                continue
            add(kind, lane, lanes[lane])
            lanes[lane] += {"bus": 14, "truck": 10, "train": 22}[kind] + rng.uniform(2, 8)
        else:
            flank, sign = (left, -1) if rng.uniform() < 0.5 else (right, 1)
            low = flank.road + 0.5 if kind in ("traffic light", "traffic sign") else flank.road + 0.9
            x = sign * (low if kind.startswith("traffic") else rng.uniform(low, flank.kerb - 0.2))
            add(kind, x, ahead + float(rng.uniform(7, 15)))
            if kind == "person" and rng.uniform() < 0.6:
                add(kind, x + 0.7, items[-1].z + float(rng.uniform(0, 1.5)))
    # 2. poles, trees and passers-by along both sides
    for flank, sign in ((left, -1), (right, 1)):
        for z in np.arange(rng.uniform(9, 16), 60 + length, rng.uniform(16, 24)):
            add("pole", sign * (flank.road + 0.4), float(z))
        for z in np.arange(rng.uniform(9, 30), 80 + length, rng.uniform(15, 25)):
            if rng.uniform() < 0.4:
                add("tree", sign * (flank.kerb + 0.5), float(z))
        if rng.uniform() < 0.3:
            add("person", sign * (flank.kerb - 0.5), float(rng.uniform(15, 40)))
    # 3. cars in the lanes and, on most streets, a row of parked ones
    if things:
        for lane, z in lanes.items():
            for _ in range(int(rng.poisson(1.3 * traffic))):
                z += rng.uniform(1, 10)
                add("car", lane + float(rng.uniform(-0.3, 0.3)), float(z))
                z += 5  # a car and some distance
        if rng.uniform() < 0.75 * traffic:
            flank, sign = (left, -1) if rng.uniform() < 0.5 else (right, 1)
            for z in np.arange(rng.uniform(8, 12), 50, 6.0):
                if rng.uniform() < 0.6:
                    add("car", sign * (flank.road + 0.3), float(z))
    return items
