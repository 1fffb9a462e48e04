"""The model registry: one registered model a network, versions found by the hash of their weights.

A version is tagged with ``variant``, ``weights.md5`` (as in dvc.lock) and ``weights.sha256`` (as in
predictions and metrics). What an evaluation finds is written on the version of its weights: metrics
of its logged model, tags for the registry's table, and a line of its model card.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any

from mlflow.entities import LoggedModelOutput, Metric, RunTag
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from meta_ood.tracking import card, facts
from meta_ood.tracking.journal import Event

_ON_VERSION = ("auroc", "auprc", "fpr95", "miou")


def register(store: MlflowClient, run_id: str, weights: Path, event: Event, start: Event) -> None:
    """Register `weights` as a version of the model named after the network.

    Weights that are registered already get no second version. The alias named after the variant
    moves to them if they lie where the pipeline puts them and are not those of an experiment.
    """
    network, variant = start["tags"]["network"], event["variant"]
    tags = {"variant": variant, **weight_tags(weights)}
    store.log_batch(run_id, tags=[RunTag(k, v) for k, v in tags.items() if k != "variant"])
    version = find(store, network, tags)
    if version is None:
        folder = {f"{variant}.safetensors": weights}
        text = card.write({**describe(network, start), **tags})
        version = add(store, network, run_id, tags, folder, text)
    if event["path"].startswith("data/") and "dvc.exp.name" not in start["tags"]:
        store.set_registered_model_alias(network, variant, version.version)


def find(store: MlflowClient, network: str, tags: dict[str, str]) -> ModelVersion | None:
    """Return the newest version of `network` that has all `tags`, or None."""
    found = [v for v in versions(store, network) if tags.items() <= v.tags.items()]
    return found[0] if found else None


def versions(store: MlflowClient, network: str) -> list[ModelVersion]:
    """Return the versions of a registered model, newest first."""
    found = list(store.search_model_versions(f"name = '{network}'"))
    return sorted(found, key=lambda version: -int(version.version))


def add(
    store: MlflowClient,
    network: str,
    run_id: str,
    tags: dict[str, str],
    files: dict[str, Path],
    text: str,
) -> ModelVersion:
    """Make a version of `network` from `files` (name -> path) and the model card `text`."""
    try:
        store.create_registered_model(network, {"network": network}, card.about(network))
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    experiment = store.get_run(run_id).info.experiment_id
    model = store.create_logged_model(experiment, network, run_id, tags, model_type="weights")
    with tempfile.TemporaryDirectory() as folder:
        for name, path in files.items():
            _link(path, Path(folder, name))
        Path(folder, card.NAME).write_text(text, encoding="utf-8")
        store.log_model_artifacts(model.model_id, folder)
    store.finalize_logged_model(model.model_id, "READY")
    store.log_outputs(run_id, [LoggedModelOutput(model.model_id, 0)])
    return store.create_model_version(
        network,
        model.artifact_location,
        run_id,
        tags,
        description=text,
        model_id=model.model_id,
    )


def describe(network: str, start: Event) -> dict[str, Any]:
    """Return what a journal's first event says for the model card."""
    chosen = ("git.sha", "git.dirty", "dvc.stage", "dvc.exp.name")
    return {
        "network": network,
        "made by": start["name"],
        **{name: start["tags"][name] for name in chosen if name in start["tags"]},
        "params": start["params"],
        "inputs": start["inputs"],
    }


def note_evaluation(store: MlflowClient, run_id: str, event: Event, start: Event) -> None:
    """Write what an evaluation found on the version of its weights, if that is registered."""
    tags, values = start["tags"], event["values"]
    network, dataset = tags["network"], tags["dataset"]
    wanted = {"weights.sha256": event["weights_sha256"]}
    store.log_batch(run_id, tags=[RunTag(k, v) for k, v in wanted.items()])
    for version in versions(store, network):
        if not wanted.items() <= version.tags.items():
            continue
        digest = next((i["digest"] for i in start["inputs"] if i["name"] == "prepared"), "")
        metrics = [
            Metric(
                f"{dataset}/{name}",
                float(values[name]),
                event["time"],
                0,
                model_id=version.model_id,
                dataset_name=dataset if digest else None,
                dataset_digest=digest[:36] or None,
            )
            for name in _ON_VERSION
            if isinstance(values.get(name), int | float)
        ]
        if version.model_id:
            store.log_batch(run_id, metrics=metrics)
        for metric in metrics:
            store.set_model_version_tag(
                network, version.version, metric.key.replace("/", "."), f"{metric.value:.4f}"
            )
        _refresh_card(store, version, dataset, values, run_id)


def _refresh_card(
    store: MlflowClient, version: ModelVersion, dataset: str, values: dict[str, Any], run_id: str
) -> None:
    text = card.with_evaluation(version.description or "", dataset, values, run_id)
    store.update_model_version(version.name, version.version, text)
    version.description = text
    if version.model_id:
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, card.NAME).write_text(text, encoding="utf-8")
            store.log_model_artifacts(version.model_id, folder)


def weight_tags(weights: Path) -> dict[str, str]:
    """Return the hashes by which a version is found."""
    return {"weights.md5": facts.file_md5(weights), "weights.sha256": sha256_of(weights)}


def sha256_of(*paths: Path) -> str:
    """Return the SHA-256 of the bytes of files, one after another."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _link(path: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(path, to)
    except OSError:  # another disk
        to.write_bytes(path.read_bytes())
