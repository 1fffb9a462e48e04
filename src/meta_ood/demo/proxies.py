"""Drawings of animals and household things: the OoD proxies, and backgrounds without a street."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from meta_ood.demo.canvas import Canvas, Pen, Pixels
from meta_ood.demo.textures import Colour, Floats, Material, clouds, tint, vector
from meta_ood.demo.things import dice

_COATS: tuple[Colour, ...] = (
    (0.45, 0.3, 0.18),
    (0.8, 0.72, 0.6),
    (0.2, 0.17, 0.15),
    (0.62, 0.42, 0.22),
    (0.9, 0.88, 0.85),
    (0.5, 0.48, 0.46),
)
_CLOTHS: tuple[Colour, ...] = (
    (0.6, 0.2, 0.25),
    (0.25, 0.35, 0.6),
    (0.75, 0.65, 0.35),
    (0.3, 0.5, 0.42),
    (0.55, 0.4, 0.6),
)
_WOODS: tuple[Colour, ...] = ((0.5, 0.33, 0.18), (0.68, 0.5, 0.3), (0.32, 0.2, 0.12))


def _pick(choices: tuple[Colour, ...], die: float) -> Colour:
    return choices[int(die * len(choices))]


def _coat(die: tuple[float, ...], pattern: str) -> Material:
    colour = _pick(_COATS, die[0])
    second = tint(colour, 0.45 if die[1] < 0.6 else 1.7)
    return Material(colour, second, pattern, 0.25 + 0.3 * die[2], 0.12, 0.5)


def _animal(pen: Pen, die: tuple[float, ...], pattern: str, neck: float, ears: float) -> None:
    """Draw a four-legged animal about one metre long, looking left or right."""
    side = 1 if die[5] < 0.5 else -1
    coat = _coat(die, pattern)
    dark = Material(tint(coat.colour, 0.7), tint(coat.second, 0.7), pattern, coat.period, 0.12)
    legs = 0.35 + 0.3 * die[3]
    for a in (-0.36, -0.22, 0.24, 0.38):
        pen.line((a, legs + 0.12), (a + 0.06 * (die[4] - 0.5), 0), 0.11, dark)
    pen.line((-0.45 * side, legs + 0.3), (-0.7 * side, legs + 0.1 + 0.4 * die[4]), 0.06, dark)
    pen.ellipse(0, legs + 0.22, 0.52, 0.24, coat)
    head = (0.5 + 0.2 * neck) * side, legs + 0.4 + neck
    pen.line((0.38 * side, legs + 0.28), head, 0.2, coat)
    pen.ellipse(head[0] + 0.08 * side, head[1], 0.2, 0.14, coat, turn=-0.4 * side)
    for a in (-0.04, 0.08):
        pen.polygon(
            [
                (head[0] + a, head[1] + 0.08),
                (head[0] + a + 0.09, head[1] + 0.08),
                (head[0] + a + 0.03, head[1] + 0.12 + ears),
            ],
            dark,
        )
    pen.ellipse(head[0] + 0.1 * side, head[1] + 0.03, 0.025, 0.025, Material((0.02, 0.02, 0.02)))


def _bird(pen: Pen, die: tuple[float, ...]) -> None:
    coat = Material(_pick(_CLOTHS, die[0]), _pick(_COATS, die[1]), "waves", 0.15, 0.1, 0.5)
    pen.line((-0.05, 0.25), (-0.05, 0), 0.03, Material((0.7, 0.5, 0.1)))
    pen.line((0.07, 0.25), (0.09, 0), 0.03, Material((0.7, 0.5, 0.1)))
    pen.polygon([(-0.25, 0.4), (-0.75, 0.3 + 0.3 * die[3]), (-0.6, 0.55)], coat)
    pen.ellipse(0, 0.42, 0.36, 0.22, coat, turn=0.3)
    pen.ellipse(0.32, 0.66, 0.14, 0.14, coat)
    pen.polygon([(0.43, 0.7), (0.62, 0.64), (0.43, 0.6)], Material((0.85, 0.6, 0.1)))


def _chair(pen: Pen, die: tuple[float, ...]) -> None:
    wood = _pick(_WOODS, die[0])
    frame = Material(wood, tint(wood, 0.6), "grain", 0.3, 0.05)
    for a in (-0.28, 0.28):
        pen.line((a, 0), (a, 1.05), 0.08, frame)
        pen.line((a + 0.14, 0.1), (a + 0.14, 0.5), 0.07, frame)
    for b in (0.7, 0.95):
        pen.line((-0.3, b), (0.3, b), 0.1, frame)
    seat = Material(_pick(_CLOTHS, die[1]), rough=0.1)
    pen.polygon([(-0.34, 0.45), (0.3, 0.45), (0.46, 0.56), (-0.18, 0.56)], seat)


def _couch(pen: Pen, die: tuple[float, ...]) -> None:
    colour = _pick(_CLOTHS, die[0])
    cloth = Material(colour, tint(colour, 0.75), "waves", 0.35, 0.08, 0.4)
    pen.polygon([(-0.8, 0.3), (0.8, 0.3), (0.72, 0.95), (-0.72, 0.95)], cloth)
    pen.rectangle(-0.95, 0.1, -0.65, 0.65, Material(tint(colour, 0.8), rough=0.1))
    pen.rectangle(0.65, 0.1, 0.95, 0.65, Material(tint(colour, 0.8), rough=0.1))
    pen.rectangle(-0.66, 0.12, 0.66, 0.42, Material(tint(colour, 1.2), rough=0.1, shade=0.5))
    pen.ellipse(-0.3, 0.6, 0.2, 0.18, Material(_pick(_CLOTHS, die[1]), rough=0.1))


def _table(pen: Pen, die: tuple[float, ...]) -> None:
    wood = _pick(_WOODS, die[0])
    material = Material(wood, tint(wood, 1.3), "grain", 0.4, 0.05)
    for a in (-0.7, 0.7, -0.45, 0.52):
        pen.line((a, 0 if abs(a) > 0.6 else 0.15), (a, 0.62), 0.09, material)
    pen.polygon([(-0.85, 0.6), (0.75, 0.6), (0.95, 0.8), (-0.6, 0.8)], material)


def _vase(pen: Pen, die: tuple[float, ...]) -> None:
    glaze = Material(_pick(_CLOTHS, die[0]), _pick(_COATS, die[1]), "spots", 0.3, 0.05, 0.6)
    for k in range(5):
        tip = (0.5 * (k - 2) * 0.4, 1.05 + 0.3 * math.sin(5 * die[2] + k))
        pen.line((0, 0.6), tip, 0.04, Material((0.2, 0.45, 0.15)))
        pen.ellipse(tip[0], tip[1], 0.11, 0.11, Material(_pick(_CLOTHS, (die[3] + k / 5) % 1)))
    pen.polygon(
        [(-0.14, 0), (0.14, 0), (0.28, 0.3), (0.1, 0.55), (0.16, 0.65), (-0.16, 0.65), (-0.1, 0.55), (-0.28, 0.3)],
        glaze,
    )


def _fruit(pen: Pen, die: tuple[float, ...]) -> None:
    skins: tuple[Colour, ...] = ((0.8, 0.12, 0.1), (0.95, 0.55, 0.1), (0.55, 0.7, 0.15))
    skin = Material(_pick(skins, die[0]), rough=0.06, shade=0.8)
    for a, b in ((-0.3, 0.25), (0.3, 0.25), (0, 0.25), (-0.15, 0.62), (0.16, 0.62)):
        pen.ellipse(a, b, 0.25, 0.25, skin)


def _boat(pen: Pen, die: tuple[float, ...]) -> None:
    sail = Material((0.9, 0.88, 0.82), _pick(_CLOTHS, die[0]), "waves", 0.9, 0.05)
    pen.line((0, 0.3), (0, 1.5), 0.06, Material((0.4, 0.3, 0.2)))
    pen.polygon([(0.06, 0.4), (0.75, 0.4), (0.06, 1.45)], sail)
    pen.polygon([(-0.06, 0.45), (-0.5, 0.45), (-0.06, 1.2)], sail)
    hull = Material(_pick(_WOODS, die[1]), rough=0.05)
    pen.polygon([(-0.8, 0.35), (0.9, 0.35), (0.6, 0.02), (-0.6, 0.02)], hull)


def _bear(pen: Pen, die: tuple[float, ...]) -> None:
    coat = _coat(die, "fur")
    for side in (-1, 1):
        pen.ellipse(0.28 * side, 0.14, 0.2, 0.14, coat)
        pen.ellipse(0.36 * side, 0.55, 0.12, 0.24, coat, turn=0.5 * side)
        pen.ellipse(0.2 * side, 1.14, 0.11, 0.11, coat)
    pen.ellipse(0, 0.45, 0.34, 0.38, coat)
    pen.ellipse(0, 0.95, 0.27, 0.25, coat)
    pen.ellipse(0, 0.88, 0.12, 0.09, Material(tint(coat.colour, 1.4)))
    for a in (-0.09, 0.09):
        pen.ellipse(a, 1.0, 0.03, 0.03, Material((0.02, 0.02, 0.02)))


PROXIES: dict[tuple[int, str], Callable[[Pen, tuple[float, ...]], None]] = {
    (9, "boat"): _boat,
    (16, "bird"): _bird,
    (17, "cat"): lambda pen, die: _animal(pen, die, "fur", 0.0, 0.14),
    (18, "dog"): lambda pen, die: _animal(pen, die, "spots", 0.05, 0.06),
    (19, "horse"): lambda pen, die: _animal(pen, die, "fur", 0.35, 0.1),
    (21, "cow"): lambda pen, die: _animal(pen, die, "spots", 0.1, 0.1),
    (24, "zebra"): lambda pen, die: _animal(pen, die, "waves", 0.25, 0.12),
    (25, "giraffe"): lambda pen, die: _animal(pen, die, "spots", 0.8, 0.08),
    (53, "apple"): _fruit,
    (62, "chair"): _chair,
    (63, "couch"): _couch,
    (67, "dining table"): _table,
    (86, "vase"): _vase,
    (88, "teddy bear"): _bear,
}
"""COCO category (id, name) -> what draws one, about a metre in size."""

_SCENERIES: tuple[tuple[Colour, Colour, Colour, Colour], ...] = (
    ((0.45, 0.6, 0.85), (0.8, 0.88, 0.95), (0.3, 0.45, 0.16), (0.45, 0.55, 0.25)),
    ((0.75, 0.65, 0.5), (0.85, 0.78, 0.65), (0.45, 0.3, 0.18), (0.6, 0.42, 0.26)),
    ((0.55, 0.72, 0.9), (0.9, 0.92, 0.9), (0.15, 0.35, 0.5), (0.3, 0.55, 0.65)),
    ((0.6, 0.72, 0.9), (0.95, 0.85, 0.7), (0.75, 0.65, 0.45), (0.85, 0.77, 0.6)),
    ((0.55, 0.6, 0.55), (0.7, 0.72, 0.66), (0.35, 0.35, 0.4), (0.55, 0.5, 0.5)),
    ((0.15, 0.25, 0.12), (0.3, 0.42, 0.2), (0.28, 0.24, 0.14), (0.4, 0.36, 0.2)),
)
"""Upper and lower pair of colours: meadow, room, lake, beach, kitchen, forest."""


def scenery(rng: np.random.Generator, height: int, width: int) -> Canvas:
    """Return a background without a street: two cloudy regions that meet at a wavy line."""
    # two regions of two colours each, which clouds mix
    upper_a, upper_b, lower_a, lower_b = _SCENERIES[int(rng.integers(len(_SCENERIES)))]
    line = height * float(rng.uniform(0.15, 0.6))
    waves = clouds(rng, 8, width, 1.0)[0] * height * float(rng.uniform(0.02, 0.2))
    rows = np.arange(height, dtype=np.float32)[:, None]
    below = rows > line + waves[None, :]
    fine = clouds(rng, height, width, float(rng.uniform(6, 20)))
    soft = clouds(rng, height, width, 2)
    share = np.where(below, 0.7 * fine + 0.3 * soft, soft)[..., None]

    def mix(first: Colour, second: Colour) -> Floats:
        return np.asarray(vector(first) * (1 - share) + vector(second) * share, np.float32)

    rgb = np.where(below[..., None], mix(lower_a, lower_b), mix(upper_a, upper_b))
    rgb = rgb * np.float32(rng.uniform(0.75, 1.15))
    ids: Pixels = np.zeros((height, width), np.uint8)
    return Canvas(rgb.astype(np.float32), ids)


def draw_proxy(rng: np.random.Generator, canvas: Canvas, category: tuple[int, str], instance: int) -> Pen:
    """Draw one proxy somewhere on the canvas, some beyond its border; return the pen with parts."""
    height, width = canvas.ids.shape
    size = height * float(rng.uniform(0.25, 0.75))
    foot = (width * float(rng.uniform(0.12, 0.88)), height * float(rng.uniform(0.55, 1.08)))
    foot = (foot[0], max(foot[1], size * 0.8))  # most of it stays in the picture
    pen = Pen(canvas, foot, size, 1, instance)
    half = 0.5 * size
    canvas.shadow(
        [
            (foot[0] - half, foot[1]),
            (foot[0], foot[1] - 0.08 * size),
            (foot[0] + 1.2 * half, foot[1]),
            (foot[0], foot[1] + 0.08 * size),
        ],
        0.35,
    )
    PROXIES[category](pen, dice(rng))
    return pen
