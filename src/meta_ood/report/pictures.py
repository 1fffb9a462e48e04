"""The page's pictures: image, target, scores of all variants, segments kept and rejected."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from meta_ood.data.images import image_size, read_image
from meta_ood.data.labels import IGNORE, IN, NEUTRAL, OOD
from meta_ood.evaluation import overlays
from meta_ood.report.results import Evaluation, Results

WIDTH = 640
"""Pictures are at most this wide in the page [px]."""

LEGEND = (
    (overlays.SPECIAL_COLOURS[OOD], "OoD object"),
    (overlays.SPECIAL_COLOURS[IN], "known"),
    (overlays.SPECIAL_COLOURS[NEUTRAL], "neutral, not counted"),
    (overlays.SPECIAL_COLOURS[IGNORE], "void"),
    (overlays.KEPT, "segment kept"),
    (overlays.REJECTED, "segment rejected by meta classification (hatched)"),
    (overlays.TRUTH, "outline of the true object"),
)


class Picture(NamedTuple):
    """A picture of the page: a data URI, the text that stands for it, caption and small print."""

    source: str
    alt: str
    caption: str
    note: str = ""


class Scene(NamedTuple):
    """The pictures of one frame: image and target, and one strip per network."""

    image_id: str
    truth: Sequence[Picture]
    strips: Sequence[Sequence[Picture]]


def scenes(results: Results) -> Mapping[str, Sequence[Scene]]:
    """Return the frames with pictures of each dataset, without datasets that have none.

    Datasets with OoD pixels show scores and segments, the others the predicted classes.
    """
    found = {}
    for dataset in results.datasets:
        evaluations = [one for one in results.ordered if one.dataset == dataset]
        image_ids = sorted({image_id for one in evaluations for image_id in one.pictures})
        if image_ids:
            found[dataset] = [_scene(evaluations, image_id) for image_id in image_ids]
    return found


def _scene(evaluations: Sequence[Evaluation], image_id: str) -> Scene:
    shown = [one for one in evaluations if image_id in one.pictures]
    is_ood = any(one.value("auroc") is not None for one in evaluations)
    truth = []
    for kind in ("image", "target"):
        paths = [one.pictures[image_id][kind] for one in shown if kind in one.pictures[image_id]]
        truth += [Picture(data_uri(path), f"{kind} of {image_id}", kind) for path in paths[:1]]
    strips = []
    for network in dict.fromkeys(one.network for one in shown):
        variants = [one for one in shown if one.network == network]
        wanted = [(one, "score" if is_ood else "classes") for one in variants]
        strip = [
            Picture(
                data_uri(one.pictures[image_id][kind]),
                f"{kind} of {network}, {one.variant}, on {image_id}",
                f"{one.variant} {kind}",
                network,
            )
            for one, kind in [*wanted, (variants[-1], "segments")]
            if kind in one.pictures[image_id]
        ]
        if strip:
            strips.append(strip)
    return Scene(image_id, truth, strips)


def data_uri(path: Path) -> str:
    """Return a picture as a data URI: as it is if it is narrow, else as a smaller JPEG."""
    height, width = image_size(path)
    if width <= WIDTH:
        data, media = path.read_bytes(), "image/png"
    else:
        size = WIDTH, max(1, round(height * WIDTH / width))
        buffer = io.BytesIO()
        image = Image.fromarray(read_image(path)).resize(size, Image.Resampling.LANCZOS)
        image.save(buffer, "jpeg", quality=88)
        data, media = buffer.getvalue(), "image/jpeg"
    return f"data:{media};base64,{base64.b64encode(data).decode('ascii')}"
