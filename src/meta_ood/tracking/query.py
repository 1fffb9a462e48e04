"""What the store knows: runs by id, stage or hash. Reads; writes nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from meta_ood.tracking import facts
from meta_ood.tracking.recording import preflight
from meta_ood.tracking.store import client

_PAGE = 1000


def open_store(root: Path) -> MlflowClient:
    """Return a client for the store of `root`.

    Raises
    ------
    TrackingError
        If the tracking server does not answer.
    """
    uri = facts.store_uri(root)
    preflight(uri)
    return client(uri, root.resolve())


def runs(store: MlflowClient, condition: str = "") -> Iterator[Run]:
    """Yield all runs of all experiments that fulfil `condition`, newest first."""
    experiments = [e.experiment_id for e in store.search_experiments()]
    token: str | None = ""
    while token is not None:
        page = store.search_runs(
            experiments, condition, max_results=_PAGE, page_token=token or None
        )
        yield from page
        token = page.token


def evaluations(
    store: MlflowClient,
) -> list[tuple[tuple[str, str, str], dict[str, str], dict[str, float]]]:
    """Return the finished runs of `evaluate` that know their setting, newest first.

    Returns
    -------
    Cell (network, variant, dataset); setting with the seed, or the group where the setting is too
    long for a tag; metric of metrics.json -> value.
    """
    found = []
    condition = "tags.stage = 'evaluate' and attributes.status = 'FINISHED'"
    for run in runs(store, condition):
        tags = run.data.tags
        if "group" not in tags:
            continue
        setting = json.loads(tags["setting"]) if "setting" in tags else {"group": tags["group"]}
        figures = {
            name.removeprefix("evaluate/"): value
            for name, value in run.data.metrics.items()
            if name.startswith("evaluate/")
        }
        cell = (tags["network"], tags["variant"], tags["dataset"])
        found.append((cell, {**setting, "seed": run.data.params["seed"]}, figures))
    return found


def run_of(store: MlflowClient, run_id: str) -> Run:
    """Return a run.

    Raises
    ------
    ValueError
        If there is no such run.
    """
    try:
        return store.get_run(run_id)
    except MlflowException:
        raise ValueError(f"{run_id}: no such run in {store.tracking_uri}") from None


def version_of(store: MlflowClient, text: str) -> ModelVersion:
    """Return a model version from ``models:/name@alias``, ``models:/name/3`` or without models:/.

    Raises
    ------
    ValueError
        If there is no such version.
    """
    match = re.fullmatch(r"(?:models:/)?([^/@]+)(?:@([^/@]+)|/(\d+))", text)
    if match is None:
        raise ValueError(f"{text}: expected a file, a run id, NAME@ALIAS or NAME/VERSION")
    name, alias, number = match.groups()
    try:
        if alias:
            return store.get_model_version_by_alias(name, alias)
        return store.get_model_version(name, number)
    except MlflowException as error:
        raise ValueError(f"{text}: no such model version ({error.message})") from None


def dataset_digests(run: Run) -> dict[str, str]:
    """Return path -> digest of a run's inputs."""
    inputs = run.inputs.dataset_inputs if run.inputs else []
    return {i.dataset.name: i.dataset.digest for i in inputs}


def is_of(run: Run, inputs: Mapping[str, str], params: Mapping[str, Any]) -> bool:
    """Say whether a finished run had these inputs (path -> digest) and these parameters."""
    if run.info.status != "FINISHED":
        return False
    had = dataset_digests(run)
    return all(
        had.get(path, "unversioned") in (digest[:36], "unversioned")
        for path, digest in inputs.items()
    ) and all(run.data.params.get(key, text) == text for key, text in facts.texts(params).items())
