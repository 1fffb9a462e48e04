"""The store itself: runs, datasets, files and models written through one MLflow client."""

from __future__ import annotations

import functools
import getpass
import logging
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import mlflow
from filelock import FileLock
from mlflow.entities import (
    Dataset,
    DatasetInput,
    InputTag,
    Metric,
    Param,
    RunTag,
)
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from meta_ood.tracking import notes, registry
from meta_ood.tracking.journal import Event, Journal

logger = logging.getLogger(__name__)

_BATCH = 900  # the store takes at most 1000 metrics at once
_MAX_PARAM = 6000


@functools.cache
def client(uri: str, root: Path) -> MlflowClient:
    """Return a client for `uri`; the first access of all processes goes one by one.

    A fresh database is made by the first access, and several at once break it.
    """
    mlflow.set_tracking_uri(uri)
    with FileLock(root / ".mlflow.lock"):
        store = MlflowClient(uri)
        store.search_experiments(max_results=1)
    return store


def experiment_id(store: MlflowClient, name: str, uri: str, root: Path) -> str:
    """Return the id of experiment `name`, made with an absolute place for files if it is new."""
    found = store.get_experiment_by_name(name)
    if found is None:
        local = uri.startswith("sqlite:")
        try:
            place = (root / "mlartifacts").as_uri() if local else None
            tags = {
                "mlflow.experimentKind": "custom_model_development",  # runs first, not chats
                "mlflow.note.content": notes.EXPERIMENT,
            }
            return str(store.create_experiment(name, artifact_location=place, tags=tags))
        except MlflowException:  # another process was faster
            found = store.get_experiment_by_name(name)
            if found is None:
                raise
    return str(found.experiment_id)


def write(journal: Journal, start: Event, run_id: str | None, events: Sequence[Event]) -> str:
    """Write `events` of a journal that began with `start`; return the run's id.

    Parameters
    ----------
    run_id
        The run, if an earlier call has opened it.
    """
    root = Path(start["root"])
    store = client(start["uri"], root)
    if run_id is None:
        run_id = _open(store, start, root)
    metrics: list[Metric] = []
    for event in events:
        if event["kind"] == "metrics":
            metrics += [
                Metric(key=name, value=value, timestamp=event["time"], step=event["step"])
                for name, value in event["values"].items()
            ]
    for first in range(0, len(metrics), _BATCH):
        store.log_batch(run_id, metrics=metrics[first : first + _BATCH])
    with tempfile.TemporaryDirectory(dir=journal.folder) as folder:
        stage = Path(folder, "files")
        for event in events:
            if event["kind"] == "file":
                to = stage / event["to"]
                to.parent.mkdir(parents=True, exist_ok=True)
                os.link(journal.folder / event["file"], to)
        if stage.is_dir():
            store.log_artifacts(run_id, str(stage))
    for event in events:
        if event["kind"] == "tag":
            store.log_batch(run_id, tags=[RunTag(k, v) for k, v in event["tags"].items()])
        elif event["kind"] == "model":
            registry.register(store, run_id, journal.folder / event["file"], event, start)
        elif event["kind"] == "evaluation":
            registry.note_evaluation(store, run_id, event, start)
        elif event["kind"] == "end":
            if text := notes.describe(start, journal.events(), run_id):
                store.set_tag(run_id, "mlflow.note.content", text)
            store.set_terminated(run_id, event["status"], event["time"])
    return run_id


def _open(store: MlflowClient, start: Event, root: Path) -> str:
    """Make the run that `start` describes, or take the one that it names."""
    tags = {
        "mlflow.source.name": f"meta_ood {start['tags']['stage']}",
        "mlflow.source.type": "LOCAL",
        "mlflow.user": _user(),
        **start["tags"],
    }
    if "git.sha" in tags:
        tags["mlflow.source.git.commit"] = tags["git.sha"]
    if start["run_id"]:
        run_id = str(start["run_id"])
        tags |= {"mlflow.runName": start["name"]}
    else:
        if start["parent"]:
            experiment = store.get_run(start["parent"]).info.experiment_id
            tags["mlflow.parentRunId"] = start["parent"]
        else:
            experiment = experiment_id(store, start["experiment"], start["uri"], root)
        run = store.create_run(experiment, start["time"], {}, start["name"])
        run_id = str(run.info.run_id)
    params = [Param(k, v[:_MAX_PARAM]) for k, v in start["params"].items()]
    store.log_batch(run_id, params=params, tags=[RunTag(k, str(v)) for k, v in tags.items()])
    store.log_inputs(
        run_id,
        [
            DatasetInput(
                Dataset(entry["path"], entry["digest"][:36], "local", entry["path"]),
                [InputTag("mlflow.data.context", entry["name"])],
            )
            for entry in start["inputs"]
        ],
    )
    return run_id


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return "unknown"
