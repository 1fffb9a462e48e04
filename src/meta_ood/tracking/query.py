"""Find runs and model versions in the store by id, stage or hash. Nothing is written."""

import json
import re
from collections.abc import Mapping
from typing import Any

from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from meta_ood.tracking.description import texts
from meta_ood.tracking.location import without_password
from meta_ood.tracking.store import all_runs

# Metrics of an evaluation that stand on the version of its weights and in texts.
MAIN_METRICS = {"auroc": "AUROC", "auprc": "AUPRC", "fpr95": "FPR95", "miou": "mIoU"}


def evaluations(store: MlflowClient) -> list[tuple[tuple[str, str, str], dict[str, str], dict[str, float]]]:
    """Return the finished runs of `evaluate` that know their setting, newest first.

    Each is a cell (network, variant, dataset), its setting with the seed (or the group, where the setting is too long
    for a tag), and its metrics by name.
    """
    found = []
    for run in all_runs(store, "tags.stage = 'evaluate' and attributes.status = 'FINISHED'"):
        given, values = run.data.tags, run.data.metrics
        if "group" not in given:
            continue
        setting = json.loads(given["setting"]) if "setting" in given else {"group": given["group"]}
        metrics = {k.removeprefix("evaluate/"): v for k, v in values.items() if k.startswith("evaluate/")}
        cell = (given["network"], given["variant"], given["dataset"])
        found.append((cell, {**setting, "seed": run.data.params["seed"]}, metrics))
    return found


def run_of(store: MlflowClient, run_id: str) -> Run:
    """Return a run; ValueError if there is no such run."""
    try:
        return store.get_run(run_id)
    except MlflowException:
        raise ValueError(
            f"{run_id}: no such run in {without_password(store.tracking_uri)}; `meta-ood ui` shows them"
        ) from None


def version_of(store: MlflowClient, text: str) -> ModelVersion:
    """Return a model version from ``models:/name@alias``, ``models:/name/3`` or without models:/, else ValueError."""
    match = re.fullmatch(r"(?:models:/)?([^/@]+)(?:@([^/@]+)|/(\d+))", text)
    if match is None:
        raise ValueError(f"{text}: expected a file, a run id, NAME@ALIAS or NAME/VERSION")
    name, alias, number = match.groups()
    try:
        if alias:
            return store.get_model_version_by_alias(name, alias)
        return store.get_model_version(name, number)
    except MlflowException as error:
        raise ValueError(f"{text}: no such model version ({error.message}); `meta-ood ui` shows them") from None


def dataset_digests(run: Run) -> dict[str, str]:
    """Return path -> digest of a run's inputs."""
    inputs = run.inputs.dataset_inputs if run.inputs else []
    return {i.dataset.name: i.dataset.digest for i in inputs}


def is_of(run: Run, inputs: Mapping[str, str], params: Mapping[str, Any]) -> bool:
    """Return whether a run is complete and had these inputs (path -> digest) and parameters."""
    if run.info.status != "FINISHED" or "incomplete" in run.data.tags:
        return False
    had, params_had = dataset_digests(run), run.data.params
    same = all(had.get(path, "unversioned") in (digest[:36], "unversioned") for path, digest in inputs.items())
    return same and all(params_had.get(key, text) == text for key, text in texts(params).items())
