"""Materials of the demo world: a colour, a second colour and a pattern, in metres and fractions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from meta_ood.data.registry import lookup

Floats = npt.NDArray[np.floating[Any]]
Colour = tuple[float, float, float]

_TABLE = 256  # a power of two, so that the cells of all octaves fit


def vector(colour: Colour) -> Floats:
    """Return a colour as ``(3,) float32``."""
    return np.asarray(colour, np.float32)


@lru_cache(maxsize=1)
def noise_table() -> Floats:
    """Return a tileable ``(256, 256)`` table of noise in about [-1, 1], the same in every run."""
    # a seed of its own: the materials are the same in worlds of every seed
    rng = np.random.default_rng(20210101)
    table = np.zeros((_TABLE, _TABLE), np.float32)
    for step, weight in ((1, 0.5), (4, 0.3), (16, 0.35), (64, 0.3)):
        cells = rng.uniform(-1, 1, (_TABLE // step + 3,) * 2).astype(np.float32)
        # the first cells come again at the end: then the table tiles without a seam
        cells[-3:] = cells[:3]
        cells[:, -3:] = cells[:, :3]
        size = cells.shape[0] * step
        grown = np.asarray(Image.fromarray(cells).resize((size, size), Image.Resampling.BICUBIC))
        table += weight * grown[step : step + _TABLE, step : step + _TABLE]
    return table


def noise(u: Floats, v: Floats) -> Floats:
    """Look the noise table up at coordinates that broadcast together; period 256."""
    columns = np.mod(u, _TABLE).astype(np.intp) % _TABLE
    rows = np.mod(v, _TABLE).astype(np.intp) % _TABLE
    return noise_table()[rows, columns]


def clouds(rng: np.random.Generator, height: int, width: int, cells: float = 3.0) -> Floats:
    """Return smooth fractal noise in [0, 1] of shape ``(height, width)``, `cells` bumps high."""
    total = np.zeros((height, width), np.float32)
    for octave in range(4):  # each twice as fine and half as strong
        rows = max(2, round(cells * 2**octave))
        columns = max(2, round(rows * width / height))
        grid = rng.uniform(0, 1, (rows, columns)).astype(np.float32)
        grown = Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC)
        total += np.asarray(grown) / 2**octave
    low, high = float(total.min()), float(total.max())
    return (total - low) / max(high - low, 1e-6)


def _plain(u: Floats, v: Floats) -> Floats:
    return np.zeros(np.broadcast(u, v).shape, np.float32)


def _stripes(u: Floats, v: Floats) -> Floats:
    return (np.mod(u + 0 * v, 1) < 0.5).astype(np.float32)


def _bands(u: Floats, v: Floats) -> Floats:
    return (np.mod(v + 0 * u, 1) < 0.5).astype(np.float32)


def _diagonal(u: Floats, v: Floats) -> Floats:
    return (np.mod(u + v, 1) < 0.5).astype(np.float32)


def _checker(u: Floats, v: Floats) -> Floats:
    return ((np.mod(u, 1) < 0.5) ^ (np.mod(v, 1) < 0.5)).astype(np.float32)


def _grid(u: Floats, v: Floats) -> Floats:
    return ((np.mod(u, 1) < 0.25) | (np.mod(v, 1) < 0.25)).astype(np.float32)


def _slats(u: Floats, v: Floats) -> Floats:
    return (np.mod(v + 0 * u, 1) < 0.3).astype(np.float32)


def _spots(u: Floats, v: Floats) -> Floats:
    return (noise(u * 24 + 40, v * 24) > 0.15).astype(np.float32)


def _waves(u: Floats, v: Floats) -> Floats:
    """Bent stripes, as on a zebra."""
    return (np.sin(6.28 * (u + 0.35 * noise(u * 9, v * 9))) > 0).astype(np.float32)


def _fur(u: Floats, v: Floats) -> Floats:
    return np.asarray(np.clip(0.5 + 0.7 * noise(u * 90, v * 20), 0, 1))


def _grain(u: Floats, v: Floats) -> Floats:
    """Wood grain."""
    return np.asarray(np.clip(0.5 + 0.5 * np.sin(9 * (v + 0.4 * noise(u * 8, v * 30))), 0, 1))


def _leaves(u: Floats, v: Floats) -> Floats:
    return np.asarray(np.clip(0.5 + 0.8 * noise(u * 40, v * 40), 0, 1))


PATTERNS: dict[str, Callable[[Floats, Floats], Floats]] = {
    "plain": _plain,
    "stripes": _stripes,
    "bands": _bands,
    "diagonal": _diagonal,
    "checker": _checker,
    "grid": _grid,
    "slats": _slats,
    "spots": _spots,
    "waves": _waves,
    "fur": _fur,
    "grain": _grain,
    "leaves": _leaves,
}
"""Pattern name -> share of the second colour in [0, 1] at coordinates (u, v) in periods."""


@dataclass(frozen=True)
class Material:
    """What a surface looks like.

    Attributes:
        colour, second: RGB in [0, 1]; the pattern mixes them.
        pattern: A key of :data:`PATTERNS`.
        period: Length of one period of the pattern [m].
        rough: Amplitude of fine noise.
        shade: How much darker the lower end is than the upper end.
    """

    colour: Colour
    second: Colour = (0.0, 0.0, 0.0)
    pattern: str = "plain"
    period: float = 0.2
    rough: float = 0.05
    shade: float = 0.25

    def at(self, u: Floats, v: Floats, down: Floats) -> Floats:
        """Return RGB in about [0, 1] at surface coordinates.

        Args:
            u, v: ``(h, w)`` or broadcastable coordinates [m].
            down: Broadcastable position between the upper (0) and the lower end (1).
        """
        # u and v in periods of the pattern
        share = lookup("pattern", PATTERNS, self.pattern)(u / self.period, v / self.period)
        first, second = vector(self.colour), vector(self.second)
        colour = first + share[..., None] * (second - first)
        light = 1 + self.rough * noise(u * 60, v * 60) + self.shade * (0.4 - down)
        return np.asarray(colour * light[..., None], np.float32)


def tint(colour: Colour, factor: float) -> Colour:
    """Return `colour` lighter (factor above 1) or darker, clipped to [0, 1].

    Examples:
        >>> tint((0.5, 0.2, 1.0), 2)
        (1.0, 0.4, 1.0)
    """
    red, green, blue = (min(1.0, value * factor) for value in colour)
    return red, green, blue
