"""One run in the store: opened, written and ended through an MLflow client."""

import getpass
import math
import time
import urllib.parse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.tracking import MlflowClient

from meta_ood.data.files import file_hash, read_json
from meta_ood.tracking import registry
from meta_ood.tracking.description import RunDescription
from meta_ood.tracking.query import MAIN_METRICS
from meta_ood.tracking.store import RunningMark, experiment_id

# Files that the UI can show; anything else is left to DVC.
_SHOWN = (".png", ".jpg", ".svg", ".html", ".md", ".csv", ".json", ".txt")
# Numbers at the top of a metrics.json that are no results, by stage: they get no charts.
_NO_RESULTS = {
    "pretrain": ("step", "steps"),
    "train": ("step", "steps"),
    "meta": ("segments", "false", "number_of_folds", "folds_without_classifier", "kept_without_classifier"),
    "evaluate": ("frames", "scenes", "pixels", "positives", "ignored", "neutral"),
}


class OpenRun:
    """A run in the store that this process writes."""

    def __init__(self, store: MlflowClient, root: Path, about: RunDescription) -> None:
        self._store = store
        self._about = about
        self._last: dict[str, float] = {}
        self._notes: list[str] = []  # paragraphs of the description in the UI
        self._picture = False
        self._system: Any = None
        self._step = 0  # of what the stage wrote
        self._mark = RunningMark(store.tracking_uri, root)
        # 1. the run, if `mlflow run` has not created it
        self.id = about.run_id
        if not self.id:
            parent = store.get_run(about.parent).info if about.parent else None
            experiment = parent.experiment_id if parent else experiment_id(store, about.experiment)
            # the mark is set in the same step: a run without it could stay RUNNING for ever
            run = store.create_run(experiment, tags={"process": self._mark.token}, run_name=about.name)
            self.id = str(run.info.run_id)
        # 2. what is known before the stage begins
        own = {
            "mlflow.runName": about.name,
            "mlflow.source.name": f"meta_ood {about.stage}",
            "mlflow.source.type": "LOCAL",
            "mlflow.user": _user(),
            "process": self._mark.token,
            **about.tags,
        }
        if about.parent:
            own["mlflow.parentRunId"] = about.parent
        if "git.sha" in own:
            own["mlflow.source.git.commit"] = own["git.sha"]
        self.tag(own)
        # MLflow takes 6000 characters of a parameter, and 36 of a digest: an md5 and ".dir"
        store.log_batch(self.id, params=[Param(name, text[:6000]) for name, text in about.params.items()])
        datasets = [
            DatasetInput(Dataset(i.path, i.digest[:36], "local", i.path), [InputTag("mlflow.data.context", i.name)])
            for i in about.inputs
        ]
        store.log_inputs(self.id, datasets)

    def tag(self, values: Mapping[str, str]) -> None:
        """Set tags."""
        self._store.log_batch(self.id, tags=[RunTag(k, str(v)) for k, v in values.items()])

    def log(self, metrics: Sequence[Metric]) -> None:
        """Write metrics, see :func:`metrics_at`."""
        self._store.log_batch(self.id, metrics=metrics)
        self._last |= {metric.key: metric.value for metric in metrics}

    def system(self) -> dict[str, float]:
        """Return the load of processors, memory, disk, network and GPUs, as ``system/…``; empty at the first call."""
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        # only its counters: its thread would wait for a store that does not answer, at the end for minutes
        if is_first := self._system is None:
            monitor: Any = SystemMetricsMonitor
            self._system = monitor(self.id, tracking_uri=self._store.tracking_uri)
        self._system.collect_metrics()
        found = {f"system/{name}": value for name, value in self._system.aggregate_metrics().items()}
        for counter in self._system.monitors:
            counter.clear_metrics()
        return {} if is_first else found

    def outputs(self, outputs: Mapping[str, Path]) -> None:
        """Log what the stage wrote, see :meth:`meta_ood.tracking.Recorder.outputs`."""
        # a training's metrics say at which step it had the weights that it kept
        if (about := outputs.get("metrics")) and about.is_file():
            self._step = int(read_json(about).get("step", 0))
        for name, path in outputs.items():
            if name == "weights":
                registry.register(self._store, self.id, path, self._about, self._step)
                network = self._about.keys["network"]
                self._notes.append(f"Registered as a version of [{network}](#/models/{network}).")
                continue
            for file in [path] if path.is_file() else sorted(path.rglob("*")):
                if file.suffix not in _SHOWN or not file.is_file():
                    continue
                place = Path(file.name) if file == path else Path(name, file.relative_to(path))
                folder = None if file == path else place.parent.as_posix()
                self._store.log_artifact(self.id, str(file), folder)
                if name == "metrics" or file.name == "metrics.json":
                    # one of several sets: its name is part of the metrics' names
                    self._metrics_file(file, place.parts[1:-1])
                elif file.name == "index.html":
                    self._notes.append(f"The page is under Artifacts: `{place}`.")
                elif file.name.endswith("_segments.png") and not self._picture:
                    self._picture = True
                    query = urllib.parse.urlencode({"path": place.as_posix(), "run_uuid": self.id})
                    self._notes.append(f"![segments kept and rejected](get-artifact?{query})")
                    self._notes.append("Orange: segments kept; blue, hatched: rejected; white outline: true objects.")

    def _metrics_file(self, path: Path, folders: Sequence[str]) -> None:
        values = read_json(path)
        found = _headlines("/".join([self._about.stage, *folders]), values)
        # what the stage has logged itself keeps its step
        self.log(metrics_at({k: v for k, v in found.items() if self._last.get(k) != v}, self._step))
        self.tag({"metrics.md5": file_hash(path, "md5")})
        if self._about.stage == "evaluate" and "weights" in values:
            self._notes.append(_results(self._about.keys, values))
            registry.write_evaluation(self._store, self.id, values, self._about)

    def end(self, status: str) -> None:
        """End the run as FINISHED, FAILED or KILLED."""
        if "recorded" in self._about.tags:
            self._notes.append("Recorded after the stage had ended: results and files, but no curves.")
        if self._notes:
            self._store.set_tag(self.id, "mlflow.note.content", "\n\n".join(self._notes))
        self._store.set_terminated(self.id, status)
        self._mark.remove()


def _results(keys: Mapping[str, str], values: Mapping[str, Any]) -> str:
    known = {name: title for name, title in MAIN_METRICS.items() if isinstance(values.get(name), int | float)}
    shown = [f"{title} {values[name]:.4f}" for name, title in known.items()]
    before, after = (values.get(f"segment_false_positives{end}") for end in ("", "_after_meta"))
    if before is not None and after is not None:
        shown.append(f"false-positive segments {before} → {after} with meta classification")
    return f"**{keys['network']} {keys['variant']}** on **{keys['dataset']}**: {', '.join(shown)}"


def metrics_at(values: Mapping[str, float], step: int) -> list[Metric]:
    """Return numbers as metrics of this moment; what is not finite is left out."""
    finite = {k: float(v) for k, v in values.items() if math.isfinite(v)}
    now = time.time_ns() // 1_000_000  # MLflow counts milliseconds since 1970
    return [Metric(name, value, now, step) for name, value in finite.items()]


def _headlines(stage: str, values: Mapping[str, Any]) -> dict[str, float]:
    """Return the results at the top of a metrics.json as ``stage/name``, three per score as ``scores/name/score``."""
    hidden = _NO_RESULTS.get(stage.split("/")[0], ())
    found = {f"{stage}/{name}": value for name, value in values.items() if name not in hidden}
    for score, metrics in values.get("scores", {}).items():
        found |= {f"scores/{name}/{score}": metrics.get(name) for name in ("auroc", "auprc", "fpr95")}
    # type(), as a bool is an int too
    return {k: float(v) for k, v in found.items() if type(v) in (int, float) and math.isfinite(v)}


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return "unknown"
