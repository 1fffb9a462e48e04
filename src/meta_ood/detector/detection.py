"""Use on new images: network, segments and meta classifier in one, with pictures and reasons."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, UnidentifiedImageError
from torch import nn

from meta_ood.config import InferParams
from meta_ood.data.context import Machine, progress
from meta_ood.data.labels import IN
from meta_ood.data.prediction_files import as_stored
from meta_ood.data.predictions import Prediction
from meta_ood.evaluation import overlays
from meta_ood.inference import average_logits
from meta_ood.meta_classification import MetaClassifier
from meta_ood.meta_classification.explanation import contributions, reasons
from meta_ood.models import checkpoint
from meta_ood.models.device import device_of
from meta_ood.scores import SCORES, pixel_maps
from meta_ood.segments import SegmentTable, label_map, measure_segments, predicted_ood

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".tif", ".tiff", ".webp")
"""What counts as an image in a folder."""

UNLIKE = 6.0
"""Beyond so many standard deviations in a feature a segment is unlike those of training."""

_log = logging.getLogger(__name__)
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Detection:
    """OoD segments of one image, and what the meta classifier thinks of them.

    Attributes
    ----------
    labels
        ``(H, W) int32``: 0 outside, ``k = 1 .. S`` in segment ``k``.
    removed
        ``(S,) bool``.
    segments
        S plain dicts: ``segment`` (number), ``box`` (first row, first column, end row, end column
        [px], half open), ``size`` [px], ``score`` (mean), ``probability_false``, ``decision``
        ("kept" or "removed"), ``reasons`` (see ``explanation.reasons``), ``farthest``: the feature
        in which it is most unlike the training segments, and by how many standard deviations.
    """

    labels: npt.NDArray[np.int32]
    removed: Flags
    segments: list[dict[str, Any]]

    def mask(self, *, after: bool) -> npt.NDArray[np.uint8]:
        """Return the OoD mask ``(H, W)``, 255 = OoD, before or after meta classification."""
        kept = np.concatenate([[False], ~self.removed if after else np.ones_like(self.removed)])
        return np.where(kept[self.labels], np.uint8(255), np.uint8(0))


def detect(
    prediction: Prediction, classifier: MetaClassifier, score: str, threshold: float
) -> Detection:
    """Find and judge the OoD segments of one prediction.

    Parameters
    ----------
    prediction
        What a network said; its target counts as void where it is ``IGNORE``, else not at all.
    classifier
        Fitted on segments of the same network, score and threshold.
    score
        Key of ``SCORES``.
    threshold
        Segments are where the score reaches it.

    Raises
    ------
    ValueError
        If the classifier knows other features: another number of classes.
    """
    table = measure_segments(prediction, score, threshold)
    mask = predicted_ood(SCORES[score](pixel_maps(prediction)), threshold, prediction.target)
    labels = label_map(mask)
    return Detection(labels, *_judge(table, classifier))


def _judge(table: SegmentTable, classifier: MetaClassifier) -> tuple[Flags, list[dict[str, Any]]]:
    probability = classifier.probability(table)
    removed = probability > classifier.operating_point
    parts = contributions(classifier, table)
    scaled = np.abs(classifier.scaling(table.features))
    found = [
        {
            "segment": k + 1,
            "box": table.segment_box[k].tolist(),
            "size": int(table.segment_size[k]),
            "score": round(float(table.segment_score[k]), 6),
            "probability_false": round(float(probability[k]), 6),
            "decision": "removed" if removed[k] else "kept",
            "reasons": reasons(parts[k], table.features[k], table.feature_names),
            "farthest": {
                "feature": table.feature_names[scaled[k].argmax()],
                "deviations": round(float(scaled[k].max()), 2),
            },
        }
        for k in range(len(table.image))
    ]
    return removed, found


def find_images(paths: Sequence[Path]) -> list[tuple[str, Path]]:
    """Return name and file of every image; folders are searched through, in sorted order.

    A name is the path below the folder given (or the file's name), without its ending.

    Raises
    ------
    FileNotFoundError
        If a path does not exist, or there is no image at all.
    ValueError
        If two images would have the same name.
    """
    found: dict[str, Path] = {}
    for path in paths:
        if path.is_dir():
            files = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES)
            named = [(p.relative_to(path).with_suffix("").as_posix(), p) for p in files]
        elif path.is_file():
            named = [(path.stem, path)]
        else:
            raise FileNotFoundError(f"{path}: no such file or folder")
        for name, file in named:
            if name in found:
                raise ValueError(f"{file} and {found[name]} would both be written as {name!r}")
            found[name] = file
    if not found:
        raise FileNotFoundError(f"no image ({', '.join(SUFFIXES)}) in the paths given")
    return list(found.items())


def predict_image(
    network: nn.Module, name: str, picture: overlays.Picture, params: InferParams, machine: Machine
) -> Prediction:
    """Return what the network says about one ``(H, W, 3) uint8`` image without a target."""
    pixels = torch.from_numpy(picture).permute(2, 0, 1)[None].contiguous()
    images = pixels.to(device_of(machine))
    logits = average_logits(network, images, params)[0].float().cpu().numpy()
    height, width = picture.shape[:2]
    return Prediction(
        image_id=name,
        logits=as_stored(logits),  # as the stages see it
        size=(height, width),
        align_corners=bool(getattr(network, "align_corners", True)),
        target=np.full((height, width), IN, np.uint8),
    )


def detect_images(
    paths: Sequence[Path],
    *,
    network: Path,
    classifier: Path,
    out: Path,
    score: str | None = None,
    threshold: float | None = None,
    precision: InferParams | None = None,
    machine: Machine,
) -> Iterator[Path]:
    """Judge images and yield the JSON file of each; what is there already is not made again.

    Writes ``NAME_before.png`` and ``NAME_after.png`` (OoD masks, 255 = OoD), ``NAME_overlay.png``
    and, last, ``NAME.json``. A JSON file made with the same network, classifier, settings and image
    counts as done.

    Parameters
    ----------
    paths
        Images and folders of images.
    network
        A weights file of this package.
    classifier
        A ``classifier.json``.
    out
        Folder to write into.
    score, threshold
        What makes segments; by default what the classifier was trained with.
    precision
        Precision and flipping; float32 without flipping by default.
    machine
        Device.

    Raises
    ------
    ValueError, FileNotFoundError
        Unfit network, classifier or image; the file is named.
    """
    judge = MetaClassifier.read(classifier)
    score = score or judge.score
    threshold = judge.threshold if threshold is None else threshold
    if not score or threshold is None:
        raise ValueError(f"{classifier} does not say score and threshold: give --score --threshold")
    if (judge.score, judge.threshold) not in (("", None), (score, threshold)):
        _log.warning(
            "%s was fitted on segments of %s >= %s, not %s >= %s",
            *(classifier, judge.score, judge.threshold, score, threshold),
        )
    images = find_images(paths)
    net, metadata = checkpoint.load(network)
    net = net.to(device_of(machine)).eval()
    params = precision or InferParams()
    common: dict[str, Any] = {
        "network": f"{metadata['name']}/{metadata['variant']}",
        "network_sha256": _sha256(network),
        "classifier_sha256": _sha256(classifier),
        "precision": params.precision,
        "flip": params.flip,
        "score": score,
        "threshold": threshold,
        "operating_point": judge.operating_point,
        "keep_everything": judge.keep_everything,
    }
    for name, path in progress(images, "detect"):
        target = out / f"{name}.json"
        header = {"image": path.name, "image_sha256": _sha256(path), **common}
        if not _is_done(target, header):
            picture = _read(path)
            prediction = predict_image(net, name, picture, params, machine)
            write(out, name, detect(prediction, judge, score, threshold), picture, header)
        yield target


def write(
    out: Path, name: str, found: Detection, picture: overlays.Picture, header: dict[str, Any]
) -> None:
    """Write the pictures of a detection, then its JSON file."""
    target = out / f"{name}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    stem = target.with_suffix("")
    for kind, panel in (
        ("before", found.mask(after=False)),
        ("after", found.mask(after=True)),
        ("overlay", overlays.segments_map(picture, found.labels, found.removed)),
    ):
        overlays.write_png(stem.with_name(f"{stem.name}_{kind}.png"), panel)
    values = {**header, "size": list(picture.shape[:2]), "segments": found.segments}
    temporary = target.with_name(f".{target.name}.tmp")
    temporary.write_text(json.dumps(values, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    temporary.replace(target)


def summary(files: Iterable[Path]) -> dict[str, int]:
    """Count images, segments, removed and unlike ones in JSON files written by :func:`write`."""
    counts = {"images": 0, "segments": 0, "removed": 0, "unlike": 0}
    for file in files:
        segments = json.loads(file.read_text(encoding="utf-8"))["segments"]
        counts["images"] += 1
        counts["segments"] += len(segments)
        counts["removed"] += sum(s["decision"] == "removed" for s in segments)
        counts["unlike"] += sum(s["farthest"]["deviations"] > UNLIKE for s in segments)
    return counts


def _is_done(path: Path, header: dict[str, Any]) -> bool:
    if not path.is_file():
        return False
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return False
    return isinstance(values, dict) and all(values.get(k) == v for k, v in header.items())


def _read(path: Path) -> overlays.Picture:
    try:
        with Image.open(path) as image:
            return np.array(image.convert("RGB"), np.uint8)
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"{path}: not a readable image: {error}") from None


def _sha256(path: Path) -> str:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    return hashlib.sha256(path.read_bytes()).hexdigest()
