"""Detector: a network, a score, a threshold and a meta classifier, applied to one image at a time.

The result is that of the stages infer, segments and meta, one after another, for an image without void. `detect`, the
MLflow model, the server and the check of an export all call :class:`Detector`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import nn

from meta_ood.data.context import Machine
from meta_ood.data.labels import IN, LabelMap
from meta_ood.data.prediction_files import as_stored
from meta_ood.data.predictions import FloatMap, Prediction
from meta_ood.data.registry import lookup
from meta_ood.detector.folder import CLASSIFIER, WEIGHTS, Settings, check_classifier, read_settings
from meta_ood.detector.images import as_rgb
from meta_ood.evaluation import overlays
from meta_ood.evaluation.overlays import Picture
from meta_ood.inference import average_logits
from meta_ood.meta_classification import MetaClassifier
from meta_ood.meta_classification.explanation import contributions, reasons
from meta_ood.meta_classification.features import describe_feature
from meta_ood.models import checkpoint
from meta_ood.models.device import device_of
from meta_ood.scores import SCORES, pixel_maps
from meta_ood.segments import SegmentTable, label_map, measure_segments, predicted_ood

FORMAT = "meta-ood detection, version 2"  # of to_json; what version 0.1 wrote had none
UNLIKE = 6.0
"""Standard deviations beyond which a segment is unlike those of training: once in a billion normal values."""


@dataclass(frozen=True)
class Segment:
    """One predicted OoD segment.

    Attributes:
        box: First row, first column, end row, end column [px], half open.
        size: [px].
        score: Mean of the score over the segment.
        false_alarm: Probability in [0, 1] of being a false alarm; None without a meta classifier.
        kept: False if the meta classifier removes the segment.
        reasons: The features that decide most, the strongest first, see ``explanation.reasons``; positive ``log_odds``
            argue for a false alarm.
        farthest: ``feature`` in which the segment differs most from the training segments, its ``description``, and by
            how many standard ``deviations``; None without a meta classifier.
        unlike_training: Whether these are more than :data:`UNLIKE`: the meta classifier then extrapolates.
    """

    box: tuple[int, int, int, int]
    size: int
    score: float
    false_alarm: float | None = None
    kept: bool = True
    reasons: list[dict[str, Any]] = field(default_factory=list)
    farthest: dict[str, Any] | None = None
    unlike_training: bool = False


@dataclass(frozen=True, eq=False)
class Detection:
    """What a detector finds in one image of ``(H, W)`` pixels.

    Attributes:
        image: ``(H, W, 3) uint8`` RGB.
        score: ``(H, W) float32``, higher = more out-of-distribution.
        classes: ``(H, W) uint8``: index of the most probable class.
        labels: ``(H, W) int32``: 0 outside, ``k + 1`` in ``segments[k]``.
        segments: S segments, in raster order of their first pixel.
        detector: Plain values that identify the detector, see :attr:`Detector.identity`.
    """

    image: Picture
    score: FloatMap
    classes: LabelMap
    labels: npt.NDArray[np.int32]
    segments: list[Segment]
    detector: Mapping[str, Any]

    @property
    def mask(self) -> npt.NDArray[np.bool_]:
        """``(H, W) bool``: predicted OoD, before meta classification."""
        return self.labels > 0

    @property
    def kept_mask(self) -> npt.NDArray[np.bool_]:
        """``(H, W) bool``: predicted OoD, without the segments that meta classification removes."""
        kept: npt.NDArray[np.bool_] = np.concatenate([[False], ~self.removed])[self.labels]
        return kept

    @property
    def removed(self) -> npt.NDArray[np.bool_]:
        """``(S,) bool``: the segments that meta classification removes."""
        return np.array([not segment.kept for segment in self.segments], bool)

    def overlay(self) -> Picture:
        """Return ``(H, W, 3) uint8``: kept segments orange, removed ones blue and hatched."""
        return overlays.segments_map(self.image, self.labels, self.removed)

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the pictures as plain values."""
        segments = json.dumps([asdict(segment) for segment in self.segments])
        return {
            "format": FORMAT,
            "detector": dict(self.detector),
            "size": list(self.labels.shape),
            # six decimals: equal on machines that differ in rounding
            "segments": json.loads(segments, parse_float=lambda text: round(float(text), 6)),
        }

    def to_json(self) -> str:
        """Return :meth:`to_dict` as JSON text."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n"


class Detector:
    """A network with a score, a threshold and perhaps a meta classifier.

    Attributes:
        network: In eval mode on the detector's device.
        settings: Score, threshold, inference settings and names.
        classifier: The meta classifier; None keeps all segments.
    """

    def __init__(
        self, network: nn.Module, settings: Settings, classifier: MetaClassifier | None = None, device: str = "auto"
    ) -> None:
        """Put the parts together; :meth:`load` reads them from a folder.

        Raises:
            ValueError: If the score is unknown, or the classifier was fitted for another detector.
        """
        lookup("score", SCORES, settings.score)
        if classifier is not None:
            check_classifier(classifier, settings)
        self._device = device_of(Machine(device, 1))
        self.network = network.to(self._device).eval()
        self.settings = settings
        self.classifier = classifier

    @classmethod
    def load(cls, folder: Path | str, device: str = "auto", architecture: str | None = None) -> Detector:
        """Read a detector's folder, see :mod:`meta_ood.detector.folder`; nothing is unpickled.

        Args:
            folder: Such as ``data/detectors/NETWORK/VARIANT``, or one downloaded from the registry.
            device: ``auto``, ``cpu`` or ``cuda``.
            architecture: Needed for networks of your own (``package.module:builder``): a file alone never decides what
                code is imported.

        Raises:
            FileNotFoundError, ValueError: If a file is missing, damaged or of another detector; it is named.
        """
        folder = Path(folder)
        settings = read_settings(folder)
        network, _ = checkpoint.load(folder / WEIGHTS, architecture)
        path = folder / CLASSIFIER
        classifier = MetaClassifier.read(path) if CLASSIFIER in settings.files else None
        return cls(network, settings, classifier, device)

    @property
    def identity(self) -> dict[str, Any]:
        """Plain values that decide the result: the settings with the hashes of the files."""
        judge = self.classifier
        return {
            **self.settings.model_dump(mode="json", exclude={"format"}),
            "operating_point": None if judge is None else judge.operating_point,
            "fit_failure": "no meta classifier" if judge is None else judge.fit_failure,
        }

    def __call__(self, image: Picture | Image.Image | Path | str) -> Detection:
        """Find the OoD segments of one image.

        Args:
            image: ``(H, W, 3) uint8`` RGB, a PIL image, or the path of an image file.

        Raises:
            ValueError: If it is no such image, or the meta classifier knows another number of classes.
        """
        rgb = as_rgb(image)
        return self.judge(self.predict(rgb), rgb)

    def judge(self, prediction: Prediction, image: Picture) -> Detection:
        """Return the segments of the logits of :meth:`predict`, with `image` for the overlay."""
        # 1. score and classes, in one pass over the logits
        name, threshold = self.settings.score, self.settings.threshold
        maps = pixel_maps(prediction, {*SCORES[name].needs, "arg_max"})
        score = SCORES[name](maps)
        # 2. segments: `labels` and the rows of `table` are in the same order, that of their first pixels
        labels = label_map(predicted_ood(score, threshold))
        table = measure_segments(prediction, name, threshold, maps=maps)
        # 3. meta classification
        segments = judge_segments(table, self.classifier)
        return Detection(image, score, maps.arg_max, labels, segments, self.identity)

    def predict(self, image: Picture, name: str = "image") -> Prediction:
        """Return the network's logits for ``(H, W, 3) uint8``; nothing of the target is void."""
        height, width = image.shape[:2]
        pixels = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))[None])
        logits = average_logits(self.network, pixels.to(self._device), self.settings.infer)
        return Prediction(
            image_id=name,
            # rounded as the stage infer stores them: the same scores, to the bit
            logits=as_stored(logits[0].float().cpu().numpy()),
            size=(height, width),
            align_corners=bool(getattr(self.network, "align_corners", True)),
            target=np.full((height, width), IN, np.uint8),
        )


def judge_segments(table: SegmentTable, classifier: MetaClassifier | None) -> list[Segment]:
    """Return the segments of a table with the decisions of a meta classifier and their reasons.

    Raises:
        ValueError: If the classifier was fitted on other features, as those of other classes are.
    """
    boxes = [tuple(box) for box in table.segment_box.tolist()]
    segments = list(map(Segment, boxes, table.segment_size.tolist(), table.segment_score.tolist()))
    if classifier is None:
        return segments
    probability = classifier.probability(table)
    parts = contributions(classifier, table)
    scaled = np.abs(classifier.scaling(table.features))
    names, class_names = table.feature_names, classifier.class_names
    for k, segment in enumerate(segments):
        # the feature in which the segment lies farthest from the training segments
        away = int(scaled[k].argmax())
        segments[k] = replace(
            segment,
            false_alarm=float(probability[k]),
            kept=bool(probability[k] <= classifier.operating_point),
            reasons=reasons(parts[k], table.features[k], names, class_names=class_names),
            farthest={
                "feature": names[away],
                "description": describe_feature(names[away], class_names),
                "deviations": float(scaled[k, away]),
            },
            unlike_training=bool(scaled[k, away] > UNLIKE),
        )
    return segments
