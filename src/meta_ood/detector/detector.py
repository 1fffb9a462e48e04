"""A network, a score, a threshold and a meta classifier, applied to one image at a time.

The result is that of the stages infer, segments and meta, one after another, for an image without void.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn

from meta_ood.config import InferParams
from meta_ood.data.context import Machine
from meta_ood.data.images import read_image, to_rgb
from meta_ood.data.labels import IN, LabelMap
from meta_ood.data.overlays import Picture, segments_map
from meta_ood.data.prediction_files import as_stored, map_as_stored
from meta_ood.data.predictions import FloatMap, Prediction
from meta_ood.detector.folder import CLASSIFIER, MEMBER, STATISTICS, WEIGHTS, Settings, check_classifier, read_settings
from meta_ood.inference import logits_and_maps
from meta_ood.inference.features import Tap
from meta_ood.inference.repetition import check_members
from meta_ood.inference.statistics import read_statistics
from meta_ood.inference.stored_scores import Scorer
from meta_ood.meta_classification import MetaClassifier
from meta_ood.meta_classification.explanation import contributions, reasons
from meta_ood.meta_classification.features import describe_feature
from meta_ood.meta_classification.promise import Promise
from meta_ood.models import checkpoint
from meta_ood.models.device import device_of
from meta_ood.scores import find_score, pixel_maps
from meta_ood.segments import SegmentTable, label_map, measure_segments, predicted_ood, segment_means
from meta_ood.segments.features import scores_of

SMALLEST = 32  # [px] each way, of images: the networks reduce height and width by up to 32
UNLIKE = 6.0  # standard deviations from the training segments' mean; once in a billion normal values


@dataclass(frozen=True)
class Segment:
    """One predicted OoD segment; without a meta classifier only the first four fields and `kept` say something."""

    box: tuple[int, int, int, int]  # first row, first column, end row, end column [px], half open
    size: int  # [px]
    score: float  # mean over the segment
    severity: float  # how surely it is an object, see MetaClassifier.severity
    false_alarm: float | None = None  # probability in [0, 1] of being a false alarm
    kept: bool = True  # False if the meta classifier, or the threshold of the promise, removes the segment
    # the features that decide most, see explanation.reasons; positive log_odds argue for a false alarm
    reasons: list[dict[str, Any]] = field(default_factory=list)
    # the feature in which the segment differs most from the training segments, by how many standard "deviations"
    farthest: dict[str, Any] | None = None
    unlike_training: bool = False  # these are more than UNLIKE: the meta classifier extrapolates


@dataclass(frozen=True, eq=False)
class Detection:
    """The result of a detector for one image of ``(H, W)`` pixels."""

    image: Picture  # (H, W, 3) uint8 RGB
    score: FloatMap  # (H, W) float32, higher = more out-of-distribution
    classes: LabelMap  # (H, W) uint8: index of the most probable class
    labels: npt.NDArray[np.int32]  # (H, W): 0 outside, k + 1 in segments[k]
    segments: list[Segment]  # in raster order of their first pixel
    detector: Mapping[str, Any]  # plain values, see Detector.identity
    table: SegmentTable  # the same segments, with their features
    embeddings: FloatMap | None = None  # (S, F) float32: what `similar` compares, of a detector loaded with `embed`

    @property
    def mask(self) -> npt.NDArray[np.bool_]:
        """``(H, W) bool``: predicted OoD, before meta classification."""
        return self.labels > 0

    @property
    def kept_mask(self) -> npt.NDArray[np.bool_]:
        """``(H, W) bool``: predicted OoD, without the segments that meta classification removes."""
        return np.asarray(np.concatenate([[False], ~self.removed])[self.labels], bool)

    @property
    def removed(self) -> npt.NDArray[np.bool_]:
        """``(S,) bool``: the segments that meta classification removes."""
        return np.array([not segment.kept for segment in self.segments], bool)

    def overlay(self) -> Picture:
        """Return ``(H, W, 3) uint8``: kept segments orange, removed ones blue and hatched."""
        return segments_map(self.image, self.labels, self.removed)

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the pictures as plain values."""
        segments = json.dumps([asdict(segment) for segment in self.segments])
        return {
            "format": "meta-ood detection, version 2",  # what version 0.1 wrote had none
            "detector": dict(self.detector),
            "size": list(self.labels.shape),
            # six decimals: equal on machines that differ in rounding
            "segments": json.loads(segments, parse_float=lambda text: round(float(text), 6)),
        }

    def to_json(self) -> str:
        """Return :meth:`to_dict` as JSON text."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n"


class Detector:
    """A network in eval mode, the settings of ``detector.json``, and a meta classifier; None keeps all segments."""

    def __init__(
        self,
        network: nn.Module,
        settings: Settings,
        classifier: MetaClassifier | None = None,
        device: str = "auto",
        statistics: Mapping[str, Tensor] | None = None,
        others: Sequence[nn.Module] = (),
        embed: bool = False,
    ) -> None:
        """Check that the parts belong together, else raise a ValueError; :meth:`load` reads them from a folder."""
        find_score(settings.score)
        if classifier is not None:
            check_classifier(classifier, settings)
        self._device = device_of(Machine(device, 1))
        self.network = network.to(self._device).eval()
        self._others = [other.to(self._device).eval() for other in others]
        check_members([network, *self._others], settings.infer)
        # the features of windows are not those of an image
        tap = _tap(self.network) if embed and not settings.infer.tile else None
        self._scorer = Scorer(self.network, settings.infer.scores, statistics, tap).eval()
        self._features_of = tap and self._scorer.tap
        self._embeds = embed
        if embed and not tap and classifier is None:
            raise ValueError("no embeddings: the network gives no map of features and there is no meta classifier")
        self.settings = settings
        self.classifier = classifier

    @classmethod
    def load(
        cls,
        folder: Path | str,
        device: str = "auto",
        architecture: str | None = None,
        score: str | None = None,
        embed: bool = False,
        infer: Mapping[str, Any] | None = None,
    ) -> Self:
        """Read a detector's folder, see :mod:`meta_ood.detector.folder`; nothing is unpickled.

        Args:
            folder: Such as ``data/detectors/NETWORK/VARIANT``, or one downloaded from the registry.
            device: ``auto``, ``cpu`` or ``cuda``.
            architecture, score: Needed for networks and scores of your own (``package.module:name``): a file alone
                never decides what code is imported.
            embed: Detections have embeddings: means of the network's features over each segment, or where it has no
                map of them (some transformers, `infer.tile`) the features that the meta classifier scales.
            infer: Values instead of those that the folder has below ``infer``, such as ``precision``.

        Raises FileNotFoundError or ValueError if a file is missing, damaged or not that of detector.json; it is named.
        """
        folder = Path(folder)
        settings = read_settings(folder)
        if infer:
            wanted = InferParams.model_validate({**settings.infer.model_dump(), **infer})
            settings = settings.model_copy(update={"infer": wanted})
        if ":" in settings.score and settings.score != score:
            raise ValueError(f"{folder}: its score is code of its own: load it with score={settings.score!r}")
        network, made_of = checkpoint.load(folder / WEIGHTS, architecture)
        repetition = settings.infer.repetition
        names = [MEMBER.format(1 + number) for number in range(len(repetition.weights) if repetition else 0)]
        others = [checkpoint.load_alike(folder / name, made_of) for name in names if name in settings.files]
        classifier = MetaClassifier.read(folder / CLASSIFIER) if CLASSIFIER in settings.files else None
        statistics = read_statistics(folder / STATISTICS) if STATISTICS in settings.files else None
        return cls(network, settings, classifier, device, statistics, others, embed)

    @property
    def identity(self) -> dict[str, Any]:
        """Plain values that decide the result: the settings with the hashes of the files."""
        point, failure = None, "no meta classifier"
        if self.classifier is not None:
            point, failure = self.classifier.operating_point, self.classifier.fit_failure
        settings = self.settings.model_dump(mode="json", exclude={"format": True, "promise": {"reference"}})
        return {**settings, "operating_point": point, "fit_failure": failure}

    def __call__(self, image: Picture | Image.Image | Path | str) -> Detection:
        """Return the OoD segments of an image: ``(H, W, 3) uint8`` RGB, a PIL image, or the path of an image file."""
        rgb = as_rgb(image)
        return self.judge(self.predict(rgb), rgb)

    def judge(self, prediction: Prediction, image: Picture) -> Detection:
        """Return the segments of the logits of :meth:`predict`, with `image` for the overlay."""
        # 1. score and classes, in one pass over the logits
        name, threshold = self.settings.score, self.settings.threshold
        formula = find_score(name)
        features = scores_of(self.classifier.feature_names) if self.classifier else []
        needed = {need for own in (name, *features) for need in find_score(own).needs}
        maps = pixel_maps(prediction, {*needed, "arg_max"})
        score = formula(maps)
        # 2. segments: `labels` and the rows of `table` are in the same order, that of their first pixels
        labels = label_map(predicted_ood(score, threshold))
        table = measure_segments(prediction, name, threshold, maps=maps, features=features)
        # 3. meta classification, and the threshold on severity
        segments = judge_segments(table, self.classifier, self.settings.promise)
        found = Detection(image, score, maps.arg_max, labels, segments, self.identity, table)
        return replace(found, embeddings=self._embeddings(found, prediction.features)) if self._embeds else found

    def _embeddings(self, found: Detection, features: FloatMap | None) -> FloatMap:
        if features is not None:
            return segment_means(found.labels, features)
        assert self.classifier is not None, "see __init__"
        return self.classifier.scaling(found.table.features).astype(np.float32)

    def predict(self, image: Picture) -> Prediction:
        """Return the network's logits for ``(H, W, 3) uint8``; nothing of the target is void."""
        return self.predict_together([image])[0]

    def predict_together(self, images: Sequence[Picture]) -> list[Prediction]:
        """Return :meth:`predict` of images of one size; the last bits depend on how many go through together."""
        size = (images[0].shape[0], images[0].shape[1])
        pixels = torch.from_numpy(np.stack([image.transpose(2, 0, 1) for image in images]))
        given = self.settings.infer, size, self._others
        logits, maps = logits_and_maps(self._scorer, pixels.to(self._device), *given)
        align, target = self._scorer.align_corners, np.full(size, IN, np.uint8)
        features: list[Any] = [None] * len(images)
        if self._features_of:
            tapped = self._features_of.features.float()
            # the last pass is that of the mirror image
            features = list((tapped.flip(-1) if self.settings.infer.flip else tapped).cpu().numpy())
        found = []
        for place, own in enumerate(logits.cpu().numpy()):
            # rounded as the stage infer stores them: the same scores, to the bit
            stored = {name: map_as_stored(values[place].cpu().numpy()) for name, values in maps.items()}
            rounded = as_stored(own)
            found.append(Prediction("image", rounded, size, align, target, stored=stored, features=features[place]))
        return found


def _tap(network: nn.Module) -> Tap | None:
    """Return what takes the features of a network's pass; None if it has no map of them."""
    try:
        return Tap(network.eval())
    except ValueError:
        return None


def as_rgb(image: Picture | Image.Image | Path | str) -> Picture:
    """Return an array, a PIL image or an image file as ``(H, W, 3) uint8`` RGB, upright.

    Raises FileNotFoundError if there is no such file, ValueError if it is no such image; says what is expected.
    """
    if isinstance(image, Path | str):
        return read_image(Path(image))
    if isinstance(image, Image.Image):
        return to_rgb(image)
    array = np.asarray(image)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or not array.size:
        expected = "an image as (H, W, 3) uint8 RGB, a PIL image or a path"
        raise ValueError(f"expected {expected}, got an array of shape {array.shape} and dtype {array.dtype}")
    return array


def judge_segments(
    table: SegmentTable, classifier: MetaClassifier | None, promise: Promise | None = None
) -> list[Segment]:
    """Return the segments of a table with the decisions of a meta classifier and their reasons.

    With a promise its threshold on severity decides, instead of the classifier's operating point. ValueError if the
    classifier was fitted on other features, as those of other numbers of classes are.
    """
    boxes = map(tuple, table.segment_box.tolist())
    severity = table.excess if classifier is None else classifier.severity(table)
    rows = list(zip(boxes, table.segment_size.tolist(), table.segment_score.tolist(), severity.tolist(), strict=True))
    if classifier is None:
        return [Segment(*row, kept=promise is None or row[3] >= promise.threshold) for row in rows]
    probability = classifier.probability(table)
    kept = severity >= promise.threshold if promise else probability <= classifier.operating_point
    parts = contributions(classifier, table)
    deviations = np.abs(classifier.scaling(table.features))
    names, class_names = table.feature_names, classifier.class_names
    return [
        Segment(
            *rows[k],
            false_alarm=float(probability[k]),
            kept=bool(kept[k]),
            reasons=reasons(parts[k], table.features[k], names, class_names=class_names),
            farthest={
                "feature": names[away],
                "description": describe_feature(names[away], class_names),
                "deviations": float(deviations[k, away]),
            },
            unlike_training=bool(deviations[k, away] > UNLIKE),
        )
        for k, away in enumerate(deviations.argmax(axis=1).tolist())
    ]
