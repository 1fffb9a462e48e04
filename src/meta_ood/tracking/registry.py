"""The model registry: one registered model a network, versions found by the hash of their weights.

A version is tagged with ``variant``, ``weights.md5`` (as in dvc.lock) and ``weights.sha256`` (as in predictions and
metrics). The results of an evaluation go to the version of its weights: metrics of its logged model, tags for the
registry's table, and a row of its model card.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

from mlflow.entities import LoggedModelOutput, Metric, RunTag
from mlflow.entities.model_registry import ModelVersion
from mlflow.tracking import MlflowClient

from meta_ood.data.files import file_hash
from meta_ood.tracking import card, query
from meta_ood.tracking.description import RunDescription
from meta_ood.tracking.store import created_once


def register(store: MlflowClient, run_id: str, weights: Path, about: RunDescription, step: int = 0) -> None:
    """Register `weights`, those at a step, as a version of the model named after the network, if they have none yet.

    The alias named after the variant moves to them if they lie below data/ and are not those of an experiment.
    """
    network, variant = about.keys["network"], weights.stem
    hashes = weight_tags(weights)
    store.log_batch(run_id, tags=[RunTag(name, text) for name, text in hashes.items()])
    tags = {"variant": variant, **hashes}
    version = next(iter(find(store, network, tags)), None)
    if version is None:
        text = card.new_card(network, variant, about, hashes)
        version = add(store, network, run_id, tags, {weights.name: weights}, text, step)
    if weights.parts[0] == "data" and "dvc.exp.name" not in about.tags:
        store.set_registered_model_alias(network, variant, version.version)


def find(store: MlflowClient, network: str, tags: dict[str, str]) -> list[ModelVersion]:
    """Return the versions of `network` that have all `tags`, newest first."""
    found = [v for v in store.search_model_versions(f"name = '{network}'") if tags.items() <= v.tags.items()]
    return sorted(found, key=lambda version: -int(version.version))


def add(
    store: MlflowClient,
    network: str,
    run_id: str,
    tags: dict[str, str],
    files: dict[str, Path],
    text: str,
    step: int = 0,
) -> ModelVersion:
    """Make a version of `network` from `files` (name -> path), made at a step of the run, and the model card `text`."""
    about = "Weights and detectors of one network; each version has a model card as description."
    with created_once():
        store.create_registered_model(network, {"network": network}, about)
    # the files belong to a logged model of the run; the version refers to it
    experiment = store.get_run(run_id).info.experiment_id
    model = store.create_logged_model(experiment, network, run_id, tags, model_type="weights")
    for name, path in files.items():
        folder = name.rpartition("/")[0] or None
        store.log_model_artifact(model.model_id, str(path), folder)
    _write_card(store, model.model_id, text)
    store.finalize_logged_model(model.model_id, "READY")
    store.log_outputs(run_id, [LoggedModelOutput(model.model_id, step)])
    return store.create_model_version(
        network, model.artifact_location, run_id, tags, description=text, model_id=model.model_id
    )


def write_evaluation(store: MlflowClient, run_id: str, values: dict[str, Any], about: RunDescription) -> None:
    """Write the metrics of an evaluation to the versions of its weights, if there are any."""
    network, dataset = about.keys["network"], about.keys["dataset"]
    wanted = {"weights.sha256": values["weights"]}
    store.log_batch(run_id, tags=[RunTag(name, text) for name, text in wanted.items()])
    # MLflow takes 36 characters of a digest: an md5 and ".dir"
    digest = next((entry.digest for entry in about.inputs if entry.name == "prepared"), "")[:36]
    for version in find(store, network, wanted):  # the weights, and detectors that contain them
        known = [n for n in query.MAIN_METRICS if isinstance(values.get(n), int | float)]
        data = (dataset, digest) if digest else (None, None)
        now = time.time_ns() // 1_000_000
        metrics = [Metric(f"{dataset}/{n}", float(values[n]), now, 0, version.model_id, *data) for n in known]
        for metric in metrics:
            store.set_model_version_tag(network, version.version, metric.key.replace("/", "."), f"{metric.value:.4f}")
        text = card.with_evaluation(version.description or "", dataset, values, run_id)
        store.update_model_version(network, version.version, text)
        if version.model_id:
            store.log_batch(run_id, metrics=metrics)
            _write_card(store, version.model_id, text)


def _write_card(store: MlflowClient, model_id: str, text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, card.NAME)
        file.write_text(text, encoding="utf-8")
        store.log_model_artifact(model_id, str(file))


def weight_tags(weights: Path) -> dict[str, str]:
    """Return the hashes by which a version is found."""
    return {"weights.md5": file_hash(weights, "md5"), "weights.sha256": file_hash(weights)}
