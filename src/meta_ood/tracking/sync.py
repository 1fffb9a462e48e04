"""Runs for stages that DVC took from its cache: no code ran, so nothing was logged."""

from __future__ import annotations

import logging
from collections import defaultdict
from pathlib import Path

from mlflow.entities import Run as StoredRun

from meta_ood import config
from meta_ood.pipeline import paths as layout
from meta_ood.tracking import facts, lockfile, query, recording, writer
from meta_ood.tracking.journal import Journal, now

logger = logging.getLogger(__name__)

_KEYS = ("network", "variant", "dataset")


def sync(root: Path, params_file: Path = Path("params.yaml")) -> tuple[int, int]:
    """Write what waits in journals, then restore a run for each stage in dvc.lock without one.

    A run belongs to a stage if it has its name, its inputs' hashes and its parameters. A restored
    run has what the outputs tell (metrics, pictures, models), the tag ``restored`` and no curves.
    Stages that are out of date, or whose outputs are not here, are left out. Doing it again
    restores nothing.

    Returns
    -------
    Runs written from journals, runs restored.

    Raises
    ------
    TrackingError
        If the tracking server does not answer.
    """
    store = query.open_store(root)
    written = writer.flush(root)
    params = config.load(params_file)
    raw = lockfile.flat(config.read_yaml(params_file))
    locked = lockfile.read()
    known: defaultdict[str, list[StoredRun]] = defaultdict(list)
    for run in query.runs(store):
        known[run.data.tags.get("dvc.stage", "")].append(run)
    restored = 0
    for instance in locked.values():
        if not lockfile.is_current(instance, locked, raw):
            logger.info("%s is out of date: not restored", instance.name)
            continue
        network, variant, dataset = (instance.keys.get(k, "") for k in _KEYS)
        paths = layout.stage_paths(instance.stage, params, network, variant, dataset)
        values = config.stage_values(params, instance.stage, network, variant, dataset)
        if not all(path.exists() for path in paths.outputs.values()):
            continue
        hashes = facts.input_hashes(paths.inputs)
        inputs = {paths.inputs[name].as_posix(): digest for name, digest in hashes.items()}
        if any(query.is_of(run, inputs, values) for run in known[instance.name]):
            continue
        start = recording.begin(
            root,
            instance.stage,
            instance.keys,
            values,
            paths.inputs,
            params.tracking.experiment,
            layout.setting_of(params, instance.stage, network, variant, dataset),
        )
        start["tags"] |= {
            "dvc.stage": instance.name,
            "restored": "true",
            "command": instance.command,
        }
        journal = Journal.create(root, start)
        recording.Run(instance.stage, instance.keys, journal).outputs(paths.outputs)
        journal.add({"kind": "end", "time": now(), "status": "FINISHED"})
        journal.close()
        restored += 1
    writer.flush(root)
    return written, restored
