"""What the store holds after a stage, and that no trouble with the store stops a stage."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from meta_ood import config, tracking
from meta_ood.cli import main
from meta_ood.data.files import file_hash
from meta_ood.pipeline import paths as layout
from meta_ood.tracking import description, location, query, recorder, store
from meta_ood.tracking.store import all_runs, open_store

SOURCE = Path(__file__).parents[2] / "src"
pytestmark = pytest.mark.filterwarnings("ignore")  # mlflow's own


def files_of(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def track(stage="train", **more):
    return tracking.run(stage, **{"keys": {}, "params": {}, "inputs": {}} | more)


@pytest.mark.parametrize("how", ["META_OOD_TRACKING", "RANK", "DVC_STAGE"])
def test_what_is_not_recorded_leaves_nothing_behind(work, monkeypatch, how):
    """Switched off, another rank of torchrun, or a short stage under DVC."""
    monkeypatch.setenv(how, {"META_OOD_TRACKING": "off", "RANK": "1", "DVC_STAGE": "infer@x"}[how])
    before = files_of(work)
    with track("infer") as run:
        run.log({"a": 1.0}, 0)
        run.outputs({"metrics": Path("nowhere.json")})
    assert files_of(work) == before


def test_wrong_switch_is_an_error_that_names_the_right_ones(work, monkeypatch):
    monkeypatch.setenv("META_OOD_TRACKING", "maybe")
    with pytest.raises(tracking.TrackingError, match="on or off"), track():
        pass


def test_runs_files_inputs_and_models_reach_the_store(work):
    Path("data/raw").mkdir(parents=True)
    Path("data/raw/x.txt").write_text("x", encoding="utf-8")
    weights = Path("data/mini/ood_trained.safetensors")
    weights.parent.mkdir()
    weights.write_bytes(b"abc")
    pictures = Path("data/pictures")
    pictures.mkdir()
    (pictures / "a.png").write_bytes(b"png")
    metrics = Path("data/metrics.json")
    metrics.write_text('{"frames": 2, "ok": true, "scores": {"entropy": {"auroc": 0.75, "n": 9}}}', encoding="utf-8")
    keys, inputs = {"network": "mini"}, {"raw": Path("data/raw/x.txt")}
    for _ in range(2):  # the same weights twice: one version
        with track(keys=keys, params={"seed": 3}, inputs=inputs) as run:
            run.log({"train/loss": 2.0}, 0)
            run.log({"train/loss": 1.0, "train/not_finite": float("nan")}, 1)
            run.outputs({"weights": weights, "metrics": metrics, "pictures": pictures})
    with pytest.raises(RuntimeError, match="boom"), track("infer"):
        raise RuntimeError("boom")
    with pytest.raises(KeyboardInterrupt), track("infer"):
        raise KeyboardInterrupt

    client = open_store(work)
    *_, failed, train = found = list(all_runs(client))
    assert [(r.info.run_name, r.info.status) for r in found] == [
        ("infer", "KILLED"),
        ("infer", "FAILED"),
        ("mini seed=3 train", "FINISHED"),
        ("mini seed=3 train", "FINISHED"),
    ]
    assert failed.data.tags["stage"] == "train"
    assert train.data.params == {"seed": "3"}
    assert train.data.metrics == {"train/loss": 1.0, "train/frames": 2.0, "scores/auroc/entropy": 0.75}
    history = client.get_metric_history(train.info.run_id, "train/loss")
    assert [(m.step, m.value) for m in history] == [(0, 2.0), (1, 1.0)]
    (dataset,) = train.inputs.dataset_inputs
    assert dataset.dataset.digest == file_hash(Path("data/raw/x.txt"), "md5")
    listed = {f.path for f in client.list_artifacts(train.info.run_id)}
    assert listed == {"metrics.json", "pictures"}
    assert train.info.artifact_uri.startswith((work / "mlartifacts").as_uri())
    (version,) = client.search_model_versions("name = 'mini'")
    assert version.tags["weights.md5"] == file_hash(weights, "md5")
    assert version.run_id == train.info.run_id
    assert client.get_model_version_by_alias("mini", "ood_trained").version == version.version
    assert files_of(work / ".meta_ood/running") == []


def test_a_run_that_mlflow_run_has_made_is_not_doubled(work, monkeypatch):
    client = open_store(work)
    made = client.create_run(client.create_experiment("small"))
    monkeypatch.setenv("MLFLOW_RUN_ID", made.info.run_id)
    with track():
        assert "MLFLOW_RUN_ID" not in os.environ  # no child process may take it for its own
    monkeypatch.setenv("MLFLOW_RUN_ID", made.info.run_id)
    monkeypatch.setenv("DVC_STAGE", "train@x")
    with track():
        pass
    child, same = all_runs(client)
    assert (same.info.run_id, same.data.tags["stage"]) == (made.info.run_id, "train")
    assert child.data.tags["mlflow.parentRunId"] == made.info.run_id
    assert child.data.tags["dvc.stage"] == "train@x"


STAGE = """
import sys, time
from meta_ood import tracking
with tracking.run('train', keys={}, params={}, inputs={}) as run:
    run.log({'train/loss': 1.0}, 0)
    print('up', flush=True)
    time.sleep(60)
"""


def started(code=STAGE):
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": str(SOURCE)},
    )


def test_runs_of_killed_stages_do_not_stay_running(work):
    """SIGTERM ends the run at once; after SIGKILL the next one who opens the store does."""
    with started() as first, started() as second:
        assert first.stdout is not None
        assert second.stdout is not None
        first.stdout.readline()
        second.stdout.readline()
        client = open_store(work)
        assert store.end_dead_runs(client, work) == 0
        assert {run.info.status for run in all_runs(client)} == {"RUNNING"}
        first.send_signal(signal.SIGTERM)
        second.kill()
        assert first.wait(timeout=20) != 0
    statuses = sorted(run.info.status for run in all_runs(client))
    assert statuses == ["KILLED", "RUNNING"]
    with track():
        pass
    statuses = sorted(run.info.status for run in all_runs(client))
    assert statuses == ["FINISHED", "KILLED", "KILLED"]
    assert files_of(work / ".meta_ood/running") == []


def test_a_database_is_whole_whenever_its_maker_is_killed(work):
    """It is killed when it has made some of the tables; the next one finds nothing of them."""
    code = (
        "import logging; from pathlib import Path; from meta_ood.tracking import store\n"
        "import mlflow.store.db.utils as utils, os, signal\n"
        "make = utils._upgrade_db\n"
        "utils._upgrade_db = lambda engine: os.kill(os.getpid(), signal.SIGKILL)\n"
        "store.open_store(Path())\n"
    )
    Path("mlflow.db").unlink()
    with started(code) as process:
        assert process.wait(timeout=60) == -signal.SIGKILL
    assert not Path("mlflow.db").exists()
    assert list(all_runs(open_store(work))) == []
    assert [name for name in files_of(work) if ".tmp" in name] == []


def stage_warnings(caplog, **more):
    """Run a stage that must not notice anything; return what was warned of."""
    caplog.clear()
    metrics = Path("metrics.json")
    metrics.write_text('{"loss": 0.5}', encoding="utf-8")
    done = False
    with track(**more) as run:
        run.log({"train/loss": 1.0}, 0)
        run.outputs({"metrics": metrics})
        done = True
    assert done
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


def damaged(path):
    path.write_bytes(b"this is no database" * 500)


def silent_server(monkeypatch):
    """A server that takes requests and never answers, its address with name and password."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@127.0.0.1:{port}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    return listener


@pytest.mark.parametrize(
    "uri",
    [
        "http://me:secret@127.0.0.1:9",
        "postgresql://me:secret@127.0.0.1:9/x",
        "nonsense://me:secret@host",
        "file:///tmp/mlruns",
        "sqlite:////proc/mlflow.db",
    ],
)
def test_a_store_that_cannot_be_used_is_one_clear_warning(work, monkeypatch, caplog, uri):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    begin = time.monotonic()
    (warning,) = stage_warnings(caplog)
    assert time.monotonic() - begin < 30
    assert location.without_password(uri) in warning
    assert "the stage goes on" in warning
    assert "secret" not in warning
    result = CliRunner().invoke(main, ["sync"])
    assert (result.exit_code, "secret" in result.output) == (2, False)
    assert result.output.startswith(f"Error: {location.without_password(uri)}: ")


def test_mlflow_prints_no_address_at_the_end_of_a_run(work, monkeypatch):
    """It would print the one that it was given, with name and password."""
    from mlflow.environment_variables import MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT

    monkeypatch.setenv("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "false")
    open_store(work)
    assert MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT.get()


def test_a_server_that_never_answers_does_not_stop_a_stage(work, monkeypatch, caplog):
    with silent_server(monkeypatch):
        (warning,) = stage_warnings(caplog)
    assert "***@127.0.0.1" in warning


def test_a_damaged_database_and_a_deleted_experiment_are_warnings_with_the_cure(work, caplog):
    client = open_store(work)
    client.delete_experiment(client.create_experiment("meta-ood"))
    (warning,) = stage_warnings(caplog)
    assert "mlflow experiments restore" in warning
    damaged(Path("mlflow.db"))
    (warning,) = stage_warnings(caplog)
    assert "move it away and run `meta-ood sync`" in warning


def away(*_):
    raise OSError("the store is away")


def test_values_wait_for_a_store_that_is_away_for_a_while(work, monkeypatch):
    monkeypatch.setattr("meta_ood.tracking.recorder._WRITE_SECONDS", 0.0)
    monkeypatch.setattr("meta_ood.tracking.recorder._RETRY_SECONDS", 0.0)
    with track() as run:
        run.log({"train/loss": 1.0}, 0)
        with monkeypatch.context() as patch:
            patch.setattr(type(run.run), "log", away)
            run.log({"train/loss": 0.5}, 1)
        run.log({"train/loss": 0.25}, 2)
    client = open_store(work)
    (found,) = all_runs(client)
    history = client.get_metric_history(found.info.run_id, "train/loss")
    assert [(m.step, m.value) for m in history] == [(0, 1.0), (1, 0.5), (2, 0.25)]


def test_a_run_whose_outputs_are_not_in_the_store_is_no_run_of_its_stage(work, monkeypatch, caplog):
    """So `sync` records the stage again."""
    with monkeypatch.context() as patch:
        patch.setattr("meta_ood.tracking.runs.OpenRun.outputs", away)
        (warning,) = stage_warnings(caplog)
    assert "the outputs could not be recorded (OSError: the store is away)" in warning
    (found,) = all_runs(open_store(work))
    assert found.info.status == "FINISHED"
    assert not query.is_of(found, {}, {})


def test_a_full_or_unwritable_folder_for_marks_is_a_warning(work, caplog):
    Path(".meta_ood").write_text("not a folder", encoding="utf-8")
    (warning,) = stage_warnings(caplog)
    assert ".meta_ood" in warning


@pytest.mark.parametrize("copied", [True, False])
def test_files_of_runs_follow_a_folder_that_is_moved_or_copied(work, tmp_path_factory, copied):
    Path("a.txt").write_text("old", encoding="utf-8")
    with track() as run:
        run.outputs({"page": Path("a.txt")})
    new = tmp_path_factory.mktemp("elsewhere") / "with space"
    (shutil.copytree if copied else shutil.move)(work, new)
    os.chdir(new)
    with track() as run:
        run.outputs({"page": Path("a.txt")})
    client = open_store(new)
    for found in all_runs(client):
        assert found.info.artifact_uri.startswith(new.as_uri())
        assert [file.path for file in client.list_artifacts(found.info.run_id)] == ["a.txt"]
    if copied:  # the copy has taken nothing from the original
        os.chdir(work)
        (found,) = all_runs(open_store(work))
        assert found.info.artifact_uri.startswith(work.as_uri())
        assert len(files_of(work / "mlartifacts")) == 1


def test_a_database_that_two_clones_share_keeps_its_places(work, tmp_path_factory, monkeypatch):
    """It is named by MLFLOW_TRACKING_URI, and its files lie beside it, whoever writes."""
    shared = tmp_path_factory.mktemp("shared")
    shutil.copy("mlflow.db", shared)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{shared}/mlflow.db")
    for clone in (work, tmp_path_factory.mktemp("clone")):
        os.chdir(clone)
        with track():
            pass
        assert not (clone / "mlartifacts").exists()
    places = {run.info.artifact_uri.rpartition("/mlartifacts")[0] for run in all_runs(open_store(work))}
    assert places == {shared.as_uri()}


def test_a_group_may_write_where_it_may_write_into_the_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    tmp_path.chmod(0o2775)
    old = os.umask(0o022)
    try:
        client = open_store(tmp_path)
        store.experiment_id(client, "meta-ood")
        store.RunningMark("uri", tmp_path).remove()
    finally:
        os.umask(old)
    for name in ("mlflow.db", "mlartifacts", ".mlflow.lock", ".meta_ood", ".meta_ood/running"):
        assert (tmp_path / name).stat().st_mode & stat.S_IWGRP, name


def evaluated(seed, ood_weight, variant, auroc):
    """Track one evaluation as the command does, with a setting that is read from params."""
    params = config.load(Path("params.yaml"), [f"seed={seed}", f"train.ood_weight={ood_weight}", "report.title=x"])
    cell = {"network": "dualgcn_mini", "variant": variant, "dataset": "lost_and_found"}
    metrics = Path("metrics.json")
    metrics.write_text(json.dumps({"auroc": auroc, "weights": "abc"}), encoding="utf-8")
    with track(
        "evaluate",
        keys=cell,
        params=config.stage_values(params, "evaluate", **cell),
        setting=layout.setting_of(params, "evaluate", **cell),
    ) as run:
        run.outputs({"metrics": metrics})
        if auroc is None:
            raise KeyboardInterrupt


def test_runs_of_one_setting_over_seeds_are_found_together(work):
    with pytest.raises(ValueError, match="no finished run of evaluate"):
        compare("--seeds")
    runs = [(0, 0.5, "ood_trained", 0.9), (0, 0.5, "ood_trained", 0.5)]  # the later one counts
    runs += [(1, 0.5, "ood_trained", 0.7), (0, 0.9, "ood_trained", 0.8)]
    runs += [(0, 0.5, "baseline", 0.25), (1, 0.9, "baseline", 0.75)]  # has no ood_weight
    for run in runs:
        evaluated(*run)
        time.sleep(0.002)  # the store orders runs by their milliseconds
    with pytest.raises(KeyboardInterrupt):
        evaluated(2, 0.5, "ood_trained", None)
    groups = {}
    for run in all_runs(open_store(work), "tags.stage = 'evaluate'"):
        groups.setdefault(run.data.tags["group"], []).append(run.data.params["seed"])
        # so that a chart can plot results against what was trained
        trained = run.data.tags["variant"] == "ood_trained"
        assert ("train.ood_weight" in run.data.params) == trained
    assert sorted(map(sorted, groups.values())) == [["0"], ["0", "0", "1", "2"], ["0", "1"]]
    blocks = [block.splitlines() for block in compare("--seeds").split("\n\n")]
    found = {lines[0]: next(line.split() for line in lines if "auroc" in line) for lines in blocks}
    cell = "dualgcn_mini · {} · lost_and_found"
    assert found == {
        cell.format("baseline"): ["auroc", "0.5000", "0.3536", "0.2500", "0.7500", "2"],
        f"{cell.format('ood_trained')} · ood_weight 0.5": (["auroc", "0.6000", "0.1414", "0.5000", "0.7000", "2"]),
        f"{cell.format('ood_trained')} · ood_weight 0.9": (["auroc", "0.8000", "–", "0.8000", "0.8000", "1"]),
    }


def compare(*arguments):
    result = CliRunner().invoke(main, ["-v", "compare", *arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_names_of_runs_begin_with_what_differs():
    cell = {"network": "mini", "variant": "ood_trained", "dataset": "lost_and_found"}
    name = description.run_name("evaluate", cell, {"train.ood_weight": 0.9, "seed": 0})
    assert name == "λ=0.9 lost_and_found mini seed=0 evaluate"
    assert description.run_name("meta", cell, {}) == "meta ood_trained lost_and_found mini"


def test_a_training_has_the_load_of_the_machine_and_its_weights_a_step(work, monkeypatch):
    monkeypatch.setattr(recorder, "_SYSTEM_SECONDS", 0.0)
    Path("data").mkdir()
    weights, metrics = Path("data/ood_trained.safetensors"), Path("data/ood_trained.json")
    weights.write_bytes(b"abc")
    metrics.write_text('{"step": 7, "steps": 9, "miou": 0.5}', encoding="utf-8")
    with track(keys={"network": "mini"}) as run:
        for step in range(3):
            run.log({"train/loss": 1.0}, step)
        run.outputs({"weights": weights, "metrics": metrics})
    client = open_store(work)
    (train,) = all_runs(client)
    found = train.data.metrics
    assert 0 < found["system/system_memory_usage_percentage"] < 100
    loads = client.get_metric_history(train.info.run_id, "system/cpu_utilization_percentage")
    assert [m.step for m in loads] == [1, 2]  # the first look only starts the counters
    (model,) = train.outputs.model_outputs
    assert model.step == 7
    assert [m.step for m in client.get_metric_history(train.info.run_id, "train/miou")] == [7]
    assert not {"train/step", "train/steps"} & set(found)  # no results


def test_a_setting_too_long_for_a_tag_is_still_a_group():
    tags = description.setting_tags("evaluate", {}, {"key": "x" * 6000})
    assert list(tags) == ["group"]
    assert tags != description.setting_tags("evaluate", {}, {"key": "y" * 6000})


def test_the_page_opens_in_the_mode_that_shows_runs(work, monkeypatch):
    commands = []
    monkeypatch.setattr(os, "execv", lambda program, command: commands.append(command))
    result = CliRunner().invoke(main, ["ui", "--port", "5001"])
    experiment = store.experiment_id(open_store(work), "meta-ood")
    page = f"http://127.0.0.1:5001/#/experiments/{experiment}/runs?workflowType=machine_learning"
    first, results, curves = result.output.splitlines()
    assert first == f"all runs         {page}"
    assert "evaluate" in results
    assert curves.endswith("&compareRunsMode=CHART")
    assert f"sqlite:///{work}/mlflow.db" in commands[0]  # one word of the command, also with blanks
