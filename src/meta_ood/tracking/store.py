"""The store of runs and models: opened, made where there is none, and cleared of dead runs."""

import fcntl
import logging
import os
import re
import secrets
import sqlite3
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from hashlib import sha256
from pathlib import Path

from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from meta_ood.data.files import replacing
from meta_ood.tracking.location import TrackingError, database_of, short_reason, store_uri, without_password

_EXPERIMENT_NOTE = """\
One run per stage. `tags.stage = "evaluate"` shows the results: group by `network` or `dataset`, or select the baseline
and ood_trained runs of a dataset and compare. Charts under `evaluate/` compare variants, those under `scores/` compare
scores. Trainings have the load of the machine under System metrics. Evaluations carry the parameters of the training
that they evaluate, so `train.ood_weight` can be an axis of a chart.
"""
_RUNNING = Path(".meta_ood", "running")  # below the root: the files of RunningMark
# Columns of MLflow's schema that hold absolute places of files.
_PLACES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)


def open_store(root: Path) -> MlflowClient:
    """Return a client for the store of the repository at `root`; a local one is made if missing.

    TrackingError if the store cannot be used; the message names its address without the password.
    """
    uri = store_uri(root)
    database = database_of(uri)
    # MLflow logs every table that it makes, urllib3 every attempt
    levels = {"mlflow": "WARNING", "alembic": "WARNING", "urllib3": "ERROR", "mlflow.store.db.utils": "CRITICAL"}
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    # at the end of a run MLflow would print the server's address with name and password
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
    try:
        if database:
            with exclusive(database.with_name(".mlflow.lock")):
                _create(database)
                _correct_places(database)
        with short_waits():
            store = MlflowClient(uri)
            store.search_experiments(max_results=1)
    except Exception as error:  # whatever MLflow, SQLAlchemy, a driver or requests raise
        cure = "start the server, or correct MLFLOW_TRACKING_URI, or unset it for the local store"
        if database:
            cure = "if the file is damaged, move it away and run `meta-ood sync`, which restores the runs in dvc.lock"
        what = f"{without_password(uri)}: the tracking store cannot be used ({short_reason(error)})"
        raise TrackingError(f"{what}; {cure}") from error
    return store


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the lock file `path`; TimeoutError if another process holds it for two minutes."""
    path.parent.mkdir(exist_ok=True)
    with path.open("a") as file:
        _share(path)
        end = time.monotonic() + 120  # making a database takes 5 s: after this time the other process hangs
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise TimeoutError(f"another process holds {path}: wait for it or stop it") from None
                time.sleep(0.1)
        yield


def _share(path: Path) -> None:
    """Let the group write `path` if it may write into its folder: a clone may belong to a group."""
    group = path.parent.stat().st_mode & (0o070 if path.is_dir() else 0o060)
    with suppress(PermissionError):  # of another user, who has done it
        path.chmod(path.stat().st_mode | group)


@contextmanager
def short_waits() -> Iterator[None]:
    """Let requests to a server fail in seconds; by default MLflow tries for many minutes."""
    limits = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
    mine = {name: value for name, value in limits.items() if name not in os.environ}
    os.environ.update(mine)
    try:
        yield
    finally:
        for name in mine:
            os.environ.pop(name, None)


def _create(database: Path) -> None:
    """Make the database if it is missing. It gets its name when it is complete: MLflow cannot use half of one."""
    if database.exists():
        return
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    # SQLite's journal of a process that was killed; the caller's lock keeps other processes out
    for left in database.parent.glob(f".{database.name}.*.tmp-journal"):
        left.unlink()
    with replacing(database) as temporary:
        artifacts = (database.parent / "mlruns").as_uri()
        uri = f"sqlite:///{temporary.resolve()}"
        SqlAlchemyStore(uri, artifacts).engine.dispose()  # type: ignore[no-untyped-call]
        _share(temporary)


def _correct_places(database: Path) -> None:
    """Make the places of files in a database follow their folder, if that was moved or copied.

    MLflow stores absolute places: new runs of a copied clone would write into the old one. Files lie beside the
    database, so what precedes ``/mlartifacts`` or ``/mlruns`` must be its folder. If it is another one, it is corrected
    when the files are in this folder too, or no longer in the other.
    """
    folder = database.resolve().parent
    with closing(sqlite3.connect(database, timeout=20)) as connection, connection:
        for (place,) in connection.execute("SELECT DISTINCT artifact_location FROM experiments").fetchall():
            found = re.fullmatch(r"((?:file://)?(/.*?))(/(?:mlartifacts|mlruns).*)", place or "")
            if not found or Path(found[2]) == folder:
                continue
            old, rest = found[1], found[3]
            came_along = (folder / rest[1:].split("/")[0]).exists()
            if not came_along and Path(found[2]).exists():
                continue
            new = folder.as_uri() if old.startswith("file://") else str(folder)
            for table, column in _PLACES:
                update = f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?"
                connection.execute(update, (new, len(old) + 1, len(old) + 1, f"{old}/"))


def experiment_id(store: MlflowClient, name: str) -> str:
    """Return the id of experiment `name`, which is made if it is new; TrackingError if it was deleted."""
    found = store.get_experiment_by_name(name)
    if found is None:
        database = database_of(store.tracking_uri)
        place = database.resolve().parent / "mlartifacts" if database else None
        if place and not place.exists():
            place.mkdir(exist_ok=True)
            _share(place)
        tags = {"mlflow.experimentKind": "custom_model_development", "mlflow.note.content": _EXPERIMENT_NOTE}
        with created_once():
            store.create_experiment(name, place.as_uri() if place else None, tags)
        return experiment_id(store, name)
    if found.lifecycle_stage != "active":
        restore = f"mlflow experiments restore --experiment-id {found.experiment_id}"
        raise TrackingError(f"experiment {name} was deleted; {restore}, or set another tracking.experiment")
    return str(found.experiment_id)


@contextmanager
def created_once() -> Iterator[None]:
    """Ignore MLflow's error that an experiment or model exists: another process has created it just now."""
    try:
        yield
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def ui_address(server: str, experiment: str, stage: str = "") -> str:
    """Return the address at which MLflow's UI shows the runs of an experiment (its id), of a stage as charts."""
    wanted = urllib.parse.quote(f'tags.stage = "{stage}"')
    charts = f"&searchFilter={wanted}&compareRunsMode=CHART" if stage else ""
    # without workflowType the UI opens in the mode that it used last, at first that of chats
    return f"{server.rstrip('/')}/#/experiments/{experiment}/runs?workflowType=machine_learning{charts}"


class RunningMark:
    """A file that stays locked while this process writes the run tagged `process` = `token`."""

    def __init__(self, uri: str, root: Path) -> None:
        self.token = f"{_short_hash(uri)}-{secrets.token_hex(8)}"
        self._path = root / _RUNNING / self.token
        for folder in (self._path.parent.parent, self._path.parent):
            folder.mkdir(exist_ok=True)
            _share(folder)
        # it gets its name when it is locked: end_dead_runs must not take it for that of a dead run
        hidden = self._path.with_name(f".{self.token}")
        self._file = hidden.open("x")
        fcntl.flock(self._file, fcntl.LOCK_EX)
        hidden.rename(self._path)

    def remove(self) -> None:
        """Remove the file: the run has ended in the store too."""
        self._path.unlink(missing_ok=True)
        self._file.close()


def _short_hash(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:8]


def all_runs(store: MlflowClient, condition: str = "") -> Iterator[Run]:
    """Yield the runs of all experiments that fulfil `condition`, newest first."""
    experiments = [e.experiment_id for e in store.search_experiments()]
    token: str | None = ""
    while token is not None:
        page = store.search_runs(experiments, condition, page_token=token or None)
        yield from page
        token = page.token


def end_dead_runs(store: MlflowClient, root: Path) -> int:
    """Set runs whose process is gone to KILLED, and return how many there were."""
    ended = 0
    for path in (root / _RUNNING).glob(f"{_short_hash(store.tracking_uri)}-*"):
        with suppress(OSError), path.open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # OSError: its process lives
            for run in all_runs(store, f"tags.process = '{path.name}'"):
                if run.info.status == "RUNNING":
                    store.set_terminated(run.info.run_id, "KILLED")
                    ended += 1
            path.unlink()
    return ended
