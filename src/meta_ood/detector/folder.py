"""The detector's folder: all files of one detector, in a place that can be copied and registered.

- ``detector.json``: :class:`Settings`, with the hash of each other file
- ``weights.safetensors``: the network
- ``statistics.safetensors``: what the scores that the stage `infer` stores know of training frames, if there are any
- ``member-1.safetensors`` and so on: the other networks of an ensemble, if there are any
- ``classifier.json``, and ``classifier.skops`` where JSON cannot hold it: the meta classifier

This module imports no torch, so that writing the folder takes no longer than copying its files.
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import safetensors
from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from meta_ood.config import InferParams
from meta_ood.data import files
from meta_ood.meta_classification import MetaClassifier
from meta_ood.meta_classification.promise import Promise
from meta_ood.scores import LOGITS, SCORES, fitted_scores
from meta_ood.segments.features import scores_of

SETTINGS, WEIGHTS, CLASSIFIER = "detector.json", "weights.safetensors", "classifier.json"
STATISTICS = "statistics.safetensors"
MEMBER = "member-{}.safetensors"  # from 1
FileName = Annotated[
    str, StringConstraints(pattern=r"^(weights|statistics|member-[1-9]\d*)\.safetensors$|^classifier\.(json|skops)$")
]


class Settings(BaseModel):
    """The contents of ``detector.json``: a detector's settings, without its weights and meta classifier."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    format: Literal["meta-ood detector, version 1"] = "meta-ood detector, version 1"
    network: str = ""  # its name in params.yaml, as that of the variant
    variant: str = ""
    class_names: tuple[str, ...] = ()  # of the C classes that the network predicts
    score: str  # a key of SCORES; segments are where it reaches the threshold
    threshold: float
    infer: InferParams = InferParams()  # precision and test-time averaging, as in params.yaml
    # dataset on whose segments the meta classifier was fitted, several with + between; "" without one
    meta_from: str = ""
    promise: Promise | None = None  # a threshold on severity, and how many false alarms it promises
    files: dict[FileName, str] = {}  # SHA-256


def write_folder(
    folder: Path,
    weights: Path,
    meta: Path | None,
    settings: Settings,
    statistics: Path | None = None,
    members: Sequence[Path] = (),
) -> None:
    """Write a detector's folder; files of a detector that is there already are replaced.

    Args:
        folder: Where to.
        weights: A weights file of this package; its metadata and the hashes of all files are added to the settings.
        meta: Folder of the meta classifier, as the stage `meta` writes it; None for no classifier.
        settings: Score, threshold, infer, meta_from and promise.
        statistics: What the stage `statistics` wrote; some scores in ``infer.scores`` need it.
        members: The weights files of ``infer.repetition.weights``, in this order.

    ValueError if `weights` was not written by this package, or the meta classifier was fitted for another detector.
    """
    settings = settings.model_copy(update=_weights_metadata(weights))
    parts = {WEIGHTS: weights}
    if statistics and fitted_scores(settings.infer.scores):
        parts[STATISTICS] = statistics
    parts |= {MEMBER.format(number): path for number, path in enumerate(members, start=1)}
    if meta is not None:
        check_classifier(MetaClassifier.read(meta / CLASSIFIER), settings)
        parts |= {path.name: path for path in sorted(meta.glob("classifier.*"))}
    # 1. without detector.json the folder is no detector: an interrupted writer leaves no mixture
    for old in (folder / SETTINGS, folder / STATISTICS, *folder.glob("classifier.*"), *folder.glob("member-*")):
        old.unlink(missing_ok=True)
    # 2. the parts
    for name, source in parts.items():
        with files.replacing(folder / name) as temporary:
            shutil.copyfile(source, temporary)
    # 3. detector.json, with their hashes
    settings = settings.model_copy(update={"files": {name: files.file_hash(folder / name) for name in parts}})
    files.write_text(folder / SETTINGS, settings.model_dump_json(indent=1) + "\n")


def read_settings(folder: Path) -> Settings:
    """Read ``detector.json`` and check that the other files are those that it names.

    FileNotFoundError if a file is missing, ValueError if ``detector.json`` is damaged or another file was replaced; it
    is named.
    """
    path = folder / SETTINGS
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such file; a detector's folder is written by the stage `detector` "
            "(data/detectors/NETWORK/VARIANT) or downloaded from the registry"
        )
    try:
        settings = Settings.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{path} is no detector: {'.'.join(map(str, first['loc']))} {first['msg']}") from None
    if WEIGHTS not in settings.files:
        raise ValueError(f"{path} is no detector: the hash of {WEIGHTS} is missing")
    for name, expected in settings.files.items():
        if files.file_hash(folder / name) != expected:
            raise ValueError(
                f"{folder / name} is not the file that {path} describes (its hash differs): "
                "run the stage `detector` again instead of replacing files"
            )
    return settings


def check_classifier(classifier: MetaClassifier, settings: Settings) -> None:
    """Refuse a meta classifier that was fitted on segments of a different network, score, threshold or other scores."""
    of_maps = [name for name in scores_of(classifier.feature_names) if SCORES[name].source != LOGITS]
    if missing := ", ".join(name for name in of_maps if name not in settings.infer.scores):
        raise ValueError(f"the meta classifier takes features of {missing}: add {missing} to infer.scores")
    detector = settings.network, settings.variant, settings.class_names, settings.score, settings.threshold
    if found := classifier.differences(*detector):
        raise ValueError("; ".join(found))


def _weights_metadata(path: Path) -> dict[str, Any]:
    """Return network, variant and classes of a weights file; numpy's reader needs no torch."""
    try:
        with safetensors.safe_open(path, "numpy") as file:
            values = json.loads((file.metadata() or {})["meta_ood"])
        names = tuple(map(str, values["class_names"]))
        return {"network": str(values["name"]), "variant": str(values["variant"]), "class_names": names}
    except Exception as error:  # the library raises its own errors besides KeyError and OSError
        raise ValueError(f"{path}: not a weights file of meta-ood: {error}") from None
