"""From a model, a run or a file to all that it came from, as text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.tracking import MlflowClient

from meta_ood.data.files import file_hash
from meta_ood.tracking import lockfile, query
from meta_ood.tracking.store import all_runs, open_store

_RUN_ID = re.compile(r"[0-9a-f]{32}")
_METRICS = ("auroc", "auprc", "fpr95", "miou")


class Lineage:
    """The store and dvc.lock, asked for where things come from."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.store: MlflowClient = open_store(root)
        self.locked = lockfile.read()
        self._printed: set[str] = set()

    def of(self, what: str) -> Iterator[str]:
        """Yield the lines about a file, a run id or a model version.

        Raises:
            ValueError: If it is none of them.
        """
        if Path(what).exists():
            yield from self.of_path(Path(what))
        elif _RUN_ID.fullmatch(what):
            yield from self.of_run(query.run_of(self.store, what))
        else:
            yield from self.of_version(query.version_of(self.store, what))

    def of_version(self, version: ModelVersion) -> Iterator[str]:
        """Yield the lines about a model version: its run, its evaluations, its report."""
        full = self.store.get_registered_model(version.name).aliases
        aliases = [alias for alias, v in full.items() if str(v) == str(version.version)]
        yield f"model {version.name} version {version.version} ({', '.join(aliases) or 'no alias'})"
        yield from (f"  {name}: {value}" for name, value in sorted(version.tags.items()))
        if version.run_id:
            yield from self.of_run(query.run_of(self.store, version.run_id), "  made by ")
        yield from self._evaluations(version.name, version.tags.get("weights.sha256", ""))

    def of_run(self, run: Run, lead: str = "") -> Iterator[str]:
        """Yield the lines about a run and, indented, the runs that made its inputs."""
        pad = " " * (len(lead) - len(lead.lstrip()))
        tags = run.data.tags
        begun = datetime.fromtimestamp(run.info.start_time / 1000, UTC)
        yield f"{lead}run {run.info.run_id} {run.info.run_name!r}, {run.info.status}"
        if run.info.run_id in self._printed:
            yield f"{pad}  (see above)"
            return
        self._printed.add(run.info.run_id)
        state = {"true": ", with changes that are in no commit", "false": ""}
        yield f"{pad}  when    {begun:%Y-%m-%d %H:%M:%S} UTC"
        yield f"{pad}  git     {tags.get('git.sha', '?')}{state.get(tags.get('git.dirty', ''), '')}"
        for tag, title in (
            ("dvc.stage", "stage"),
            ("dvc.exp.name", "exp"),
            ("command", "by"),
            ("weights.md5", "weights"),
            ("recorded", "recorded"),
        ):
            if tag in tags:
                yield f"{pad}  {title:7} {tags[tag]}"
        params = [f"{name}={value}" for name, value in sorted(run.data.params.items())]
        if params:
            yield f"{pad}  params  {' '.join(params)}"
        for path, digest in query.dataset_digests(run).items():
            yield f"{pad}  input   {path} {digest}"
            maker = lockfile.owner(self.locked, path)
            if maker is None:
                continue
            if maker.outs.get(path) not in (digest, None):
                yield f"{pad}    of a state that dvc.lock does not hold now"
                continue
            made = self._run_of(maker)
            if made is not None:
                yield from self.of_run(made, f"{pad}    made by ")

    def of_path(self, path: Path) -> Iterator[str]:
        """Yield the lines about a file or folder: its hash, the run that made it, its versions."""
        inside = path.resolve().relative_to(self.root) if self._inside(path) else path
        maker = lockfile.owner(self.locked, inside.as_posix())
        md5 = file_hash(path, "md5") if path.is_file() else ""
        if maker is not None and inside.as_posix() in maker.outs:
            recorded = maker.outs[inside.as_posix()]
            if md5 and md5 != recorded:
                yield f"{path}: changed since dvc.lock was written ({recorded})"
                maker = None
            md5 = md5 or recorded
        yield f"file {inside.as_posix()} {md5}"
        run = self._run_of(maker) if maker else None
        if run is None and path.is_file():
            condition = f"tags.`weights.md5` = '{md5}' or tags.`metrics.md5` = '{md5}'"
            parts = condition.split(" or ")
            run = next((r for part in parts for r in all_runs(self.store, part)), None)
        if run is None:
            yield "  no run is known that made it" + (" (meta-ood sync?)" if maker else "")
        else:
            yield from self.of_run(run, "  made by ")
        if md5 and path.suffix == ".safetensors":
            for version in self.store.search_model_versions(f"tags.`weights.md5` = '{md5}'"):
                yield f"  is model {version.name} version {version.version}"
                yield from self._evaluations(version.name, version.tags.get("weights.sha256", ""))

    def _evaluations(self, network: str, sha256: str) -> Iterator[str]:
        if not sha256:
            return
        reports = list(all_runs(self.store, "tags.stage = 'report'"))
        for run in all_runs(self.store, f"tags.`weights.sha256` = '{sha256}'"):
            if run.data.tags.get("stage") != "evaluate":
                continue
            metrics = [
                f"{name}={run.data.metrics[f'evaluate/{name}']:.4f}"
                for name in _METRICS
                if f"evaluate/{name}" in run.data.metrics
            ]
            dataset = run.data.tags.get("dataset", "?")
            yield f"  evaluated on {dataset}: {' '.join(metrics)}  run {run.info.run_id}"
            later = [r for r in reports if r.info.start_time >= (run.info.end_time or 0)]
            if later:
                yield f"    in report run {later[-1].info.run_id}"

    def _run_of(self, instance: lockfile.LockedStage) -> Run | None:
        inputs = {path: md5 for path, md5 in instance.deps.items() if path != "data/evaluate"}
        condition = f"tags.`dvc.stage` = '{instance.name}'"
        candidates = all_runs(self.store, condition)
        return next((r for r in candidates if query.is_of(r, inputs, {})), None)

    def _inside(self, path: Path) -> bool:
        return path.resolve().is_relative_to(self.root)
