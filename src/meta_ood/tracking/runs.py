"""One run in the store: opened, written and ended through an MLflow client."""

import getpass
import json
import math
import time
import urllib.parse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.tracking import MlflowClient

from meta_ood.data.files import file_hash
from meta_ood.tracking import registry
from meta_ood.tracking.description import RunDescription
from meta_ood.tracking.query import MAIN_METRICS
from meta_ood.tracking.store import RunningMark, experiment_id

# Limits of MLflow's interface for one request, and for the text of a parameter.
_MAX_METRICS, _MAX_PARAMS, _MAX_TEXT = 900, 100, 6000
# A dataset's digest has at most this many characters: an md5 and ".dir".
_MAX_DIGEST = 36
# Files that the UI can show; anything else is left to DVC.
_SHOWN = (".png", ".jpg", ".svg", ".html", ".md", ".csv", ".json", ".txt")
_PER_SCORE = ("auroc", "auprc", "fpr95")
# Counts in metrics.json that describe the dataset: they are no results, so they get no charts.
_OF_THE_DATASET = {f"evaluate/{name}" for name in ("frames", "scenes", "pixels", "positives", "ignored", "neutral")}


class OpenRun:
    """A run in the store that this process writes."""

    def __init__(self, store: MlflowClient, root: Path, about: RunDescription) -> None:
        self._store = store
        self._about = about
        self._last: dict[str, float] = {}
        self._results: Mapping[str, Any] | None = None
        self._files: list[str] = []
        self._registered = False
        self._mark = RunningMark(store.tracking_uri, root)
        self.id = about.run_id or self._create()
        self._describe()

    def _create(self) -> str:
        parent, name = self._about.parent, self._about.experiment
        experiment = self._store.get_run(parent).info.experiment_id if parent else experiment_id(self._store, name)
        # the mark is set in the same step: a run without it could stay RUNNING for ever
        first = {"process": self._mark.token}
        run = self._store.create_run(experiment, _now(), first, self._about.name)
        return str(run.info.run_id)

    def _describe(self) -> None:
        about = self._about
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
        params = [Param(name, text[:_MAX_TEXT]) for name, text in about.params.items()]
        self.tag(own)
        for first in range(0, len(params), _MAX_PARAMS):
            self._store.log_batch(self.id, params=params[first : first + _MAX_PARAMS])
        datasets = [Dataset(i.path, i.digest[:_MAX_DIGEST], "local", i.path) for i in about.inputs]
        contexts = [[InputTag("mlflow.data.context", i.name)] for i in about.inputs]
        self._store.log_inputs(self.id, [DatasetInput(*pair) for pair in zip(datasets, contexts, strict=True)])

    def tag(self, values: Mapping[str, str]) -> None:
        """Set tags."""
        self._store.log_batch(self.id, tags=[RunTag(k, str(v)) for k, v in values.items()])

    def log(self, metrics: Sequence[Metric]) -> None:
        """Write metrics, see :func:`metrics_at`."""
        for first in range(0, len(metrics), _MAX_METRICS):
            self._store.log_batch(self.id, metrics=metrics[first : first + _MAX_METRICS])
        self._last |= {metric.key: metric.value for metric in metrics}

    def outputs(self, outputs: Mapping[str, Path]) -> None:
        """Log what the stage wrote, see :meth:`meta_ood.tracking.Recorder.outputs`."""
        for name, path in outputs.items():
            if name == "weights":
                registry.register(self._store, self.id, path, self._about)
                self._registered = True
                continue
            for file in [path] if path.is_file() else sorted(path.rglob("*")):
                if file.suffix not in _SHOWN or not file.is_file():
                    continue
                folder = "" if file == path else f"{name}/{file.relative_to(path).parent}"
                folder = folder.removesuffix("/.")
                self._store.log_artifact(self.id, str(file), folder or None)
                self._files.append(f"{folder}/{file.name}".lstrip("/"))
                if name == "metrics" or file.name == "metrics.json":
                    self._metrics_file(file)

    def _metrics_file(self, path: Path) -> None:
        values = json.loads(path.read_text(encoding="utf-8"))
        found = headlines(self._about.stage, values)
        # what the stage has logged itself keeps its step
        self.log(metrics_at({k: v for k, v in found.items() if self._last.get(k) != v}, 0))
        self.tag({"metrics.md5": file_hash(path, "md5")})
        if self._about.stage == "evaluate" and "weights" in values:
            self._results = values
            registry.write_evaluation(self._store, self.id, values, self._about)

    def end(self, status: str) -> None:
        """End the run as FINISHED, FAILED or KILLED."""
        if text := self._summary():
            self._store.set_tag(self.id, "mlflow.note.content", text)
        self._store.set_terminated(self.id, status, _now())
        self._mark.remove()

    def _summary(self) -> str:
        """Return the description that the UI shows: results, a picture, where to look next."""
        keys, parts = self._about.keys, []
        if self._results is not None:
            parts.append(_results(keys, self._results))
        if self._registered:
            network = keys["network"]
            parts.append(f"Registered as a version of [{network}](#/models/{network}).")
        if "recorded" in self._about.tags:
            parts.append("Recorded after the stage had ended: results and files, but no curves.")
        for file in [file for file in self._files if file.endswith("_segments.png")][:1]:
            query = urllib.parse.urlencode({"path": file, "run_uuid": self.id})
            parts += [
                f"![segments kept and rejected](get-artifact?{query})",
                "Orange: segments kept; blue, hatched: rejected; white outline: true objects.",
            ]
        pages = [file for file in self._files if file.endswith("index.html")]
        return "\n\n".join(parts + [f"The page is under Artifacts: `{page}`." for page in pages])


def _results(keys: Mapping[str, str], values: Mapping[str, Any]) -> str:
    known = {name: title for name, title in MAIN_METRICS.items() if isinstance(values.get(name), int | float)}
    shown = [f"{title} {values[name]:.4f}" for name, title in known.items()]
    before, after = (values.get(f"segment_false_positives{end}") for end in ("", "_after_meta"))
    if before is not None and after is not None:
        shown.append(f"false-positive segments {before} → {after} with meta classification")
    return f"**{keys['network']} {keys['variant']}** on **{keys['dataset']}**: {', '.join(shown)}"


def metrics_at(values: Mapping[str, float], step: int) -> list[Metric]:
    """Return numbers as metrics of this moment; what is not finite is left out."""
    finite = {k: float(v) for k, v in values.items() if math.isfinite(v) and k not in _OF_THE_DATASET}
    return [Metric(name, value, _now(), step) for name, value in finite.items()]


def headlines(stage: str, values: Mapping[str, Any]) -> dict[str, float]:
    """Return the few numbers of a stage's metrics that are worth a chart.

    Those at the top as ``stage/name``, and those of each entry of ``scores`` as ``name/score``, so that a chart
    compares scores.

    Examples:
        >>> headlines("evaluate", {"auroc": 0.9, "scores": {"energy": {"auroc": 0.8, "pixels": 9}}})
        {'evaluate/auroc': 0.9, 'auroc/energy': 0.8}
    """
    found = {f"{stage}/{name}": value for name, value in values.items()}
    for score, metrics in values.get("scores", {}).items():
        found |= {f"{name}/{score}": metrics.get(name) for name in _PER_SCORE}
    # type(), as a bool is an int too
    return {k: float(v) for k, v in found.items() if type(v) in (int, float) and math.isfinite(v)}


def _now() -> int:
    """Return the time as MLflow counts it: milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return "unknown"
