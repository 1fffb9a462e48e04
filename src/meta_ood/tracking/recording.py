"""The side of the stages: begin a run, log, say what came out, end."""

from __future__ import annotations

import importlib.util
import json
import logging
import math
import os
import shlex
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from meta_ood.tracking import facts
from meta_ood.tracking.journal import PLACE, Event, Journal, now

logger = logging.getLogger(__name__)

_SHOWN = (".png", ".jpg", ".svg", ".html", ".md", ".csv", ".json", ".txt")
_OF_THE_DATA = frozenset(
    f"evaluate/{name}" for name in ("frames", "scenes", "pixels", "positives", "ignored", "neutral")
)
"""Counts in metrics.json that say something of the dataset: no results, so no charts."""
_PER_SCORE = ("auroc", "auprc", "fpr95")
_FLUSH_SECONDS = 1.0


class TrackingError(ValueError):
    """The tracking store cannot be used; the message says what to do."""


@dataclass
class Run:
    """What a stage's caller gets: a log for the stage, and `outputs` for what it wrote.

    `journal` is None if tracking is off; then nothing happens.
    """

    stage: str
    keys: dict[str, str]
    journal: Journal | None = None

    def __post_init__(self) -> None:
        self._buffer: list[Event] = []
        self._said: dict[str, float] = {}
        self._flushed = time.monotonic()

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Log numbers at a step; they reach the store about once a second."""
        if self.journal is None:
            return
        finite = {
            name: float(v)
            for name, v in values.items()
            if math.isfinite(v) and name not in _OF_THE_DATA
        }
        self._said.update(finite)
        self._buffer.append({"kind": "metrics", "time": now(), "step": step, "values": finite})
        if time.monotonic() - self._flushed > _FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Put what is buffered into the journal."""
        if self.journal is not None and self._buffer:
            self.journal.add(*self._buffer)
            self._buffer.clear()
        self._flushed = time.monotonic()

    def outputs(self, outputs: Mapping[str, Path]) -> None:
        """Log what the stage wrote.

        Parameters
        ----------
        outputs
            The stage's outputs by keyword. ``metrics`` gives metrics that the stage has not logged
            itself, ``weights`` a version of the registered model named after the network; pictures,
            pages and curves are logged as files, anything else is left to DVC.
        """
        if self.journal is None:
            return
        for name, path in outputs.items():
            if name == "weights":
                kept = self.journal.keep(path)
                self._buffer.append(
                    {"kind": "model", "file": kept, "variant": path.stem, "path": path.as_posix()}
                )
                continue
            if name == "metrics":
                self._metrics(path)
            for file in [path] if path.is_file() else sorted(path.rglob("*")):
                if file.suffix in _SHOWN and file.is_file():
                    to = f"{name}/{file.relative_to(path)}" if file != path else path.name
                    kept = self.journal.keep(file)
                    self._buffer.append({"kind": "file", "file": kept, "to": to})
        self.flush()

    def _metrics(self, path: Path) -> None:
        values = json.loads(path.read_text(encoding="utf-8"))
        found = headlines(self.stage, values)
        self.log({k: v for k, v in found.items() if self._said.get(k) != v}, 0)
        self._buffer.append({"kind": "tag", "tags": {"metrics.md5": facts.file_md5(path)}})
        if self.stage == "evaluate" and "weights" in values:
            event = {"kind": "evaluation", "weights_sha256": values["weights"], "values": values}
            self._buffer.append({**event, "time": now()})


def headlines(stage: str, values: Mapping[str, Any]) -> dict[str, float]:
    """Return the few numbers of a stage's metrics that are worth a chart.

    Those at the top as ``stage/name``, and what ``scores`` says of each score as ``name/score``,
    so that a chart compares scores.

    Examples
    --------
    >>> headlines("evaluate", {"auroc": 0.9, "scores": {"energy": {"auroc": 0.8, "pixels": 9}}})
    {'evaluate/auroc': 0.9, 'auroc/energy': 0.8}
    """
    found = {f"{stage}/{name}": value for name, value in values.items()}
    for score, figures in values.get("scores", {}).items():
        found |= {f"{name}/{score}": figures.get(name) for name in _PER_SCORE}
    return {
        name: float(value)
        for name, value in found.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }


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
) -> Iterator[Run]:
    """Track one stage as one MLflow run, whoever started it.

    Alone it is a new run; under ``mlflow run -e <stage>`` the run that exists; under DVC a run
    named after what it does, below the run of ``mlflow run .`` if there is one. Ranks other than 0
    of ``torchrun`` are not tracked. SIGTERM ends the stage like Ctrl-C, the run as FAILED.

    Parameters
    ----------
    stage, keys
        Which stage, and its network, variant and dataset as far as it has them.
    params
        What the stage depends on, by dotted name.
    inputs
        What the stage reads, logged as datasets with their DVC hash.
    setting
        What the stage and those before it depend on, without the seed: groups runs over seeds.
    experiment
        Name of the experiment, where the run is not given by ``mlflow run``.
    enabled
        False switches tracking off, as does META_OOD_TRACKING=off.

    Raises
    ------
    TrackingError
        If a tracking server is named by MLFLOW_TRACKING_URI and does not answer.
    """
    given = {name: value for name, value in keys.items() if value}
    inherited = os.environ.pop("MLFLOW_RUN_ID", None)  # else it beats nesting in every child
    mode = os.environ.get("META_OOD_TRACKING", "on")
    if mode not in ("on", "wait", "off"):
        raise TrackingError(f"META_OOD_TRACKING={mode}: expected on, wait or off")
    if not enabled or mode == "off" or os.environ.get("RANK", "0") != "0" or not _mlflow_there():
        yield Run(stage, given)
        return
    root = facts.root()
    start = begin(root, stage, given, params, inputs, experiment, setting or {})
    preflight(start["uri"])
    start["parent" if "DVC_STAGE" in os.environ else "run_id"] = inherited
    journal = Journal.create(root, start)
    ensure_writer(root)
    record = Run(stage, given, journal)
    status = "FAILED"
    try:
        with _terminate_as_interrupt():
            yield record
        status = "FINISHED"
    finally:
        record.flush()
        journal.add({"kind": "end", "time": now(), "status": status})
        journal.close()
        ensure_writer(root)
        if mode == "wait" or start["run_id"]:
            wait(journal, root)


def begin(
    root: Path,
    stage: str,
    keys: Mapping[str, str],
    params: Mapping[str, Any],
    inputs: Mapping[str, Path],
    experiment: str,
    setting: Mapping[str, Any],
) -> Event:
    """Return a journal's first event: what is known of a run before it does anything."""
    command = " ".join(["python -m meta_ood", *(shlex.quote(word) for word in sys.argv[1:])])
    return {
        "uri": facts.store_uri(root),
        "root": str(root.resolve()),
        "experiment": os.environ.get("MLFLOW_EXPERIMENT_NAME") or experiment,
        "run_id": None,
        "parent": None,
        "name": run_name(stage, keys, params),
        "tags": {
            "stage": stage,
            **keys,
            "command": command,
            **facts.setting_tags(stage, keys, setting),
            **facts.git_tags(),
            **facts.dvc_tags(),
        },
        "params": facts.texts(params),
        "inputs": [
            {"name": name, "path": inputs[name].as_posix(), "digest": digest}
            for name, digest in facts.input_hashes(inputs).items()
        ],
    }


def run_name(stage: str, keys: Mapping[str, str], params: Mapping[str, Any]) -> str:
    """Return a run's name.

    Examples
    --------
    >>> run_name("train", {"network": "mini"}, {"train.ood_weight": 0.9, "seed": 0})
    'train mini λ=0.9 seed=0'
    >>> run_name("meta", {"network": "mini", "variant": "baseline", "dataset": "coco"}, {})
    'meta baseline coco mini'
    """
    order = ("variant", "dataset", "network")  # the UI cuts names: what differs comes first
    words = [stage, *(keys[key] for key in order if key in keys)]
    if stage == "train" and "train.ood_weight" in params:
        words.append(f"λ={params['train.ood_weight']}")
    if stage in ("pretrain", "train", "synthesize") and "seed" in params:
        words.append(f"seed={params['seed']}")
    return " ".join(words)


def preflight(uri: str) -> None:
    """Check in seconds that a tracking server answers (MLflow itself would try for minutes)."""
    if not uri.startswith(("http://", "https://")):
        return
    try:
        with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=5):
            return
    except urllib.error.HTTPError as error:
        if error.code in (401, 403, 404):  # a proxy or a login: MLflow has the credentials
            return
        reason: object = error
    except (OSError, ValueError) as error:
        reason = error
    raise TrackingError(
        f"MLFLOW_TRACKING_URI={uri}: no answer ({reason}); start the server, unset the variable "
        "to use the local store, or set META_OOD_TRACKING=off"
    )


def ensure_writer(root: Path) -> None:
    """Start the writer of `root` if there is none."""
    lock = FileLock(root / PLACE / "writer.lock")
    try:
        with lock.acquire(timeout=0):
            pass
    except Timeout:
        return
    environment = {k: v for k, v in os.environ.items() if not k.startswith("DVC_")}
    environment |= {"MLFLOW_DISABLE_TELEMETRY": "true", "OMP_NUM_THREADS": "1"}
    with (root / PLACE / "writer.log").open("ab") as log:
        subprocess.Popen(  # left alone on purpose: it outlives the stage
            [sys.executable, "-m", "meta_ood.tracking", str(root.resolve())],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=root,
            env=environment,
            start_new_session=True,
        )


def wait(journal: Journal, root: Path, seconds: float = 120.0) -> None:
    """Wait until the writer has put `journal` into the store."""
    end = time.monotonic() + seconds
    while journal.folder.exists():
        if time.monotonic() > end:
            log = root / PLACE / "writer.log"
            logger.warning("the run is not in the store yet; `meta-ood sync` tries again: %s", log)
            return
        time.sleep(0.05)


def _mlflow_there() -> bool:
    if importlib.util.find_spec("mlflow") is None:
        logger.warning("mlflow is not installed: the run is not tracked")
        return False
    return True


@contextmanager
def _terminate_as_interrupt() -> Iterator[None]:
    def interrupt(signum: int, frame: object) -> None:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:  # not the main thread: whoever owns the process handles its signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
