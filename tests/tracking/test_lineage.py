"""Sync and lineage against a small dvc.lock and a store of their own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from meta_ood import config, tracking
from meta_ood.pipeline import paths as layout
from meta_ood.tracking import facts, lineage, lockfile, query, recording, reproduce, writer
from meta_ood.tracking.sync import sync

PARAMS = Path(__file__).parents[2] / "params.yaml"
CELL = {"network": "deeplabv3plus_mini", "variant": "baseline", "dataset": "lost_and_found"}
PLACE = "deeplabv3plus_mini/baseline/lost_and_found"
pytestmark = pytest.mark.filterwarnings("ignore")  # mlflow's own


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A project in which DVC ran `pretrain` and `evaluate`."""
    for name in ("MLFLOW_RUN_ID", "MLFLOW_TRACKING_URI", "DVC_STAGE", "DVC_ROOT", "RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(recording, "ensure_writer", lambda root: None)
    monkeypatch.chdir(tmp_path)
    params = config.read_yaml(PARAMS)
    Path("params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    weights = Path("data/networks/deeplabv3plus_mini/baseline.safetensors")
    metrics = Path(f"data/evaluate/{PLACE}/metrics.json")
    for path in (weights, metrics):
        path.parent.mkdir(parents=True)
    weights.write_bytes(b"weights")
    weights.with_suffix(".json").write_text('{"miou": 0.5}', encoding="utf-8")
    sha256 = "9e2e4ee4b7ea8cbb0ce4a5a0a0ea1d5b"
    values = {"weights": sha256, "auroc": 0.9, "frames": 4}
    metrics.write_text(json.dumps(values), encoding="utf-8")
    (metrics.parent / "curves").mkdir()
    (metrics.parent / "pictures").mkdir()
    (metrics.parent / "pictures/a.png").write_bytes(b"png")
    lock = {
        "schema": "2.0",
        "stages": {
            "pretrain@deeplabv3plus_mini": {
                "cmd": "python -m meta_ood pretrain --network deeplabv3plus_mini",
                "deps": [{"path": "data/prepare/cityscapes_train", "hash": "md5", "md5": "aa.dir"}],
                "params": {"params.yaml": {"seed": params["seed"]}},
                "outs": [
                    {"path": str(weights), "hash": "md5", "md5": facts.file_md5(weights)},
                ],
            },
            f"evaluate@{PLACE.replace('/', '-')}": {
                "cmd": "python -m meta_ood evaluate --network deeplabv3plus_mini "
                "--variant baseline --dataset lost_and_found",
                "deps": [{"path": "src/meta_ood/scores.py", "hash": "md5", "md5": "bb"}],
                "params": {"params.yaml": {"evaluate": params["evaluate"], "seed": params["seed"]}},
                "outs": [{"path": str(metrics), "hash": "md5", "md5": facts.file_md5(metrics)}],
            },
        },
    }
    Path("dvc.lock").write_text(yaml.safe_dump(lock, sort_keys=False), encoding="utf-8")
    return tmp_path


def test_sync_restores_once_and_lineage_finds_both_ways(work):
    assert sync(work) == (0, 2)
    assert sync(work) == (0, 0)
    store = query.open_store(work)
    runs = {run.data.tags["stage"]: run for run in query.runs(store)}
    assert set(runs) == {"pretrain", "evaluate"}
    assert runs["evaluate"].data.metrics["evaluate/auroc"] == 0.9
    assert {run.data.tags["restored"] for run in runs.values()} == {"true"}
    setting = layout.setting_of(config.load(PARAMS), "evaluate", **CELL)
    tags = facts.setting_tags("evaluate", CELL, setting)
    assert tags.items() <= runs["evaluate"].data.tags.items()

    told = lineage.Lineage(work)
    weights = "data/networks/deeplabv3plus_mini/baseline.safetensors"
    from_file = "\n".join(told.of(weights))
    assert f"made by run {runs['pretrain'].info.run_id}" in from_file
    assert "is model deeplabv3plus_mini version 1" in from_file
    from_model = "\n".join(lineage.Lineage(work).of("deeplabv3plus_mini@baseline"))
    assert f"made by run {runs['pretrain'].info.run_id}" in from_model
    picture = f"data/evaluate/{PLACE}/metrics.json"
    assert runs["evaluate"].info.run_id in "\n".join(told.of(picture))
    assert "pretrain" in "\n".join(lineage.Lineage(work).of(runs["pretrain"].info.run_id))
    for wrong, expected in (
        ("nothing", "expected a file, a run id"),
        ("deeplabv3plus_mini@champion", "no such model version"),
        ("0" * 32, "no such run"),
    ):
        with pytest.raises(ValueError, match=expected):
            list(told.of(wrong))

    # what is out of date is not restored: another seed means that pretrain must run again
    params = config.read_yaml(Path("params.yaml"))
    Path("params.yaml").write_text(yaml.safe_dump(params | {"seed": 7}), encoding="utf-8")
    assert sync(work) == (0, 0)


def test_reproduce_says_why_it_cannot(work):
    run_of = {}
    with tracking.run("report", keys={}, params={}, inputs={}):
        pass
    writer.flush(work)
    store = query.open_store(work)
    (run_of["none"],) = query.runs(store)
    run_id = run_of["none"].info.run_id
    with pytest.raises(ValueError, match=r"no git\.sha"):
        reproduce.plan(work, run_id)
    store.set_tag(run_id, "git.sha", "1" * 40)
    store.set_tag(run_id, "git.dirty", "true")
    with pytest.raises(ValueError, match="changes that are in no commit"):
        reproduce.plan(work, run_id)
    store.set_tag(run_id, "git.dirty", "false")
    with pytest.raises(ValueError, match="not in this repository"):
        reproduce.plan(work, run_id)


def test_is_current_looks_at_inputs_and_params(work):
    locked = lockfile.read()
    evaluate = locked[f"evaluate@{PLACE.replace('/', '-')}"]
    assert evaluate.keys == CELL
    assert evaluate.deps == {}
    values = lockfile.flat(config.read_yaml(Path("params.yaml")))
    assert lockfile.is_current(evaluate, locked, values)
    assert not lockfile.is_current(evaluate, locked, values | {"evaluate.bootstrap": -1})
    owner = lockfile.owner(locked, f"data/evaluate/{PLACE}/metrics.json")
    assert owner == evaluate
