"""The champion: a network's detector as one model, registered and found by its alias."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path

from mlflow.entities.model_registry import ModelVersion

from meta_ood import __version__
from meta_ood.config import Params
from meta_ood.pipeline import paths as layout
from meta_ood.tracking import query, registry, served

CHAMPION = "champion"


def promote(root: Path, params: Params, network: str, settings: str, variant: str) -> ModelVersion:
    """Pack the detector of a variant as one model, register it, and make it champion.

    The meta classifier is that of the gate's dataset. The same parts get no second version.

    Parameters
    ----------
    settings
        The detector's settings as JSON (score, threshold, infer).

    Raises
    ------
    ValueError
        If the weights in data/ are not registered.
    """
    store = query.open_store(root)
    dataset = params.tracking.champion.dataset
    weights = layout.stage_paths("infer", params, network, variant, dataset).inputs["weights"]
    meta = layout.stage_paths("meta", params, network, variant, dataset).outputs["meta"]
    hashes = registry.weight_tags(weights)
    origin = registry.find(store, network, {**hashes, "variant": variant})
    if origin is None or origin.run_id is None:
        raise ValueError(f"{weights} is no registered version of {network}: meta-ood sync")
    with tempfile.TemporaryDirectory() as folder:
        parts = {"settings": Path(folder, "settings.json")}
        parts["settings"].write_text(settings, encoding="utf-8")
        parts["classifier"] = meta / "classifier.json"
        tags = {
            "variant": variant,
            **hashes,
            "kind": "detector",
            "parts.sha256": registry.sha256_of(*parts.values()),
            "meta.dataset": dataset,
        }
        version = registry.find(store, network, tags)
        if version is None:
            model = Path(folder, "model")
            pack(model, {"weights": weights, **parts})
            files = {p.relative_to(model).as_posix(): p for p in model.rglob("*") if p.is_file()}
            description = origin.description or ""
            version = registry.add(store, network, origin.run_id, tags, files, description)
            for name, value in origin.tags.items():
                if name not in tags:
                    store.set_model_version_tag(network, version.version, name, value)
    store.set_registered_model_alias(network, CHAMPION, version.version)
    return version


def pack(folder: Path, parts: Mapping[str, Path]) -> None:
    """Write the detector made of `parts` (weights, settings, classifier) as an MLflow model."""
    code = folder.with_name("detector_model.py")
    code.write_text(served.CODE, encoding="utf-8")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's wish for an example of an image in numbers
        _save(folder, code, parts)


def _save(folder: Path, code: Path, parts: Mapping[str, Path]) -> None:
    from mlflow import pyfunc  # heavy, and not without warnings
    from mlflow.models import ModelSignature
    from mlflow.types import ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import AnyType, ColSpec

    pyfunc.save_model(
        str(folder),
        python_model=str(code),
        artifacts={name: str(path) for name, path in parts.items()},
        signature=ModelSignature(
            inputs=Schema([ColSpec(AnyType(), "image")]),  # type: ignore[no-untyped-call]
            params=ParamSchema([ParamSpec("maps", "boolean", True)]),
        ),
        pip_requirements=[f"meta-ood=={__version__}"],
    )
