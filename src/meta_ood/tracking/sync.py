"""Runs of stages that DVC ran or took from its cache, recorded from dvc.lock and the outputs."""

import logging
from contextlib import suppress
from pathlib import Path

from meta_ood import config
from meta_ood.pipeline import lockfile
from meta_ood.pipeline import paths as layout
from meta_ood.tracking import description, query, runs, store

logger = logging.getLogger(__name__)


def sync(root: Path, params_file: Path = Path("params.yaml"), parent: str = "") -> int:
    """Record a run for each stage in dvc.lock that has none, and return how many there were.

    A run belongs to a stage if it has its name, its inputs' hashes and its parameters. A recorded run has metrics,
    pictures and models from the outputs, the tag ``recorded`` and no curves. Stages that are out of date, or whose
    outputs are not here, are left out. New runs become children of the run `parent` of ``mlflow run .``, if any.

    TrackingError if the store cannot be used, ValueError if dvc.lock is empty or cut off.
    """
    locked = lockfile.read()
    params = config.load(params_file)
    values_now = config.flat(config.read_yaml(params_file))
    client = store.open_store(root)
    store.end_dead_runs(client, root)
    tags = description.git_tags() | description.dvc_tags() | {"recorded": "from dvc.lock"}
    recorded = 0
    with store.exclusive(root / ".meta_ood" / "sync.lock"):  # two at once would record the same stages twice
        for instance in locked.values():
            if not instance.stage:
                continue
            if not lockfile.is_current(instance, locked, values_now):
                logger.info("%s is out of date: not recorded", instance.name)
                continue
            paths = layout.stage_paths(instance.stage, params, out=layout.DATA, **instance.keys)
            values = config.stage_values(params, instance.stage, **instance.keys)
            if not all(path.exists() for path in paths.outputs.values()):
                continue
            about = description.describe(
                instance.stage,
                instance.keys,
                values,
                paths.inputs,
                setting=layout.setting_of(params, instance.stage, **instance.keys),
                experiment=params.tracking.experiment,
                more_tags={**tags, "dvc.stage": instance.name, "command": instance.command},
                locked=locked,
                parent=parent,
            )
            digests = {entry.path: entry.digest for entry in about.inputs}
            same_stage = store.all_runs(client, f"tags.`dvc.stage` = '{instance.name}'")
            if any(query.is_of(run, digests, values) for run in same_stage):
                continue
            run = runs.OpenRun(client, root, about)
            try:
                run.outputs(paths.outputs)
            except BaseException:  # also Ctrl-C: the next `sync` records the stage as a new run
                with suppress(Exception):
                    run.end("FAILED")
                raise
            run.end("FINISHED")
            recorded += 1
    return recorded
