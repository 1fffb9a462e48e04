"""Sync and lineage against a small dvc.lock and a store of their own."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from meta_ood import config, tracking
from meta_ood.cli import main
from meta_ood.data.files import file_hash
from meta_ood.pipeline import lockfile
from meta_ood.pipeline import paths as layout
from meta_ood.tracking import description, lineage, reproduce
from meta_ood.tracking.store import all_runs, open_store
from meta_ood.tracking.sync import sync

PARAMS = Path(__file__).parents[2] / "params.yaml"
CELL = {"network": "deeplabv3plus_mini", "variant": "baseline", "dataset": "lost_and_found"}
PLACE = "deeplabv3plus_mini/baseline/lost_and_found"
pytestmark = pytest.mark.filterwarnings("ignore")  # mlflow's own


@pytest.fixture
def work(work):
    """Let DVC have run `pretrain` and `evaluate`."""
    params = config.read_yaml(PARAMS)
    weights = Path("data/networks/deeplabv3plus_mini/baseline.safetensors")
    metrics = Path(f"data/evaluate/{PLACE}/metrics.json")
    for path in (weights, metrics):
        path.parent.mkdir(parents=True)
    weights.write_bytes(b"weights")
    weights.with_suffix(".json").write_text('{"miou": 0.5}', encoding="utf-8")
    weights.with_suffix(".csv").write_text("step,curve,value\n", encoding="utf-8")
    sha256 = "9e2e4ee4b7ea8cbb0ce4a5a0a0ea1d5b"
    values = {"weights": sha256, "auroc": 0.9, "frames": 4}
    metrics.write_text(json.dumps(values), encoding="utf-8")
    (metrics.parent / "summary.json").write_text("{}", encoding="utf-8")
    (metrics.parent / "masks.h5").write_bytes(b"masks")
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
                "outs": [{"path": str(weights), "hash": "md5", "md5": file_hash(weights, "md5")}],
            },
            f"evaluate@{PLACE.replace('/', '-')}": {
                "cmd": "python -m meta_ood evaluate --network deeplabv3plus_mini "
                "--variant baseline --dataset lost_and_found",
                "deps": [{"path": "src/meta_ood/scores.py", "hash": "md5", "md5": "bb"}],
                "params": {"params.yaml": {"evaluate": params["evaluate"], "seed": params["seed"]}},
                "outs": [{"path": str(metrics), "hash": "md5", "md5": file_hash(metrics, "md5")}],
            },
        },
    }
    Path("dvc.lock").write_text(yaml.safe_dump(lock, sort_keys=False), encoding="utf-8")
    return work


def test_sync_records_once_and_lineage_finds_both_ways(work):
    assert sync(work) == 2
    assert sync(work) == 0
    store = open_store(work)
    runs = {run.data.tags["stage"]: run for run in all_runs(store)}
    assert set(runs) == {"pretrain", "evaluate"}
    assert runs["evaluate"].data.metrics["evaluate/auroc"] == 0.9
    assert {run.data.tags["recorded"] for run in runs.values()} == {"from dvc.lock"}
    setting = layout.setting_of(config.load(PARAMS), "evaluate", **CELL)
    # evaluations carry what they evaluate, so that a chart can plot results against it
    assert runs["evaluate"].data.params["pretrain.epochs"] == str(config.read_yaml(PARAMS)["pretrain"]["epochs"])
    tags = description.setting_tags("evaluate", CELL, setting)
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

    # a later training made other weights: the older dvc.lock does not mean its run
    later = store.create_run(runs["pretrain"].info.experiment_id, tags=runs["pretrain"].data.tags)
    store.set_tag(later.info.run_id, "weights.md5", "0" * 32)
    for name, text in (runs["pretrain"].data.params | {"seed": "7"}).items():
        store.log_param(later.info.run_id, name, text)
    store.set_terminated(later.info.run_id, "FINISHED")
    assert f"made by run {runs['pretrain'].info.run_id}" in "\n".join(lineage.Lineage(work).of(weights))

    # what differs between a version and a run: the seed; the run has none of the version's inputs and tags
    two = ("deeplabv3plus_mini/1", later.info.run_id)
    changed = list(lineage.Lineage(work).between(*two))
    assert changed[:2] == [" -> ".join(two), f"  seed: {runs['pretrain'].data.params['seed']} -> 7"]
    assert any(re.fullmatch("  input data/prepare/cityscapes_train: .+ -> –", line) for line in changed)
    same = list(lineage.Lineage(work).between(two[0], "deeplabv3plus_mini@baseline"))
    assert same == [f"{two[0]} -> deeplabv3plus_mini@baseline: no parameter, input, commit or tag differs"]

    # what is out of date is not recorded: another seed means that pretrain must run again
    params = config.read_yaml(Path("params.yaml"))
    Path("params.yaml").write_text(yaml.safe_dump(params | {"seed": 7}), encoding="utf-8")
    assert sync(work) == 0


def test_reproduce_says_why_it_cannot(work):
    with tracking.run("report", keys={}, params={}, inputs={}):
        pass
    store = open_store(work)
    (run,) = all_runs(store)
    run_id = run.info.run_id
    with pytest.raises(ValueError, match=r"no git\.sha"):
        reproduce.script(work, run_id)
    store.set_tag(run_id, "git.sha", "1" * 40)
    store.set_tag(run_id, "git.dirty", "true")
    with pytest.raises(ValueError, match="changes that are in no commit"):
        reproduce.script(work, run_id)
    store.set_tag(run_id, "git.dirty", "false")
    with pytest.raises(ValueError, match="not in this repository"):
        reproduce.script(work, run_id)


def test_is_current_looks_at_inputs_and_params(work):
    locked = lockfile.read()
    evaluate = locked[f"evaluate@{PLACE.replace('/', '-')}"]
    assert evaluate.keys == CELL
    assert evaluate.deps == {}
    values = config.flat(config.read_yaml(Path("params.yaml")))
    assert lockfile.is_current(evaluate, locked, values)
    assert not lockfile.is_current(evaluate, locked, values | {"evaluate.bootstrap": -1})
    owner = lockfile.owner(locked, f"data/evaluate/{PLACE}/metrics.json")
    assert owner == evaluate


def test_a_cut_lock_file_is_an_error_that_names_the_cure(work):
    """A killed `dvc` leaves dvc.lock empty or cut off; such a text may still be YAML."""
    whole = lockfile.read()
    text = Path("dvc.lock").read_text(encoding="utf-8")
    cure = r"dvc\.lock is empty or cut off.*meta-ood repair.*dvc repro"
    errors = 0
    for length in range(len(text)):
        Path("dvc.lock").write_text(text[:length], encoding="utf-8")
        try:
            cut = lockfile.read()
        except ValueError as error:
            errors += bool(re.search(cure, str(error)))
        else:  # what follows the last hash does not matter
            assert cut.items() <= whole.items()
    # the others are cuts between lines after which every hash is whole
    assert errors > 0.9 * len(text)
    Path("dvc.lock").write_text("", encoding="utf-8")
    for command in (sync, lineage.Lineage):
        with pytest.raises(ValueError, match=cure):
            command(work)


def test_the_report_first_records_the_stages_before_it(work, monkeypatch):
    monkeypatch.setenv("DVC_STAGE", "report")
    monkeypatch.setenv("DVC_EXP_NAME", "sweep-1")
    for _ in range(2):
        with tracking.run("report", keys={}, params={}, inputs={}):
            pass
    stages = [run.data.tags["stage"] for run in all_runs(open_store(work))]
    assert sorted(stages) == ["evaluate", "pretrain", "report", "report"]
    names = {run.data.tags["dvc.exp.name"] for run in all_runs(open_store(work))}
    assert names == {"sweep-1"}


def test_a_store_that_fails_during_sync_is_one_line_and_the_next_sync_does_the_rest(work, monkeypatch):
    from mlflow.exceptions import MlflowException

    def fail(*_):
        raise MlflowException("API request to http://me:secret@host failed\nTraceback")

    with monkeypatch.context() as patch:
        patch.setattr("meta_ood.tracking.runs.OpenRun.outputs", fail)
        result = CliRunner().invoke(main, ["sync"])
    error, remedy = result.output.splitlines()
    assert error == "Error: the tracking store failed: MlflowException: API request to http://***@host failed"
    assert (result.exit_code, remedy[:6]) == (2, "To do:")
    assert sync(work) == 2
    statuses = [run.info.status for run in all_runs(open_store(work))]
    assert sorted(statuses) == ["FAILED", "FINISHED", "FINISHED"]
