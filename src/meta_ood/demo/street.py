"""The picture of a street: sky, fronts and ground ray by ray, then the things in it, far ones first."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from meta_ood.demo.canvas import Camera, Canvas
from meta_ood.demo.textures import Floats, noise, vector
from meta_ood.demo.things import THINGS, Item
from meta_ood.demo.world import (
    BORDER,
    BUILDING,
    EGO,
    FENCE,
    GROUND,
    PARKING,
    RAIL,
    ROAD,
    SIDEWALK,
    SKY,
    TERRAIN,
    VEGETATION,
    WALL,
    Side,
    World,
)

FAR = 90.0
"""Depth [m] at which the street ends in haze."""


def render(world: World, camera: Camera, height: int, width: int) -> Canvas:
    """Render the street as the camera sees it.

    Returns:
        A canvas of ``(height, width)`` with Cityscapes label ids; not yet developed.
    """
    # 1. directions of the rays through pixel centres, right and up per metre ahead
    xs = ((np.arange(width) + 0.5 - camera.vanishing[0]) / camera.focal).astype(np.float32)
    ys = ((camera.vanishing[1] - np.arange(height) - 0.5) / camera.focal).astype(np.float32)
    # 2. what has no volume, the far before the near
    rgb, ids = _sky(world, ys, width)
    wall_z = _fronts(world, camera, xs, ys, rgb, ids)
    _ground(world, camera, xs, ys, wall_z, rgb, ids)
    canvas = Canvas(rgb, ids)
    # 3. the things, far ones first so that near ones cover them
    drawn: list[tuple[float, Callable[[Canvas, Camera], None]]] = [(item.z, _drawer(item)) for item in world.items]
    for z, draw in sorted([*drawn, *world.extras], key=lambda pair: -pair[0]):
        # nearer than 3.2 m a thing would fill the picture
        if camera.z + 3.2 < z < camera.z + FAR:
            draw(canvas, camera)
    return canvas


def _drawer(item: Item) -> Callable[[Canvas, Camera], None]:
    return lambda canvas, camera: THINGS[item.kind](canvas, camera, item)


def _sky(world: World, ys: Floats, width: int) -> tuple[Floats, npt.NDArray[np.uint8]]:
    height = len(ys)
    up = np.clip(ys / 0.35, 0, 1)[:, None, None]
    rgb = vector(world.sky[1]) * (1 - up) + vector(world.sky[0]) * up
    rgb = np.broadcast_to(rgb, (height, width, 3)).astype(np.float32)
    u = (np.arange(width, dtype=np.float32) * 128 / height + world.phase)[None, :]
    v = (np.arange(height, dtype=np.float32) * 256 / height)[:, None]
    rgb += 0.07 * np.clip(noise(u, v), 0, 1)[..., None]
    return rgb, np.full((height, width), SKY, np.uint8)


def _fronts(world: World, camera: Camera, xs: Floats, ys: Floats, rgb: Floats, ids: npt.NDArray[np.uint8]) -> Floats:
    """Paint what stands along the street; return its depth (W,) [m] from the camera."""
    depth = np.full(len(xs), FAR, np.float32)
    for index, sign in ((0, -1), (1, 1)):
        side = world.sides[index]
        # 1. the depth at which each column meets the front of this side
        columns = np.nonzero(sign * xs > 1e-6)[0]
        z = np.minimum((side.front - sign * camera.x) / (sign * xs[columns]), FAR)
        depth[columns] = z
        # 2. which stretch of the front that is, and where on it each pixel lies
        stretch = np.searchsorted(side.breaks, z + camera.z, side="right") - 1
        stretch = np.clip(stretch, 0, len(side.kinds) - 1)
        above = ys[:, None] * z[None, :] + camera.height  # (H, w) [m] over the ground
        along = (z + camera.z)[None, :]
        kinds = side.kinds[stretch][None, :]
        bumps = 0.8 * noise(along * 14 + world.phase, along * 3)
        top = side.heights[stretch][None, :] + np.where(kinds == VEGETATION, bumps, 0)
        # 3. trees behind the front, then the front itself
        haze = np.clip(z / FAR, 0, 1)[None, :, None] ** 1.5 * 0.4
        trees = (above < side.behind[stretch][None, :] + 1.2 * bumps) & (above > 0)
        green = vector((0.15, 0.27, 0.11)) * (1 + 0.45 * noise(along * 25, above * 25)[..., None])
        _put(rgb, ids, columns, trees, _hazy(green, haze, world), VEGETATION)
        solid = (above < top) & (above > -0.01)
        look = _facade(side, stretch, kinds, along, above, z)
        for kind in (BUILDING, WALL, FENCE, VEGETATION):
            _put(rgb, ids, columns, solid & (kinds == kind), _hazy(look, haze, world), kind)
    return depth


def _put(
    rgb: Floats,
    ids: npt.NDArray[np.uint8],
    columns: npt.NDArray[np.intp],
    mask: npt.NDArray[np.bool_],
    colour: Floats,
    label: int,
) -> None:
    rows, picked = np.nonzero(mask)
    rgb[rows, columns[picked]] = np.broadcast_to(colour, (*mask.shape, 3))[rows, picked]
    ids[rows, columns[picked]] = label


def _hazy(colour: Floats, haze: Floats, world: World) -> Floats:
    return np.asarray(colour * (1 - haze) + vector(world.sky[1]) * haze, np.float32)


def _facade(
    side: Side, stretch: npt.NDArray[np.intp], kinds: npt.NDArray[np.int64], along: Floats, above: Floats, z: Floats
) -> Floats:
    """Return the colour (H, w, 3) of house fronts, walls, fences and hedges."""
    colour = side.colours[stretch][None, :, :] * np.ones((*above.shape, 1), np.float32)
    # fine detail fades beyond 30 m, where it would alias
    fade = np.clip(30 / z, 0.2, 1)[None, :]
    # windows every 2.6 m on storeys of 3 m; shop windows on the ground floor
    storey, bay = np.mod(above, 3.0), np.mod(along, 2.6)
    window = (storey > 1.0) & (storey < 2.5) & (bay > 0.7) & (bay < 1.9)
    frame = (storey > 0.85) & (storey < 2.65) & (bay > 0.55) & (bay < 2.05) & ~window
    shop = (above < 2.6) & (np.mod(along, 4.0) < 3.2) & (above > 0.4)
    house = kinds == BUILDING
    glass = vector((0.3, 0.34, 0.42)) * (1 + 0.25 * noise(along * 8, above * 8))[..., None]
    colour = np.where((house & (window | shop))[..., None], glass, colour)
    colour = np.where((house & frame & ~shop)[..., None], colour * 1.3, colour)
    # bricks of walls: courses of 0.5 m, every second one shifted by half a brick
    bricks = (np.mod(above, 0.5) < 0.09) | (np.mod(along + (np.mod(above, 1.0) < 0.5), 1.0) < 0.1)
    colour = np.where(((kinds == WALL) & bricks)[..., None], colour * 0.72, colour)
    # fences are dark between pickets and rails
    pickets = (np.mod(along, 0.5) < 0.2) | (np.mod(above, 1.3) < 0.22)
    gap = vector((0.24, 0.2, 0.12))
    colour = np.where(((kinds == FENCE) & ~pickets)[..., None], gap, colour)
    rough = np.where(kinds == VEGETATION, 0.5, 0.1) * noise(along * 30, above * 30) * fade
    return np.asarray(colour * (1 + rough)[..., None], np.float32)


def _ground(
    world: World, camera: Camera, xs: Floats, ys: Floats, wall_z: Floats, rgb: Floats, ids: npt.NDArray[np.uint8]
) -> None:
    # 1. where the rays below the horizon meet the ground
    rows = np.nonzero(ys < -1e-4)[0]
    z = np.float32(camera.height) / -ys[rows]  # (h,) [m] ahead
    x = xs[None, :] * z[:, None] + np.float32(camera.x)  # (h, W) [m]
    mask = z[:, None] <= wall_z[None, :]
    along = (z + np.float32(camera.z))[:, None] + 0 * x
    # 2. the road: asphalt, dashes of 3 m every 6 m in the middle, edge lines
    fine = np.clip(9 / z, 0.1, 1)[:, None]
    grain = noise(x * 37 + world.phase, along * 21) * fine
    broad = noise(x * 5, along * 2 + world.phase)
    ground = np.full(x.shape, ROAD, np.uint8)
    colour = vector((1, 0.99, 1.02)) * (world.asphalt * (1 + 0.13 * grain + 0.1 * broad))[..., None]
    left, right = world.sides
    middle = (right.road - left.road) / 2
    dashes = (np.abs(x - middle) < 0.09) & (np.mod(along, 6) < 3)
    edges = (np.abs(x - right.road + 0.35) < 0.07) | (np.abs(x + left.road - 0.35) < 0.07)
    colour = np.where((dashes | edges)[..., None], np.float32(0.78) + 0.05 * grain[..., None], colour)
    # 3. a track, where a train runs
    if world.rails:
        bed = np.abs(x - world.rails) < 1.1
        rail = np.abs(np.abs(x - world.rails) - 0.72) < 0.07
        colour = np.where(rail[..., None], vector((0.6, 0.58, 0.56)), colour)
        ground[bed] = RAIL
    # 4. parking lane, sidewalk and the strip before the fronts, on both sides
    for side, sign in ((left, -1), (right, 1)):
        stretch = np.searchsorted(side.breaks, along[:, 0], side="right") - 1
        stretch = np.clip(stretch, 0, len(side.kinds) - 1)
        out = sign * x
        parked = (out > side.road) & (out < side.road + side.parking[stretch][:, None])
        walk = (out > side.road) & ~parked
        strip = out > side.kerb
        tiles = (np.mod(out, 0.8) < 0.08) | (np.mod(along, 0.8) < 0.08)
        paving = vector((0.62, 0.57, 0.55)) * (1 + 0.08 * grain + 0.06 * broad)[..., None]
        paving = np.where(tiles[..., None], paving * (1 - 0.2 * fine[..., None]), paving)
        kerb = (out > side.road) & (out < side.road + 0.18)
        paving = np.where(kerb[..., None], np.float32(0.72), paving)
        grass = vector((0.36, 0.48, 0.2)) * (1 + 0.3 * grain + 0.25 * broad)[..., None]
        dirt = vector((0.45, 0.4, 0.33)) * (1 + 0.15 * grain)[..., None]
        colour = np.where(walk[..., None], paving, colour)
        ground[walk] = SIDEWALK
        ground[parked] = PARKING
        for label, look in ((TERRAIN, grass), (GROUND, dirt)):
            region = strip & (side.strip[stretch] == label)[:, None]
            colour = np.where(region[..., None], look, colour)
            ground[region] = label
    # 5. haze, and only where no front stands nearer
    haze = (np.clip(z / FAR, 0, 1)[:, None, None] ** 1.5) * 0.5
    colour = colour * (1 - haze) + vector(world.sky[1]) * haze
    window = slice(rows[0], rows[-1] + 1)
    rgb[window] = np.where(mask[..., None], colour, rgb[window])
    ids[window] = np.where(mask, ground, ids[window])


def aim(rng: np.random.Generator, height: int, width: int, z: float = 0.0) -> Camera:
    """Draw a camera for an image of ``(height, width)``."""
    return Camera(
        focal=width * float(rng.uniform(0.95, 1.1)),
        vanishing=(width * float(rng.uniform(0.42, 0.58)), height * float(rng.uniform(0.38, 0.46))),
        x=float(rng.uniform(0.6, 1.8)),
        height=float(rng.uniform(1.3, 1.6)),
        z=z,
    )


def add_car_body(canvas: Canvas, ego: bool = True) -> None:
    """Draw the own car's bonnet at the bottom and the camera's border, both void."""
    height, width = canvas.ids.shape
    if ego:
        x = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
        y = np.arange(height, dtype=np.float32)[:, None] / height
        bonnet = y > 0.945 + 0.04 * x * x
        shine = vector((0.16, 0.17, 0.2)) * (1.6 - 4 * (y - 0.9))[..., None]
        canvas.rgb = np.where(bonnet[..., None], shine, canvas.rgb).astype(np.float32)
        canvas.ids[bonnet] = EGO
        canvas.instances[bonnet] = 0
    # the rectified pictures of Cityscapes have such a border, one pixel in 128
    border = max(1, round(height / 128))
    for window in (
        (slice(0, border), slice(None)),
        (slice(None), slice(0, border)),
        (slice(None), slice(width - border, width)),
    ):
        canvas.ids[window] = BORDER
        canvas.instances[window] = 0
        canvas.rgb[window] *= 0.3
