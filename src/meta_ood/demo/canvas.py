"""Drawing with labels: a camera over a flat street, a canvas, and a pen for upright figures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from meta_ood.demo.textures import Floats, Material, noise

Point = tuple[float, float]
Pixels = npt.NDArray[np.uint8]

REFERENCE_HEIGHT = 128
"""The demo world is designed at this image height [px]; other sizes scale with it."""


@dataclass(frozen=True)
class Camera:
    """A level pinhole camera: X right, Y up, Z ahead [m]; image x right, y down [px]."""

    focal: float
    vanishing: Point
    x: float
    height: float
    z: float

    def project(self, x: float, y: float, z: float) -> Point:
        """Return the pixel of a world point; points behind the camera are pulled before it."""
        ahead = max(z - self.z, 0.5)  # no division by zero at the camera
        return (
            self.vanishing[0] + self.focal * (x - self.x) / ahead,
            self.vanishing[1] - self.focal * (y - self.height) / ahead,
        )

    def scale(self, z: float) -> float:
        """Return pixels per metre at world depth `z`."""
        return self.focal / max(z - self.z, 0.5)


class Canvas:
    """An image with its label ids and instance numbers.

    Attributes:
        rgb: ``(H, W, 3) float32``, about [0, 1].
        ids: ``(H, W) uint8`` label ids.
        instances: ``(H, W) uint16``, 0 where no instance is.
    """

    def __init__(self, rgb: Floats, ids: Pixels) -> None:
        self.rgb = rgb
        self.ids = ids
        self.instances = np.zeros(ids.shape, np.uint16)
        self.unit = ids.shape[0] / REFERENCE_HEIGHT

    def polygon(
        self, points: Sequence[Point], material: Material, label: int | None, scale: float, instance: int = 0
    ) -> None:
        """Fill a polygon.

        Args:
            points: Corners [px].
            material: What to fill with; its lower end is the polygon's.
            label: Label id, or None to change the colour alone.
            scale: Pixels per metre.
            instance: Instance number that goes with the label.
        """
        height, width = self.ids.shape
        xs, ys = [p[0] for p in points], [p[1] for p in points]
        left, right = max(math.floor(min(xs)), 0), min(math.ceil(max(xs)) + 1, width)
        top, bottom = max(math.floor(min(ys)), 0), min(math.ceil(max(ys)) + 1, height)
        if left >= right or top >= bottom:
            return
        # 1. which pixels: drawn only in the window around the polygon
        patch = Image.new("L", (right - left, bottom - top))
        ImageDraw.Draw(patch).polygon([(x - left, y - top) for x, y in points], fill=1)
        mask = np.asarray(patch, bool)
        # 2. their coordinates on the surface [m], and how far down they lie, 0 to 1
        u = ((np.arange(left, right, dtype=np.float32) - min(xs)) / scale)[None, :]
        v = ((np.arange(top, bottom, dtype=np.float32) - min(ys)) / scale)[:, None]
        down = v * scale / max(max(ys) - min(ys), 1.0)
        window = slice(top, bottom), slice(left, right)
        colour = material.at(u, v, down)
        self.rgb[window][mask] = np.broadcast_to(colour, (*mask.shape, 3))[mask]
        if label is not None:
            self.ids[window][mask] = label
            self.instances[window][mask] = instance

    def shadow(self, points: Sequence[Point], strength: float) -> None:
        """Darken a polygon [px] by a fraction of its light; labels stay."""
        height, width = self.ids.shape
        xs, ys = [p[0] for p in points], [p[1] for p in points]
        left, right = max(math.floor(min(xs)), 0), min(math.ceil(max(xs)) + 1, width)
        top, bottom = max(math.floor(min(ys)), 0), min(math.ceil(max(ys)) + 1, height)
        if left >= right or top >= bottom:
            return
        patch = Image.new("L", (right - left, bottom - top))
        ImageDraw.Draw(patch).polygon([(x - left, y - top) for x, y in points], fill=1)
        mask = np.asarray(patch, np.float32)[..., None]
        self.rgb[top:bottom, left:right] *= 1 - strength * mask

    def develop(self, rng: np.random.Generator, exposure: float, grain: float) -> Pixels:
        """Return the photo: vignette, lens blur, exposure and sensor noise.

        Returns:
            ``(H, W, 3) uint8``.
        """
        height, width = self.ids.shape
        y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
        x = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
        light = np.float32(exposure) * (1 - 0.12 * (x * x + y * y))
        # order matters: the lens blurs before the sensor adds noise
        photo: Floats = self.rgb * light[..., None]
        photo = _blur(photo, max(1, round(self.unit)))
        photo += rng.normal(0, grain, photo.shape).astype(np.float32)
        return np.asarray(np.clip(photo * 255, 0, 255), np.uint8)


def _blur(image: Floats, radius: int) -> Floats:
    """Blur by a triangle of the given radius [px] along both axes; the border is repeated."""
    for axis in (0, 1):
        pad = [(radius, radius) if a == axis else (0, 0) for a in range(3)]
        padded = np.pad(image, pad, mode="edge")
        size = image.shape[axis]
        # the weight falls to a third at the radius
        weights = [1 / (1.6 + abs(k) * 3.2 / radius) for k in range(-radius, radius + 1)]
        total: Floats = np.zeros_like(image)
        for k, weight in enumerate(weights):
            part = padded[k : k + size] if axis == 0 else padded[:, k : k + size]
            total += np.float32(weight / sum(weights)) * part
        image = total
    return image


class Pen:
    """Draws one upright figure in metres: `a` to the right, `b` upwards from where it stands.

    Attributes:
        parts: The labelled polygons drawn so far [px], for polygon annotations.
    """

    def __init__(self, canvas: Canvas, foot: Point, scale: float, label: int, instance: int = 0) -> None:
        self.canvas = canvas
        self.foot = foot
        self.scale = scale
        self.label = label
        self.instance = instance
        self.parts: list[list[Point]] = []

    def polygon(self, corners: Sequence[Point], material: Material, label: int | None = None) -> None:
        """Fill a polygon given in metres; `label` replaces the pen's own."""
        points = [(self.foot[0] + a * self.scale, self.foot[1] - b * self.scale) for a, b in corners]
        self.parts.append(points)
        own = self.label if label is None else label
        self.canvas.polygon(points, material, own, self.scale, self.instance)

    def rectangle(
        self, a0: float, b0: float, a1: float, b1: float, material: Material, label: int | None = None
    ) -> None:
        """Fill the rectangle between two corners."""
        self.polygon([(a0, b0), (a1, b0), (a1, b1), (a0, b1)], material, label)

    def ellipse(
        self,
        a: float,
        b: float,
        half_width: float,
        half_height: float,
        material: Material,
        label: int | None = None,
        turn: float = 0.0,
    ) -> None:
        """Fill an ellipse around (a, b), turned by `turn` radians."""
        cosine, sine = math.cos(turn), math.sin(turn)
        corners = []
        for k in range(20):  # corners: round enough at the sizes of the demo
            angle = 2 * math.pi * k / 20
            p, q = half_width * math.cos(angle), half_height * math.sin(angle)
            corners.append((a + p * cosine - q * sine, b + p * sine + q * cosine))
        self.polygon(corners, material, label)

    def line(self, start: Point, end: Point, width: float, material: Material, label: int | None = None) -> None:
        """Fill a bar of `width` [m] from `start` to `end`; at least about a pixel wide."""
        # thinner than a pixel a bar would vanish in places
        half = max(width, 1.0 / self.scale) / 2
        along = (end[0] - start[0], end[1] - start[1])
        length = max(math.hypot(*along), 1e-6)
        da, db = -along[1] / length * half, along[0] / length * half
        self.polygon(
            [
                (start[0] + da, start[1] + db),
                (end[0] + da, end[1] + db),
                (end[0] - da, end[1] - db),
                (start[0] - da, start[1] - db),
            ],
            material,
            label,
        )

    def blob(self, a: float, b: float, radius: float, rough: float, seed: int, material: Material) -> None:
        """Fill a bumpy disc around (a, b)."""
        corners = []
        for k in range(28):
            angle = 2 * math.pi * k / 28
            bump = float(noise(np.array(seed * 37.0 + 9 * k), np.array(seed * 11.0)))
            reach = radius * (1 + rough * bump)
            corners.append((a + reach * math.cos(angle), b + reach * math.sin(angle)))
        self.polygon(corners, material)
