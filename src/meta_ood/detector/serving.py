"""The whole of inference as one thing: image in, OoD mask, scores, classes and segments out.

What the stages infer, segments and meta do one after another, for one image without target; for an
image without void the mask is theirs to the bit.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, UnidentifiedImageError
from torch import nn

from meta_ood.config import InferParams
from meta_ood.data.context import Machine
from meta_ood.data.labels import LabelMap
from meta_ood.data.prediction_files import as_stored
from meta_ood.data.predictions import FloatMap, Prediction
from meta_ood.data.registry import lookup
from meta_ood.inference import average_logits
from meta_ood.meta_classification.classifier import MetaClassifier
from meta_ood.models import checkpoint
from meta_ood.models.device import device_of
from meta_ood.scores import SCORES
from meta_ood.scores.maps import pixel_maps
from meta_ood.segments import SegmentTable, measure_segments, predicted_ood

Picture = npt.NDArray[np.uint8]

EXPECTED = (
    "expected a PNG or JPEG file as base64 text, or an array (H, W, 3) of whole numbers in [0, 255]"
)
_SMALLEST, _LARGEST = 32, 8192  # [px]


class ImageError(ValueError):
    """What was sent is no image; the message says what is expected."""


@dataclass(frozen=True)
class Settings:
    """What a detector is besides its weights.

    Attributes
    ----------
    score, threshold
        Segments are where `score` reaches `threshold`.
    infer
        Precision and test-time averaging, as in params.yaml.
    """

    score: str
    threshold: float
    infer: InferParams

    def to_json(self) -> str:
        """Return the settings as JSON."""
        return json.dumps(vars(self) | {"infer": self.infer.model_dump()}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Settings:
        """Read what :meth:`to_json` wrote."""
        values = json.loads(text)
        infer = {**values["infer"], "scales": tuple(values["infer"]["scales"])}
        return cls(values["score"], float(values["threshold"]), InferParams(**infer))


@dataclass(frozen=True)
class Detection:
    """What a detector says of one image.

    Attributes
    ----------
    mask
        ``(H, W) bool``: OoD, before meta classification.
    score
        ``(H, W) float32``, higher = more out-of-distribution.
    classes
        ``(H, W) uint8`` train ids.
    table
        The segments of the mask; true components are unknown, so there are none.
    false_alarm
        ``(S,)`` probability that a segment is false; NaN without a meta classifier.
    kept
        ``(S,) bool``: not removed by the meta classifier.
    """

    mask: npt.NDArray[np.bool_]
    score: FloatMap
    classes: LabelMap
    table: SegmentTable
    false_alarm: npt.NDArray[np.float64]
    kept: npt.NDArray[np.bool_]


class Detector:
    """A network with a score, a threshold and perhaps a meta classifier."""

    def __init__(
        self,
        network: nn.Module,
        settings: Settings,
        classifier: MetaClassifier | None = None,
        machine: Machine | None = None,
    ) -> None:
        lookup("score", SCORES, settings.score)
        self.device = device_of(machine or Machine())
        self.network = network.to(self.device).eval()
        self.settings = settings
        self.classifier = classifier

    @classmethod
    def load(
        cls, weights: Path, settings: Path, classifier: Path | None = None, device: str = "auto"
    ) -> Detector:
        """Read a detector from its files: safetensors and JSON, nothing that is executed."""
        network, _ = checkpoint.load(weights)
        return cls(
            network,
            Settings.from_json(settings.read_text(encoding="utf-8")),
            MetaClassifier.read(classifier) if classifier else None,
            Machine(device, 1),
        )

    def detect(self, image: Picture) -> Detection:
        """Look at one image.

        Parameters
        ----------
        image
            ``(H, W, 3) uint8`` RGB.
        """
        pixels = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))[None])
        logits = average_logits(self.network, pixels.to(self.device), self.settings.infer)
        height, width = image.shape[:2]
        prediction = Prediction(
            image_id="image",
            logits=as_stored(logits[0].float().cpu().numpy()),
            size=(height, width),
            align_corners=bool(getattr(self.network, "align_corners", True)),
            target=np.zeros((height, width), np.uint8),
        )
        maps = pixel_maps(prediction)
        assert maps.arg_max is not None
        score = SCORES[self.settings.score](maps)
        table = measure_segments(
            prediction, self.settings.score, self.settings.threshold, maps=maps
        )
        false_alarm = np.full(len(table.image), np.nan)
        kept = np.ones(len(table.image), bool)
        if self.classifier is not None and len(table.image):
            false_alarm = self.classifier.probability(table)
            kept = false_alarm <= self.classifier.operating_point
        mask = predicted_ood(score, self.settings.threshold)
        return Detection(mask, score, maps.arg_max, table, false_alarm, kept)


def read_image(given: Any) -> Picture:
    """Return ``(H, W, 3) uint8`` RGB from a file's bytes, their base64 text, or an array.

    Raises
    ------
    ImageError
        If it is none of them, or too small or large; the message says what is expected.

    Examples
    --------
    >>> read_image([[[1, 2, 3]] * 64] * 32).shape
    (32, 64, 3)
    >>> read_image("street.png")
    Traceback (most recent call last):
        ...
    meta_ood.detector.serving.ImageError: the text is no base64: expected a PNG or JPEG file as ...
    """
    if isinstance(given, str):
        try:
            given = base64.b64decode(given, validate=True)
        except (binascii.Error, ValueError):
            raise ImageError(f"the text is no base64: {EXPECTED}") from None
    image = _decode(given) if isinstance(given, bytes) else _array(given)
    height, width = image.shape[:2]
    if min(height, width) < _SMALLEST or max(height, width) > _LARGEST:
        raise ImageError(
            f"the image has {height} x {width} pixels: expected {_SMALLEST} to {_LARGEST} each way"
        )
    return image


def _decode(data: bytes) -> Picture:
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as picture:
            if max(picture.size) > _LARGEST:
                raise ImageError(f"the image has {picture.size} pixels: at most {_LARGEST}")
            return np.array(picture.convert("RGB"))
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError):
        raise ImageError(f"{len(data)} bytes that are no image: {EXPECTED}") from None


def _array(given: Any) -> Picture:
    try:
        values = np.asarray(given)
        fits = values.ndim == 3 and values.shape[2] == 3 and values.dtype.kind in "iuf"
    except ValueError:  # ragged
        fits = False
    if not fits:
        kind = f"an array of shape {np.shape(given)}" if hasattr(given, "shape") else type(given)
        raise ImageError(f"got {kind}: {EXPECTED}")
    whole = np.rint(values)
    if not np.array_equal(whole, values) or whole.min() < 0 or whole.max() > 255:
        raise ImageError(f"got numbers from {values.min()} to {values.max()}: {EXPECTED}")
    picture: Picture = whole.astype(np.uint8)
    return picture


def answer(detection: Detection, maps: bool = True) -> dict[str, Any]:
    """Return a detection as plain values, pictures as base64 PNG.

    Parameters
    ----------
    detection
        Of one image.
    maps
        False leaves out the three pictures.

    Returns
    -------
    ``segments`` (list: first_row, first_column, end_row, end_column, size [px], score, false_alarm
    or None, kept), and with `maps` ``mask`` (255 = OoD), ``score`` (``score_low`` = 0,
    ``score_high`` = 255) and ``classes`` (train ids).
    """
    table = detection.table
    segments = [
        {
            "first_row": int(box[0]),
            "first_column": int(box[1]),
            "end_row": int(box[2]),
            "end_column": int(box[3]),
            "size": int(size),
            "score": float(score),
            "false_alarm": None if np.isnan(false_alarm) else float(false_alarm),
            "kept": bool(kept),
        }
        for box, size, score, false_alarm, kept in zip(
            table.segment_box,
            table.segment_size,
            table.segment_score,
            detection.false_alarm,
            detection.kept,
            strict=True,
        )
    ]
    found: dict[str, Any] = {"segments": segments}
    if maps:
        low = min(0.0, float(detection.score.min()))
        high = max(1.0, float(detection.score.max()))
        grey = np.rint((detection.score - low) / (high - low) * 255).astype(np.uint8)
        found |= {
            "mask": _png(detection.mask.astype(np.uint8) * 255),
            "score": _png(grey),
            "score_low": low,
            "score_high": high,
            "classes": _png(detection.classes),
        }
    return found


def _png(picture: Picture) -> str:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG", compress_level=1)
    return base64.b64encode(file.getvalue()).decode("ascii")


def images_of(request: Any) -> list[Any]:
    """Return the images in what a server was sent: under ``image``, one or a list of them.

    Raises
    ------
    ImageError
        If there is nothing under ``image``.
    """
    columns = getattr(request, "columns", None)
    if columns is not None:  # a table
        if "image" not in columns:
            raise ImageError(f"no column `image` among {list(columns)}: {EXPECTED}")
        return _flat(request["image"])
    if isinstance(request, Mapping):
        if "image" not in request:
            raise ImageError(f"nothing under `image`, only {list(request)}: {EXPECTED}")
        request = request["image"]
    return _flat([request])


def _flat(given: Any) -> list[Any]:
    """Return images and lists of images as one list."""
    found = []
    for item in given:
        many = isinstance(item, list | tuple | np.ndarray) and len(item) > 0
        if many and (isinstance(item[0], str | bytes) or np.ndim(item) == 4):
            found += list(item)
        else:
            found.append(item)
    return found
