"""Label, score and segment maps as colour pictures, ``(H, W, 3) uint8`` RGB.

The colours are safe for the common forms of colour blindness: orange and blue are opposites everywhere, and removed
segments are hatched too.
"""

import io

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from PIL import Image

from meta_ood.data.labels import CITYSCAPES, IGNORE, IN, NEUTRAL, OOD, LabelMap
from meta_ood.data.predictions import FloatMap

Picture = npt.NDArray[np.uint8]
Colour = tuple[int, int, int]

SPECIAL_COLOURS: dict[int, Colour] = {
    NEUTRAL: (176, 156, 240),  # lilac
    IN: (222, 226, 232),  # pale grey
    OOD: (255, 96, 0),  # orange
    IGNORE: (0, 0, 0),  # black
}
"""Colours of the four labels that are no train ids; none of them is a Cityscapes colour."""

KEPT: Colour = (255, 122, 0)  # fill of segments that meta classification keeps: orange
REJECTED: Colour = (46, 134, 222)  # of those that it removes: blue, and hatched
TRUTH: Colour = (255, 255, 255)  # outline of true components: white


def label_map(labels: LabelMap) -> Picture:
    """Colour a target or a class map.

    Args:
        labels: ``(H, W) uint8``: train ids of Cityscapes, ``NEUTRAL``, ``IN``, ``OOD`` or ``IGNORE``; other values,
            classes of another label space, get a colour of their own.
    """
    return np.asarray(_PALETTE[labels])


def _palette() -> Picture:  # (256, 3) uint8: a colour per label value
    # multiples of the golden ratio modulo 1 lie far from each other: neighbouring ids differ
    hues = np.arange(256) * 0.618034 % 1
    table: Picture = np.rint(colormaps["hsv"](hues)[:, :3] * 255).astype(np.uint8)
    for label, colour in {**dict(enumerate(CITYSCAPES.palette)), **SPECIAL_COLOURS}.items():
        table[label] = colour
    return table


_PALETTE = _palette()


def score_map(score: FloatMap, low: float = 0.0, high: float = 1.0) -> Picture:
    """Colour a score map, dark for `low` and bright for `high`.

    Args:
        score: ``(H, W) float32``; values outside ``[low, high]`` get the colour of the nearer end, NaN a middle grey.
        low, high: The scores at the two ends of the colour map.

    Raises:
        ValueError: If not ``low < high`` or one of them is not finite.
    """
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise ValueError(f"score range ({low}, {high}): expected finite numbers, low < high")
    # matplotlib's perceptually uniform map
    colours = np.rint(colormaps["inferno"](np.arange(256))[:, :3] * 255).astype(np.uint8)
    unknown = np.isnan(score)
    fractions = (np.where(unknown, low, score).astype(np.float64) - low) / (high - low)
    picture: Picture = colours[np.rint(np.clip(fractions, 0, 1) * 255).astype(np.uint8)]
    picture[unknown] = 128
    return picture


def segments_map(
    image: Picture | None, labels: npt.NDArray[np.int32], removed: npt.NDArray[np.bool_], target: LabelMap | None = None
) -> Picture:
    """Draw predicted segments: kept ones orange, removed ones blue and hatched, all outlined.

    Args:
        image: ``(H, W, 3) uint8`` background, shown in pale grey; None draws on dark grey.
        labels: ``(H, W) int32``: 0 outside, ``k`` in segment ``k = 1 .. S``.
        removed: ``(S,) bool``: whether meta classification removes segment ``k``, at index ``k - 1``.
        target: ``(H, W) uint8``: its ``OOD`` components are outlined in white. None draws none.

    Raises:
        ValueError: If `labels` names a segment beyond S, or the shapes differ.
    """
    if labels.max(initial=0) > len(removed):
        raise ValueError(f"segment {labels.max()} of {len(removed)} segments")
    for name, array in (("image", image), ("target", target)):
        if array is not None and array.shape[:2] != labels.shape:
            raise ValueError(f"{name} {array.shape[:2]} and labels {labels.shape} differ in shape")
    # 1. background: luminance (ITU-R BT.601), darkened so that the fills stand out
    picture = np.full((*labels.shape, 3), 40.0)
    if image is not None:
        picture[:] = np.rint(0.35 * (image.astype(np.float64) @ (0.299, 0.587, 0.114)) + 25)[..., None]
    # 2. fills: 0 = no segment, 1 = kept, 2 = removed; every second diagonal of the latter pale
    kinds = np.concatenate(([0], np.where(removed, 2, 1)))[labels]
    fill = np.array([(0, 0, 0), KEPT, REJECTED], np.float64)[kinds]
    width = max(1, round(min(labels.shape) / 256))
    diagonals = np.arange(labels.shape[0])[:, None] + np.arange(labels.shape[1])
    gap = (kinds == 2) & (diagonals // (2 * width) % 2 == 1)
    opacity = np.where(kinds == 0, 0.0, np.where(gap, 0.15, 0.75))[..., None]
    picture = (1 - opacity) * picture + opacity * fill
    # 3. outlines, the true ones over the others
    edge = _outline(labels, width)
    picture[edge] = fill[edge]
    if target is not None:
        picture[_outline((target != OOD).astype(np.int32), width)] = TRUTH
    return np.asarray(np.rint(picture), np.uint8)


def _outline(segments: npt.NDArray[np.int32], width: int) -> npt.NDArray[np.bool_]:
    """Return the pixels of segments (> 0) at most `width` rows or columns from another value."""
    edge = np.zeros(segments.shape, bool)
    for values, edges in ((segments, edge), (segments.T, edge.T)):  # edge.T is a view of edge
        for shift in range(1, min(width, len(values) - 1) + 1):
            differ = values[shift:] != values[:-shift]
            edges[shift:] |= differ
            edges[:-shift] |= differ
    return edge & (segments > 0)


def encode_png(picture: Picture, palette: bool = False) -> bytes:
    """Return a picture, ``(H, W, 3)`` or ``(H, W)`` ``uint8``, as the bytes of a PNG file.

    Args:
        picture: RGB or grey values; with `palette` class indices.
        palette: Stores the indices themselves, with the colours of :func:`label_map` as the file's palette: viewers
            show colours, and programs that read the file get the indices.
    """
    image = Image.fromarray(picture)
    if palette:
        image.putpalette(_PALETTE.tobytes())
    buffer = io.BytesIO()
    image.save(buffer, "png", compress_level=1)  # a tenth of the time of level 9, a third larger
    return buffer.getvalue()
