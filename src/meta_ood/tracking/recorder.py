"""The context manager `run`, in which a stage records its run. No error of the store stops the stage."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from meta_ood.tracking import location

if TYPE_CHECKING:
    from mlflow.entities import Metric

    from meta_ood.tracking.runs import OpenRun

logger = logging.getLogger(__name__)

# Under DVC these write their runs themselves: a training lasts much longer than the 3 s that it takes to import mlflow
# and to open the store, and its curves are worth watching. `report` imports it anyway, to record the stages before it.
_LIVE = ("pretrain", "train", "report")
_WRITE_SECONDS = 1.0  # between two writes of curves
_SYSTEM_SECONDS = 10.0  # between two looks at processors, memory and GPUs, as in MLflow
_RETRY_SECONDS = 30.0  # until the first attempt after a failure; the time doubles with each failure


class Recorder:
    """Logs numbers and outputs of a stage to its run, or does nothing if there is no run."""

    def __init__(self) -> None:
        self.run: OpenRun | None = None
        self._waiting: list[Metric] = []
        self._next_write = 0.0
        self._next_look = 0.0
        self._failures = 0
        self._incomplete = False

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Log numbers at a step; they are kept until the store has taken them."""
        if self.run is None:
            return
        from meta_ood.tracking.runs import metrics_at

        self._waiting += metrics_at(values, step)
        if time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + _SYSTEM_SECONDS
            self.attempt("the load of the machine", self._look, step)
        if time.monotonic() >= self._next_write:
            self._write()

    def _look(self, step: int) -> None:
        from meta_ood.tracking.runs import metrics_at

        if self.run is not None:
            self._waiting += metrics_at(self.run.system(), step)

    def outputs(self, outputs: Mapping[str, Path]) -> None:
        """Log what the stage wrote, by keyword.

        ``metrics`` and any metrics.json give metrics that the stage has not logged itself, ``weights`` a version of the
        registered model named after the network; pictures, pages and curves are logged as files. DVC has the rest.
        """
        if self.run is not None:
            self._write()
            self._incomplete |= not self.attempt("the outputs", self.run.outputs, outputs)

    def end(self, status: str) -> None:
        """Write what is left and end the run."""
        if self.run is None:
            return
        self._write()
        if self._incomplete:
            # `sync` looks at this tag and records the stage again
            self.attempt("the tag incomplete", self.run.tag, {"incomplete": "outputs"})
        self.attempt("the end of the run", self.run.end, status)

    def _write(self) -> None:
        from meta_ood.tracking.store import short_waits

        if self.run is None or not self._waiting:
            return
        with short_waits():  # a training must not wait for minutes for a store that does not answer
            done = self.attempt(f"{len(self._waiting)} values of curves", self.run.log, self._waiting)
        if done:
            self._waiting, self._failures, pause = [], 0, _WRITE_SECONDS
        else:
            pause = _RETRY_SECONDS * 2**self._failures
            self._failures += 1
        self._next_write = time.monotonic() + pause

    def attempt(self, what: str, action: Callable[..., object], *arguments: object) -> bool:
        """Return whether ``action(*arguments)`` succeeded; a failure is logged as a warning."""
        try:
            action(*arguments)
        except Exception as error:  # whatever MLflow, SQLAlchemy, a driver or the disk raise
            logger.warning(
                "MLflow: %s could not be recorded (%s); the stage goes on. Once the store works, `meta-ood sync` "
                "records stages that dvc repro ran; META_OOD_TRACKING=off switches tracking off",
                *(what, location.short_reason(error)),
            )
            return False
        return True


@contextmanager
def run(
    stage: str,
    *,
    keys: Mapping[str, str],
    params: Mapping[str, Any],
    inputs: Mapping[str, Path],
    setting: Mapping[str, Any] | None = None,
    experiment: str = "meta-ood",
    enabled: bool = True,
) -> Iterator[Recorder]:
    """Record one stage as one MLflow run.

    A stage started by hand makes a new run, one under ``mlflow run -e <stage>`` takes the run that exists, and one
    under DVC makes a child of the run of ``mlflow run .``, if there is one. Under DVC only trainings and the report
    write their runs here; ``meta-ood sync`` records the others, and the report calls it first. Ranks other than 0 of
    ``torchrun`` are not recorded. A recorded stage ends at SIGTERM as at Ctrl-C, its run as KILLED.

    Args:
        keys: Network, variant and dataset, as far as the stage has them.
        params: What the stage depends on, by dotted name.
        inputs: What it reads, logged as datasets with their DVC hash.
        setting: What it and the stages before it depend on, without the seed: groups runs over seeds.
        enabled: False switches tracking off, as does META_OOD_TRACKING=off.

    TrackingError if META_OOD_TRACKING is neither on nor off.
    """
    inherited = os.environ.pop("MLFLOW_RUN_ID", None) or ""  # else it beats nesting in children
    mode = os.environ.get("META_OOD_TRACKING", "on")
    if mode not in ("on", "off"):
        raise location.TrackingError(f"META_OOD_TRACKING={mode}: expected on or off")
    under_dvc = "DVC_STAGE" in os.environ
    recorder = Recorder()
    if not enabled or mode == "off" or os.environ.get("RANK", "0") != "0" or (under_dvc and stage not in _LIVE):
        yield recorder
        return

    def begin() -> None:
        from meta_ood.tracking import description, runs, store, sync

        root = location.root()
        client = store.open_store(root)
        store.end_dead_runs(client, root)
        if under_dvc and stage == "report":
            # all stages before it are in dvc.lock now, also in the folder of a queued experiment
            recorder.attempt("the stages before", lambda: sync.sync(root, parent=inherited))
        about = description.describe(
            stage,
            {name: value for name, value in keys.items() if value},
            params,
            inputs,
            setting=setting or {},
            experiment=experiment,
            more_tags=description.git_tags() | description.dvc_tags(),
            run_id="" if under_dvc else inherited,
            parent=inherited if under_dvc else "",
        )
        recorder.run = runs.OpenRun(client, root, about)

    recorder.attempt("the run", begin)
    status = "FAILED"
    try:
        with _terminate_as_interrupt():
            yield recorder
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        recorder.end(status)


@contextmanager
def _terminate_as_interrupt() -> Iterator[None]:
    try:
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # raises KeyboardInterrupt
    except ValueError:  # not the main thread: the owner of the process handles its signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
