"""The detector's folder: all files of one detector, without the network being built.

======================== ==================================================================
``detector.json``        settings, see :class:`Settings`, and the hash of each file below
``weights.safetensors``  the network
``classifier.json``      the meta classifier
``classifier.skops``     only for meta classifiers that JSON cannot hold
======================== ==================================================================

The folder is self-contained: it can be copied, registered and served as it is. This module imports
no torch, so that writing the folder takes no longer than copying its files.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors

from meta_ood.config import InferParams
from meta_ood.data import files

FORMAT = "meta-ood detector, version 1"
SETTINGS = "detector.json"
WEIGHTS = "weights.safetensors"
CLASSIFIER = "classifier.json"

_CLASSIFIER_NOTE = (
    "fitted on all segments of {0}; evaluate and the report judge each segment of {0} by a "
    "classifier fitted without its fold, so that single decisions differ"
)


@dataclass(frozen=True)
class Settings:
    """What a detector is besides its weights and its meta classifier.

    Attributes
    ----------
    network, variant
        Their names in params.yaml.
    class_names
        C names of the classes that the network knows.
    score, threshold
        Segments are where `score`, a key of ``SCORES``, reaches `threshold`.
    infer
        Precision and test-time averaging, as in params.yaml.
    meta_from
        Dataset on whose segments the meta classifier was fitted; "" without one.
    files
        File name -> SHA-256.
    """

    score: str
    threshold: float
    infer: InferParams = field(default_factory=InferParams)
    network: str = ""
    variant: str = ""
    class_names: tuple[str, ...] = ()
    meta_from: str = ""
    files: Mapping[str, str] = field(default_factory=dict)


def write_folder(
    folder: Path,
    weights: Path,
    meta: Path | None,
    *,
    score: str,
    threshold: float,
    infer: Mapping[str, Any],
    meta_from: str = "",
) -> None:
    """Write a detector's folder; ``detector.json`` comes last.

    Parameters
    ----------
    folder
        Where to; files of another detector in it are replaced.
    weights
        A weights file of this package.
    meta
        Folder with a ``classifier.json``, as the stage `meta` writes it; None for no classifier.
    score, threshold, meta_from
        See :class:`Settings`.
    infer
        The section `infer` of params.yaml as plain values.

    Raises
    ------
    ValueError
        If the weights are none of this package, or the classifier was fitted on segments of
        another score, threshold, network or variant.
    """
    described = _weights_metadata(weights)
    parts = {WEIGHTS: weights}
    if meta is not None:
        _check_classifier(meta / CLASSIFIER, described, score, threshold)
        parts |= {path.name: path for path in sorted(meta.glob("classifier.*"))}
    folder.mkdir(parents=True, exist_ok=True)
    # Without detector.json the folder is no detector: an interrupted writer leaves no mixture.
    (folder / SETTINGS).unlink(missing_ok=True)
    for old in folder.glob("classifier.*"):
        old.unlink()
    for name, source in parts.items():
        with files.replacing(folder / name) as temporary:
            shutil.copyfile(source, temporary)
    values = {
        "format": FORMAT,
        "network": described["name"],
        "variant": described["variant"],
        "architecture": described["architecture"],
        "class_names": list(described["class_names"]),
        "score": score,
        "threshold": threshold,
        "infer": dict(infer),
        "meta_from": meta_from,
        "classifier": _CLASSIFIER_NOTE.format(meta_from) if meta is not None else "",
        "files": {name: files.file_hash(folder / name) for name in parts},
    }
    files.write_json(folder / SETTINGS, values)


def read_settings(folder: Path) -> Settings:
    """Read ``detector.json`` and check that the other files are those that it names.

    Raises
    ------
    FileNotFoundError
        If the folder or one of its files is missing.
    ValueError
        If ``detector.json`` is damaged, or a file was replaced, for instance by the meta
        classifier of another network; the file is named.
    """
    path = folder / SETTINGS
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such file; a detector's folder is written by the stage `detector` "
            "(data/detectors/NETWORK/VARIANT) or downloaded from the registry"
        )
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            raise ValueError(f"expected JSON with format {FORMAT!r}")
        infer = values["infer"]
        settings = Settings(
            score=str(values["score"]),
            threshold=float(values["threshold"]),
            infer=InferParams(**{**infer, "scales": tuple(infer["scales"])}),
            network=str(values["network"]),
            variant=str(values["variant"]),
            class_names=tuple(str(name) for name in values["class_names"]),
            meta_from=str(values["meta_from"]),
            files={Path(str(k)).name: str(v) for k, v in values["files"].items()},
        )
    except KeyError as error:
        raise ValueError(f"{path} is no detector: {error} is missing") from None
    except (AttributeError, RecursionError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no detector: {error}") from None
    for name, expected in settings.files.items():
        if files.file_hash(folder / name) != expected:
            raise ValueError(
                f"{folder / name} is not the file that {path} describes (its hash differs): "
                "run the stage `detector` again instead of replacing files"
            )
    return settings


def _weights_metadata(path: Path) -> dict[str, Any]:
    """Return what a weights file says about its network; numpy's reader needs no torch."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such weights file")
    try:
        with safetensors.safe_open(path, "numpy") as file:
            values: dict[str, Any] = json.loads((file.metadata() or {})["meta_ood"])
        return {name: values[name] for name in ("name", "variant", "architecture", "class_names")}
    except Exception as error:  # the library raises its own errors besides KeyError and OSError
        raise ValueError(f"{path}: not a weights file of meta-ood: {error}") from None


def _check_classifier(
    path: Path, described: Mapping[str, Any], score: str, threshold: float
) -> None:
    """Refuse a meta classifier that was fitted for another detector."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        fitted_on = (values["score"] or score, values["threshold"])
        owner = (values.get("network") or described["name"], values.get("variant"))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not a meta classifier: {error!r}") from None
    if fitted_on[0] != score or fitted_on[1] not in (None, threshold):
        raise ValueError(
            f"{path} was fitted on segments of {fitted_on[0]} >= {fitted_on[1]}, "
            f"not of {score} >= {threshold}: run the stages segments and meta again"
        )
    if owner[0] != described["name"] or owner[1] not in (None, "", described["variant"]):
        raise ValueError(
            f"{path} was fitted on segments of {'/'.join(map(str, owner))}, not of "
            f"{described['name']}/{described['variant']}"
        )
