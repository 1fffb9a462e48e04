"""Drawings of lost cargo, toys and dummies: the obstacles of the evaluation sets, unlike any proxy."""

from __future__ import annotations

import math
from collections.abc import Callable

from meta_ood.demo.canvas import Pen
from meta_ood.demo.textures import Colour, Material, tint

Dice = tuple[float, ...]

_DARK = Material((0.08, 0.08, 0.09))


def _cuboid(pen: Pen, half: float, height: float, lean: float, front: Material) -> None:
    """Draw the front, one side and the top of a box."""
    # the side leans away from the front, the top rises a little: a view from above
    shift, rise = lean, 0.28 * abs(lean) + 0.06
    side = Material(tint(front.colour, 0.62), tint(front.second, 0.62), front.pattern, front.period)
    top = Material(tint(front.colour, 1.25), tint(front.second, 1.25), front.pattern, front.period)
    edge = half if shift > 0 else -half
    pen.polygon([(edge, 0), (edge + shift, rise), (edge + shift, rise + height), (edge, height)], side)
    pen.polygon([(-half, height), (half, height), (half + shift, height + rise), (-half + shift, height + rise)], top)
    pen.rectangle(-half, 0, half, height, front)


def _lean(die: Dice) -> float:
    return (0.12 + 0.16 * die[5]) * (1 if die[4] < 0.5 else -1)


def _crate(colour: Colour, stacked: bool, wide: float) -> Callable[[Pen, Dice], None]:
    def draw(pen: Pen, die: Dice) -> None:
        paint = tint(colour, 0.8 + 0.5 * die[0])
        front = Material(paint, tint(paint, 0.5), "grid", 0.13, 0.04, 0.2)
        height = 0.32 * (2 if stacked else 1)
        _cuboid(pen, wide, height, _lean(die), front)
        for b in (0.32,) if stacked else ():
            pen.line((-wide, b), (wide, b), 0.05, _DARK)

    return draw


def _cardboard(pen: Pen, die: Dice) -> None:
    colour = (0.62 + 0.1 * die[0], 0.47 + 0.08 * die[0], 0.3)
    half, height = 0.22 + 0.2 * die[1], 0.3 + 0.25 * die[2]
    lean = _lean(die)
    _cuboid(pen, half, height, lean, Material(colour, rough=0.04))
    pen.rectangle(-0.05, 0, 0.05, height, Material(tint(colour, 1.3)))
    pen.polygon(
        [(-half, height), (-half * 0.2, height), (-half * 0.4, height + 0.2), (-half * 1.3, height + 0.16)],
        Material(tint(colour, 0.85)),
    )


def _pallet(pen: Pen, die: Dice) -> None:
    wood = (0.66 + 0.12 * die[0], 0.53, 0.36)
    slats = Material(wood, tint(wood, 0.4), "slats", 0.11, 0.08)
    pen.polygon([(-0.6, 0.13), (0.6, 0.13), (0.42, 0.4), (-0.42, 0.4)], slats)
    for a in (-0.53, 0.0, 0.53):
        pen.rectangle(a - 0.09, 0, a + 0.09, 0.13, Material(tint(wood, 0.7)))
    pen.line((-0.6, 0.13), (0.6, 0.13), 0.05, Material(wood))


def _tyre(pen: Pen, die: Dice) -> None:
    if die[0] < 0.5:
        pen.ellipse(0, 0.33, 0.33, 0.33, Material((0.09, 0.09, 0.1), (0.2, 0.2, 0.21), "diagonal", 0.08))
        pen.ellipse(0, 0.33, 0.19, 0.19, Material((0.5, 0.5, 0.52), (0.2, 0.2, 0.2), "checker", 0.14))
    else:
        pen.ellipse(0, 0.14, 0.38, 0.17, Material((0.1, 0.1, 0.11), (0.2, 0.2, 0.22), "diagonal", 0.08))
        pen.ellipse(0, 0.2, 0.22, 0.08, Material((0.02, 0.02, 0.02)))


def _pylon(height: float, colour: Colour) -> Callable[[Pen, Dice], None]:
    def draw(pen: Pen, die: Dice) -> None:
        cone = Material(colour, (0.93, 0.93, 0.93), "bands", height * (0.55 + 0.2 * die[0]), 0.03)
        half = height * 0.26
        pen.rectangle(-half * 1.4, 0, half * 1.4, 0.06, Material(tint(colour, 0.7)))
        pen.polygon([(-half, 0.05), (half, 0.05), (0.05, height), (-0.05, height)], cone)

    return draw


def _ball(pen: Pen, die: Dice) -> None:
    colours: tuple[Colour, ...] = ((0.9, 0.9, 0.9), (0.85, 0.3, 0.5), (0.2, 0.6, 0.8))
    first = colours[int(die[0] * 3)]
    pen.ellipse(0, 0.2, 0.2, 0.2, Material(first, (0.1, 0.1, 0.1), "checker", 0.22, 0.02, 0.9))
    pen.ellipse(-0.06, 0.28, 0.05, 0.04, Material((1, 1, 1)))


def _bobby_car(colour: Colour) -> Callable[[Pen, Dice], None]:
    def draw(pen: Pen, die: Dice) -> None:
        side = 1 if die[0] < 0.5 else -1
        shell = Material(tint(colour, 0.8 + 0.4 * die[1]), shade=0.7)
        pen.polygon(
            [
                (-0.45 * side, 0.12),
                (0.45 * side, 0.12),
                (0.48 * side, 0.32),
                (0.2 * side, 0.36),
                (0.05 * side, 0.28),
                (-0.25 * side, 0.42),
                (-0.48 * side, 0.36),
            ],
            shell,
        )
        for a in (-0.28, 0.28):
            pen.ellipse(a * side, 0.11, 0.11, 0.11, _DARK)
            pen.ellipse(a * side, 0.11, 0.05, 0.05, Material((0.85, 0.85, 0.85)))
        pen.line((0.22 * side, 0.36), (0.12 * side, 0.52), 0.06, _DARK)

    return draw


def _dummy(pen: Pen, die: Dice) -> None:
    suit = Material((0.85, 0.75, 0.2), (0.15, 0.15, 0.15), "diagonal", 0.3, 0.03)
    tall = 0.8 + 0.35 * die[0]
    pen.rectangle(-0.16, 0, -0.02, 0.4, suit)
    pen.rectangle(0.02, 0, 0.16, 0.4, suit)
    pen.rectangle(-0.2, 0.36, 0.2, tall, suit)
    for side in (-1, 1):
        pen.line((0.18 * side, tall - 0.06), (0.5 * side, tall - 0.06 + 0.2 * (die[1] - 0.5)), 0.1, suit)
    pen.ellipse(0, tall + 0.14, 0.13, 0.15, Material((0.92, 0.82, 0.66)))


def _bag(pen: Pen, die: Dice) -> None:
    white = 0.75 + 0.2 * die[0]
    foil = Material((white, white, white * 0.97), (0.55, 0.55, 0.58), "diagonal", 0.3, 0.15, 0.5)
    pen.blob(0, 0.26, 0.28, 0.5, int(die[1] * 100), foil)
    pen.polygon([(-0.06, 0.45), (0.06, 0.45), (0.14, 0.62), (-0.12, 0.6)], foil)


def _pipe(pen: Pen, die: Dice) -> None:
    rust = Material((0.48, 0.4, 0.36), (0.3, 0.22, 0.18), "bands", 0.3, 0.15)
    pen.line((-0.75, 0.1), (0.2, 0.1 + 0.1 * die[0]), 0.13, rust)
    pen.line((0.2, 0.1 + 0.1 * die[0]), (0.8, 0.3), 0.13, rust)
    pen.ellipse(0.1, 0.17, 0.26, 0.14, rust)


def _bumper(pen: Pen, die: Dice) -> None:
    plastic = Material((0.2, 0.2, 0.22), (0.5, 0.5, 0.5), "slats", 0.3, 0.05)
    pen.polygon(
        [(-0.8, 0.05), (-0.7, 0.0), (0.7, 0.0), (0.8, 0.05), (0.75, 0.35), (0.55, 0.24), (-0.55, 0.24), (-0.75, 0.35)],
        plastic,
    )


def _lamp(pen: Pen, die: Dice) -> None:
    pen.ellipse(0, 0.17, 0.28, 0.17, Material((0.25, 0.25, 0.27)))
    pen.ellipse(0.03, 0.18, 0.2, 0.12, Material((0.85, 0.88, 0.9), (0.5, 0.55, 0.6), "grid", 0.1))


def _styrofoam(pen: Pen, die: Dice) -> None:
    _cuboid(pen, 0.35 + 0.2 * die[0], 0.16, _lean(die), Material((0.95, 0.95, 0.96), rough=0.03))


def _log(colour: Colour, thick: float) -> Callable[[Pen, Dice], None]:
    def draw(pen: Pen, die: Dice) -> None:
        stripes = Material(colour, (0.9, 0.9, 0.9), "stripes" if thick < 0.1 else "plain", 0.5, 0.1)
        tilt = 0.16 * (die[0] - 0.3)
        pen.line((-0.8, thick), (0.8, thick + tilt), thick * 2, stripes)

    return draw


def _cap(pen: Pen, die: Dice) -> None:
    pen.ellipse(0, 0.1, 0.2, 0.1, Material((0.65, 0.66, 0.68), (0.3, 0.3, 0.32), "checker", 0.12))


_BLACK, _GREY, _BLUE = (0.13, 0.13, 0.15), (0.5, 0.5, 0.52), (0.12, 0.28, 0.62)
_ORANGE, _RED = (0.95, 0.38, 0.08), (0.82, 0.1, 0.1)

HAZARDS: dict[int, Callable[[Pen, Dice], None]] = {
    2: _crate(_BLACK, False, 0.3),
    3: _crate(_BLACK, True, 0.3),
    6: _crate(_GREY, True, 0.32),
    8: _bumper,
    9: _cardboard,
    10: _crate(_BLUE, False, 0.34),
    12: _crate((0.15, 0.5, 0.25), False, 0.34),
    14: _pipe,
    15: _lamp,
    16: _pallet,
    18: _pylon(0.75, _ORANGE),
    19: _pylon(0.6, (0.9, 0.9, 0.88)),
    21: _tyre,
    22: _ball,
    26: _dummy,
    28: _bobby_car(_RED),
    29: _bobby_car((0.9, 0.75, 0.1)),
    32: _bag,
    35: _styrofoam,
}
"""LostAndFound label id of a hazard -> what draws it, in metres."""

NON_HAZARDS: dict[int, Callable[[Pen, Dice], None]] = {
    31: _log((0.8, 0.15, 0.1), 0.06),
    33: _log((0.75, 0.12, 0.12), 0.07),
    37: _log((0.6, 0.47, 0.3), 0.1),
    38: _cap,
}
"""LostAndFound label id of what may be driven over -> what draws it."""


def footprint(pen: Pen, half: float = 0.5) -> list[tuple[float, float]]:
    """Return the outline [px] of the shadow of something at the pen's foot."""
    x, y = pen.foot
    reach = half * pen.scale
    return [
        (x + reach * 1.2 * math.cos(angle) + 0.15 * reach, y + 0.22 * reach * math.sin(angle))
        for angle in (0.0, 0.8, 1.6, 2.4, 3.1, 3.9, 4.7, 5.5)
    ]
