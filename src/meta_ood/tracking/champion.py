"""The champion: a network's detector as one model, registered and found by its alias."""

import tempfile
from pathlib import Path

from mlflow.entities.model_registry import ModelVersion

from meta_ood.data.files import file_hash
from meta_ood.detector.folder import SETTINGS, WEIGHTS, read_settings
from meta_ood.tracking import card, registry, served
from meta_ood.tracking.store import open_store
from meta_ood.tracking.wheel import running_version

CHAMPION = "champion"


def promote(root: Path, network: str, variant: str, detector: Path) -> ModelVersion:
    """Register the folder that the stage `detector` wrote as one model, if it is not yet, and make it champion.

    ValueError if its weights are not registered or a file of the folder was replaced; FileNotFoundError without it.
    """
    # 1. the version of its weights, which training has registered
    store = open_store(root)
    settings = read_settings(detector)
    hashes = registry.weight_tags(detector / WEIGHTS)
    origin = next(iter(registry.find(store, network, {**hashes, "variant": variant})), None)
    if origin is None or origin.run_id is None:
        raise ValueError(f"{detector / WEIGHTS} is no registered version of {network}; `meta-ood sync` registers it")
    # 2. the version of the detector, new if there is none with these hashes
    tags = {
        "variant": variant,
        **hashes,
        "kind": "detector",
        "detector.sha256": file_hash(detector / SETTINGS),
        "meta.dataset": settings.meta_from,
        "package": running_version(),  # its code is in the version
    }
    version = next(iter(registry.find(store, network, tags)), None)
    if version is None:
        with tempfile.TemporaryDirectory() as folder:
            model = Path(folder, "model")
            served.pack(model, detector)
            files = {p.relative_to(model).as_posix(): p for p in model.rglob("*") if p.is_file()}
            description = card.with_promise(origin.description or "", settings.promise)
            version = registry.add(store, network, origin.run_id, tags, files, description)
        # results of evaluations, so that the registry's table shows them for the champion too
        for name, value in origin.tags.items():
            if name not in tags:
                store.set_model_version_tag(network, version.version, name, value)
    store.set_registered_model_alias(network, CHAMPION, version.version)
    return version
