"""From a model, a run or a file to all that it came from, as text."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion

from meta_ood.data.files import file_hash
from meta_ood.pipeline import lockfile
from meta_ood.tracking import query
from meta_ood.tracking.store import all_runs, open_store

# Tag of a run -> its title in the text.
_TAGS = {"dvc.stage": "stage", "dvc.exp.name": "exp", "command": "by", "weights.md5": "weights", "recorded": "recorded"}


_RUN_ID = re.compile(r"[0-9a-f]{32}")


class Lineage:
    """Answers where things come from, by the store and dvc.lock of the repository at `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.store = open_store(root)
        self.locked = lockfile.read()
        self._printed: set[str] = set()

    def of(self, what: str) -> Iterator[str]:
        """Yield the lines about a file, a run id or a model version; ValueError if `what` is none of them."""
        if Path(what).exists():
            yield from self._of_path(Path(what))
        elif _RUN_ID.fullmatch(what):
            yield from self._of_run(query.run_of(self.store, what))
        else:
            yield from self._of_version(query.version_of(self.store, what))

    def between(self, first: str, last: str) -> Iterator[str]:
        """Yield what differs between two runs, or two model versions and the runs that made their weights.

        Raises:
            ValueError: If one of them is neither a run nor a version that a run made.
        """
        before, after = self._facts(first), self._facts(last)
        changed = [name for name in {**before, **after} if before.get(name) != after.get(name)]
        yield f"{first} -> {last}" + ("" if changed else ": no parameter, input, commit or tag differs")
        yield from (f"  {name}: {before.get(name, '–')} -> {after.get(name, '–')}" for name in changed)

    def _facts(self, what: str) -> dict[str, str]:
        """Return what a run or version depends on: its parameters, commit and inputs; then the version's tags."""
        tags: dict[str, str] = {}
        run_id: str | None = what
        if not _RUN_ID.fullmatch(what):
            version = query.version_of(self.store, what)
            tags, run_id = version.tags, version.run_id
        if not run_id:
            raise ValueError(f"{what}: no run is known that made it, so its parameters are not known either")
        run = query.run_of(self.store, run_id)
        inputs = {f"input {path}": digest for path, digest in sorted(query.dataset_digests(run).items())}
        return {**dict(sorted(run.data.params.items())), "git": run.data.tags.get("git.sha", "?"), **inputs} | {
            f"tag {name}": value for name, value in sorted(tags.items())
        }

    def _of_version(self, version: ModelVersion) -> Iterator[str]:
        """Yield the lines about a model version: its run, its evaluations, its report."""
        numbers = self.store.get_registered_model(version.name).aliases
        aliases = [alias for alias, number in numbers.items() if str(number) == version.version]
        yield f"model {version.name} version {version.version} ({', '.join(aliases) or 'no alias'})"
        yield from (f"  {name}: {value}" for name, value in sorted(version.tags.items()))
        if version.run_id:
            yield from self._of_run(query.run_of(self.store, version.run_id), "  made by ")
        yield from self._evaluations(version)

    def _of_run(self, run: Run, lead: str = "") -> Iterator[str]:
        """Yield the lines about a run and, indented, the runs that made its inputs."""
        pad = " " * (len(lead) - len(lead.lstrip()))
        tags = run.data.tags
        yield f"{lead}run {run.info.run_id} {run.info.run_name!r}, {run.info.status}"
        if run.info.run_id in self._printed:
            yield f"{pad}  (see above)"
            return
        self._printed.add(run.info.run_id)
        begun = datetime.fromtimestamp(run.info.start_time / 1000, UTC)
        dirty = ", with changes that are in no commit" * (tags.get("git.dirty") == "true")
        yield f"{pad}  when    {begun:%Y-%m-%d %H:%M:%S} UTC"
        yield f"{pad}  git     {tags.get('git.sha', '?')}{dirty}"
        for tag, title in _TAGS.items():
            if tag in tags:
                yield f"{pad}  {title:7} {tags[tag]}"
        params = " ".join(f"{name}={value}" for name, value in sorted(run.data.params.items()))
        yield f"{pad}  params  {params or 'none'}"
        for path, digest in query.dataset_digests(run).items():
            yield f"{pad}  input   {path} {digest}"
            maker = lockfile.owner(self.locked, path)
            if maker and maker.outs.get(path) not in (digest, None):
                yield f"{pad}    of a state that dvc.lock does not hold now"
            elif maker and (made := self._run_of(maker)):
                yield from self._of_run(made, f"{pad}    made by ")

    def _of_path(self, path: Path) -> Iterator[str]:
        """Yield the lines about a file or folder: its hash, the run that made it, its versions."""
        inside = path.resolve().is_relative_to(self.root)
        name = (path.resolve().relative_to(self.root) if inside else path).as_posix()
        maker = lockfile.owner(self.locked, name)
        md5 = file_hash(path, "md5") if path.is_file() else ""
        recorded = maker.outs.get(name, "") if maker else ""
        if md5 and recorded and md5 != recorded:
            yield f"{path}: changed since dvc.lock was written ({recorded})"
            maker = None
        md5 = md5 or recorded
        yield f"file {name} {md5}"
        run = self._run_of(maker) if maker else None
        if run is None and path.is_file():
            conditions = [f"tags.`{tag}.md5` = '{md5}'" for tag in ("weights", "metrics")]
            run = next((r for c in conditions for r in all_runs(self.store, c)), None)
        if run is None:
            yield "  no run is known that made it" + (" (meta-ood sync?)" if maker else "")
        else:
            yield from self._of_run(run, "  made by ")
        if md5 and path.suffix == ".safetensors":
            for version in self.store.search_model_versions(f"tags.`weights.md5` = '{md5}'"):
                yield f"  is model {version.name} version {version.version}"
                yield from self._evaluations(version)

    def _evaluations(self, version: ModelVersion) -> Iterator[str]:
        sha256 = version.tags.get("weights.sha256", "unknown")
        reports = list(all_runs(self.store, "tags.stage = 'report'"))  # newest first
        for run in all_runs(self.store, f"tags.`weights.sha256` = '{sha256}' and tags.stage = 'evaluate'"):
            values = {name: run.data.metrics.get(f"evaluate/{name}") for name in query.MAIN_METRICS}
            text = " ".join(f"{name}={v:.4f}" for name, v in values.items() if v is not None)
            yield f"  evaluated on {run.data.tags['dataset']}: {text}  run {run.info.run_id}"
            later = [r for r in reports if r.info.start_time >= (run.info.end_time or 0)]
            if later:
                yield f"    in report run {later[-1].info.run_id}"

    def _run_of(self, instance: lockfile.LockedStage) -> Run | None:
        """Return the newest run of a stage that read what dvc.lock says, and made the weights that it says."""
        inputs = {path: md5 for path, md5 in instance.deps.items() if path != "data/evaluate"}
        candidates = all_runs(self.store, f"tags.`dvc.stage` = '{instance.name}'")
        # trainings depend on data/roles, which their runs do not record: there the weights decide
        made = {*instance.outs.values(), None}
        of_weights = (run for run in candidates if run.data.tags.get("weights.md5") in made)
        return next((run for run in of_weights if query.is_of(run, inputs, {})), None)
