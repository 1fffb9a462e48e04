"""The page's pictures: image, target, scores before and after, segments kept and rejected."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from meta_ood.data.labels import IGNORE, IN, NEUTRAL, OOD
from meta_ood.evaluation import overlays
from meta_ood.report.results import Cell, Results

PICTURE_WIDTH = 640
"""Pictures are at most this wide [px] in the page."""

_SWATCHES = (
    (overlays.SPECIAL_COLOURS[OOD], "OoD object"),
    (overlays.SPECIAL_COLOURS[IN], "known"),
    (overlays.SPECIAL_COLOURS[NEUTRAL], "neutral, not counted"),
    (overlays.SPECIAL_COLOURS[IGNORE], "void"),
    (overlays.KEPT, "segment kept"),
    (overlays.REJECTED, "segment rejected by meta classification (hatched)"),
    (overlays.TRUTH, "outline of the true object"),
)


def pictures_section(results: Results) -> str:
    """Return the pictures of all evaluation sets; nothing if there are none.

    Sets with OoD pixels show scores and segments, the others the predicted classes.
    """
    blocks = []
    for dataset in results.datasets:
        cells = [cell for cell in results.ordered if cell.dataset == dataset]
        image_ids = sorted({image_id for cell in cells for image_id in cell.pictures})
        scenes = [_scene(cells, image_id, results.networks) for image_id in image_ids]
        if any(scenes):
            blocks.append(f"<h3>{escape(dataset)}</h3>{''.join(scenes)}")
    if not blocks:
        return ""
    legend = "".join(
        f'<li><span class="swatch" style="background:rgb{colour}"></span>{name}</li>'
        for colour, name in _SWATCHES
    )
    return (
        '<h2 id="pictures">Pictures</h2><p class="soft">What the camera saw, what is true, and '
        "what the networks made of it before and after OoD training.</p>"
        f'<ul class="legend">{legend}<li>score: known<span class="ramp"></span>unknown</li></ul>'
        + "".join(blocks)
    )


def _scene(cells: Sequence[Cell], image_id: str, networks: Sequence[str]) -> str:
    """Return one frame: image and target once, then what each network and variant says."""
    shown = [cell for cell in cells if image_id in cell.pictures]
    is_ood = any(cell.value("auroc") is not None for cell in cells)
    truth = [
        _figure(path, f"{kind} of {image_id}", kind)
        for kind in ("image", "target")
        if (path := _first(shown, image_id, kind)) is not None
    ]
    strips = [
        strip
        for network in networks
        if (strip := _strip([c for c in shown if c.network == network], image_id, is_ood))
    ]
    if not truth and not strips:
        return ""
    layout = "few" if len(strips) < 2 else "many"
    return (
        f'<section class="scene {layout}"><h4>{escape(image_id)}</h4>'
        f'<div class="panels"><div class="truth">{"".join(truth)}</div>'
        f'<div class="strips">{"".join(strips)}</div></div></section>'
    )


def _strip(cells: Sequence[Cell], image_id: str, is_ood: bool) -> str:
    """Return one network's pictures of a frame: its variants, then the last one's segments."""
    kind = "score" if is_ood else "classes"
    wanted = [(cell, kind) for cell in cells]
    if cells:
        wanted.append((cells[-1], "segments"))
    found = [
        _figure(
            cell.pictures[image_id][kind],
            f"{kind} of {cell.network}, {cell.variant}, on {image_id}",
            f"{cell.variant} {kind}",
            cell.network,
        )
        for cell, kind in wanted
        if kind in cell.pictures[image_id]
    ]
    return f'<div class="strip">{"".join(found)}</div>' if found else ""


def _first(cells: Sequence[Cell], image_id: str, kind: str) -> Path | None:
    found = (cell.pictures[image_id].get(kind) for cell in cells)
    return next((path for path in found if path is not None), None)


def thumbnail(path: Path, width: int) -> tuple[bytes, str]:
    """Return a picture for a page: as it is if at most `width` [px] wide, else a smaller JPEG.

    Returns
    -------
    The file's bytes and its media type, ``image/png`` or ``image/jpeg``.

    Raises
    ------
    ValueError
        If the file is no picture.
    """
    try:
        with Image.open(path) as image:
            if image.width <= width and image.format == "PNG":
                return path.read_bytes(), "image/png"
            height = max(1, round(image.height * width / image.width))
            small = image.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
    except UnidentifiedImageError:
        raise ValueError(f"{path}: not a picture") from None
    buffer = io.BytesIO()
    small.save(buffer, "jpeg", quality=88)
    return buffer.getvalue(), "image/jpeg"


def _figure(path: Path, alt: str, caption: str, note: str = "") -> str:
    data, media = thumbnail(path, PICTURE_WIDTH)
    source = f"data:{media};base64,{base64.b64encode(data).decode('ascii')}"
    return (
        f'<figure><img src="{source}" alt="{escape(alt)}">'
        f"<figcaption><b>{escape(caption)}</b>{escape(note) or '&nbsp;'}</figcaption></figure>"
    )
