"""Label, score and segment maps as pictures.

Pictures are ``(H, W, 3) uint8`` RGB arrays. The colours are safe for the common forms of colour
blindness: orange and blue are the two opposites everywhere, and rejected segments are hatched too.
"""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from PIL import Image

from meta_ood.data.labels import CITYSCAPES, IGNORE, IN, NEUTRAL, OOD, LabelMap, LabelSpace

Picture = npt.NDArray[np.uint8]


FloatMap = npt.NDArray[np.float32]


Colour = tuple[int, int, int]


SPECIAL_COLOURS: dict[int, Colour] = {
    NEUTRAL: (176, 156, 240),  # lilac
    IN: (222, 226, 232),  # pale grey
    OOD: (255, 96, 0),  # orange
    IGNORE: (0, 0, 0),  # black
}
"""Colours of the four labels that are no train ids; none of them is a Cityscapes colour."""


KEPT: Colour = (255, 122, 0)
"""Fill of the segments that survive meta classification: orange."""


REJECTED: Colour = (46, 134, 222)
"""Fill of the segments that meta classification rejects: blue, hatched."""


TRUTH: Colour = (255, 255, 255)
"""Outline of the true components: white."""


SCORE_COLOURS = "inferno"
"""The perceptually uniform map of scores: dark = known, bright = out-of-distribution."""


def label_map(labels: LabelMap, palette: LabelSpace = CITYSCAPES) -> Picture:
    """Colour a label map.

    Parameters
    ----------
    labels
        ``(H, W) uint8``: train ids of `palette`, ``NEUTRAL``, ``IN``, ``OOD`` or ``IGNORE``.
    palette
        Gives one colour per train id.

    Returns
    -------
    ``(H, W, 3) uint8``.

    Raises
    ------
    ValueError
        If a value is neither a train id of `palette` nor one of the four special labels.

    Examples
    --------
    >>> label_map(np.array([[0, OOD]], np.uint8)).tolist()
    [[[128, 64, 128], [255, 96, 0]]]
    """
    table = np.zeros((256, 3), np.uint8)
    colours = dict(enumerate(palette.palette)) | SPECIAL_COLOURS
    for label, colour in colours.items():
        table[label] = colour
    unknown = sorted({int(v) for v in np.unique(labels)} - set(colours))
    if unknown:
        expected = f"0 .. {len(palette.palette) - 1}, {NEUTRAL}, {IN}, {OOD} or {IGNORE}"
        raise ValueError(f"labels {unknown} have no colour; expected {expected}")
    return table[labels]


def score_map(score: FloatMap, low: float = 0.0, high: float = 1.0) -> Picture:
    """Colour a score map with a perceptually uniform map, dark for `low`, bright for `high`.

    Parameters
    ----------
    score
        ``(H, W) float32``; values outside ``[low, high]`` get the colour of the nearer end, values
        that are not a number a middle grey.
    low, high
        The scores at the two ends of the colour map, ``low < high``.

    Returns
    -------
    ``(H, W, 3) uint8``.

    Raises
    ------
    ValueError
        If not ``low < high`` or one of them is not finite.

    Examples
    --------
    >>> score_map(np.array([[0.0, 1.0]], np.float32)).tolist()
    [[[0, 0, 4], [252, 255, 164]]]
    """
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise ValueError(f"score range ({low}, {high}): expected finite numbers, low < high")
    colours = np.rint(colormaps[SCORE_COLOURS](np.arange(256))[:, :3] * 255).astype(np.uint8)
    unknown = np.isnan(score)
    fractions = (np.where(unknown, low, score).astype(np.float64) - low) / (high - low)
    picture: Picture = colours[np.rint(np.clip(fractions, 0, 1) * 255).astype(np.uint8)]
    picture[unknown] = 128
    return picture


def overlay(image: Picture, colours: Picture, alpha: float | npt.NDArray[np.floating]) -> Picture:
    """Lay `colours` over `image`.

    Parameters
    ----------
    image, colours
        ``(H, W, 3) uint8`` each.
    alpha
        Opacity of `colours` in [0, 1]: a number, or one per pixel ``(H, W)``.

    Returns
    -------
    ``(H, W, 3) uint8``: ``(1 - alpha) image + alpha colours``, rounded to the nearest.

    Raises
    ------
    ValueError
        If the shapes differ.

    Examples
    --------
    >>> black, white = np.zeros((1, 1, 3), np.uint8), np.full((1, 1, 3), 255, np.uint8)
    >>> overlay(black, white, 0.2).tolist()
    [[[51, 51, 51]]]
    """
    if image.shape != colours.shape:
        raise ValueError(f"image {image.shape} and colours {colours.shape} differ in shape")
    share = np.asarray(alpha, np.float64)
    if share.ndim == 2:
        share = share[..., None]
    return np.rint((1 - share) * image + share * colours).astype(np.uint8)


def segments_map(
    image: Picture | None,
    labels: npt.NDArray[np.int32],
    removed: npt.NDArray[np.bool_],
    target: LabelMap | None = None,
) -> Picture:
    """Draw predicted segments: kept ones orange, rejected ones blue and hatched, both outlined.

    Parameters
    ----------
    image
        ``(H, W, 3) uint8`` background, shown in pale grey; None draws on dark grey.
    labels
        ``(H, W) int32``: 0 outside, ``k`` or ``-k`` in segment ``k = 1 .. S``.
    removed
        ``(S,) bool``: does meta classification reject segment ``k``, at index ``k - 1``.
    target
        ``(H, W) uint8``: outlines its ``OOD`` components in white. None draws none.

    Returns
    -------
    ``(H, W, 3) uint8``.

    Raises
    ------
    ValueError
        If `labels` names a segment beyond S, or the shapes differ.

    Examples
    --------
    >>> labels = np.array([[1, 0, 2]], np.int32)
    >>> segments_map(None, labels, np.array([False, True]))[0, :, 0].tolist()
    [255, 40, 46]
    """
    segments = np.abs(labels)
    if segments.max(initial=0) > len(removed):
        raise ValueError(f"segment {segments.max()} of {len(removed)} segments")
    for name, array in (("image", image), ("target", target)):
        if array is not None and array.shape[:2] != labels.shape:
            raise ValueError(f"{name} {array.shape[:2]} and labels {labels.shape} differ in shape")
    picture = np.full((*labels.shape, 3), 40, np.uint8)
    if image is not None:
        grey = image.astype(np.float64) @ (0.299, 0.587, 0.114)
        picture[:] = np.rint(0.35 * grey + 25)[..., None]
    kinds = np.concatenate(([0], np.where(removed, 2, 1)))[segments]
    fill = np.array([(0, 0, 0), KEPT, REJECTED], np.uint8)[kinds]
    width = max(1, round(min(labels.shape) / 256))
    diagonals = np.arange(labels.shape[0])[:, None] + np.arange(labels.shape[1])
    gap = (kinds == 2) & (diagonals // (2 * width) % 2 == 1)
    picture = overlay(picture, fill, np.where(kinds == 0, 0.0, np.where(gap, 0.15, 0.75)))
    edge = _outline(segments, width)
    picture[edge] = fill[edge]
    if target is not None:
        picture[_outline((target != OOD).astype(np.int32), width)] = TRUTH
    return picture


def _outline(segments: npt.NDArray[np.int32], width: int) -> npt.NDArray[np.bool_]:
    """Return the pixels of segments (> 0) at most `width` rows or columns from another value."""
    edge = np.zeros(segments.shape, bool)
    for values, edges in ((segments, edge), (segments.T, edge.T)):
        for shift in range(1, min(width, len(values) - 1) + 1):
            differ = values[shift:] != values[:-shift]
            edges[shift:] |= differ
            edges[:-shift] |= differ
    return edge & (segments > 0)


def encode_png(picture: Picture) -> bytes:
    """Return a picture, ``(H, W, 3)`` or ``(H, W)`` ``uint8``, as PNG; same array, same bytes.

    Examples
    --------
    >>> encode_png(np.zeros((2, 2), np.uint8))[1:4]
    b'PNG'
    """
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "png", compress_level=9)
    return buffer.getvalue()


def write_png(path: Path, picture: Picture) -> None:
    """Write a picture, ``(H, W, 3)`` or ``(H, W)`` ``uint8``, atomically; same array, same bytes.

    Raises
    ------
    ValueError
        If dtype or shape is none of these.
    """
    if (
        picture.dtype != np.uint8
        or picture.ndim not in (2, 3)
        or picture.shape[2:] not in ((), (3,))
    ):
        raise ValueError(
            f"{path}: a picture is (H, W) or (H, W, 3) uint8, got {picture.shape} {picture.dtype}"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(encode_png(picture))
    temporary.replace(path)
