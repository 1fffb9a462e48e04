"""Tracking: journals, the writer, and what the store holds afterwards."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from meta_ood import config, tracking
from meta_ood.cli import main
from meta_ood.pipeline import paths as layout
from meta_ood.tracking import facts, recording, writer
from meta_ood.tracking.journal import Journal, journals

PARAMS = Path(__file__).parents[2] / "params.yaml"


@pytest.fixture
def work(tmp_path, monkeypatch):
    """Be in an empty project whose writer is called by the test, not spawned."""
    for name in ("MLFLOW_RUN_ID", "MLFLOW_TRACKING_URI", "DVC_STAGE", "DVC_ROOT", "RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("META_OOD_TRACKING", "on")
    monkeypatch.setattr(recording, "ensure_writer", lambda root: None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(PARAMS.read_text(encoding="utf-8"), encoding="utf-8")
    return tmp_path


def test_lock_hashes_reads_what_yaml_reads():
    lock = {
        "schema": "2.0",
        "stages": {
            "a@b": {
                "cmd": "python -m x --y z",
                "deps": [{"path": "data/in", "hash": "md5", "md5": "11.dir", "size": 3}],
                "params": {"params.yaml": {"seed": 0, "infer": {"path": "no"}}},
                "outs": [
                    {"path": "data/out", "hash": "md5", "md5": "22.dir", "size": 3, "nfiles": 2},
                    {"path": "data/with space.json", "hash": "md5", "md5": "33", "size": 1},
                ],
            },
            "c": {"cmd": "x", "outs": [{"path": "data/more", "hash": "md5", "md5": "44"}]},
        },
    }
    text = yaml.safe_dump(lock, sort_keys=False)
    expected = {o["path"]: o["md5"] for s in lock["stages"].values() for o in s["outs"]}
    assert facts.lock_hashes(text) == expected
    single = {"outs": [{"md5": "55.dir", "size": 1, "hash": "md5", "path": "raw"}]}
    assert facts.lock_hashes(yaml.safe_dump(single, sort_keys=False)) == {"raw": "55.dir"}


def test_off_switch_leaves_nothing_behind(work, monkeypatch):
    monkeypatch.setenv("META_OOD_TRACKING", "off")
    with tracking.run("infer", keys={}, params={}, inputs={}) as run:
        run.log({"a": 1.0}, 0)
        run.outputs({"metrics": Path("nowhere.json")})
    assert sorted(p.name for p in work.iterdir()) == ["params.yaml"]


def test_wrong_switch_says_what_is_expected(work, monkeypatch):
    monkeypatch.setenv("META_OOD_TRACKING", "maybe")
    with (
        pytest.raises(tracking.TrackingError, match="on, wait or off"),
        tracking.run("infer", keys={}, params={}, inputs={}),
    ):
        pass


def test_unreachable_server_is_found_at_once(work, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    begin = time.monotonic()
    with (
        pytest.raises(tracking.TrackingError, match=r"127\.0\.0\.1:9.*META_OOD_TRACKING=off"),
        tracking.run("infer", keys={}, params={}, inputs={}),
    ):
        pass
    assert time.monotonic() - begin < 10
    assert list(journals(work)) == []


def test_only_rank_0_is_tracked(work, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    with tracking.run("train", keys={}, params={}, inputs={}) as run:
        assert run.journal is None


def test_a_process_that_died_leaves_a_journal_without_lock(work):
    journal = Journal.create(work, {"x": 1})
    (seen,) = journals(work)
    assert seen.alive()
    journal.close()
    assert not seen.alive()


def test_sigterm_ends_a_run_as_failed(work):
    code = (
        "import time, sys\n"
        "from meta_ood import tracking\n"
        "from meta_ood.tracking import recording\n"
        "recording.ensure_writer = lambda root: None\n"
        "with tracking.run('train', keys={}, params={}, inputs={}):\n"
        "    print('up', flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": str(PARAMS.parent / "src")},
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) != 0
    (journal,) = journals(work)
    assert journal.events()[-1]["status"] == "FAILED"
    assert not journal.alive()


@pytest.mark.filterwarnings("ignore")  # mlflow's own
def test_runs_files_inputs_and_models_reach_the_store(work):
    """One store for all: making a database takes seconds."""
    import mlflow

    Path("data/raw").mkdir(parents=True)
    Path("data/raw/x.txt").write_text("x", encoding="utf-8")
    weights = Path("data/mini/ood_trained.safetensors")
    weights.parent.mkdir()
    weights.write_bytes(b"abc")
    pictures = Path("data/pictures")
    pictures.mkdir()
    (pictures / "a.png").write_bytes(b"png")
    metrics = Path("data/metrics.json")
    metrics.write_text('{"scores": {"entropy": {"auroc": 0.75}}}', encoding="utf-8")
    keys, inputs = {"network": "mini"}, {"raw": Path("data/raw/x.txt")}
    for _ in range(2):  # the same weights twice: one version
        with tracking.run("train", keys=keys, params={"seed": 3}, inputs=inputs) as run:
            run.log({"train/loss": 2.0}, 0)
            run.log({"train/loss": 1.0}, 1)
            run.outputs({"weights": weights, "metrics": metrics, "pictures": pictures})
    with (
        pytest.raises(RuntimeError, match="boom"),
        tracking.run("infer", keys={}, params={}, inputs={}),
    ):
        raise RuntimeError("boom")
    start = next(journals(work)).events()[0]
    killed = Journal.create(work, start | {"name": "killed", "time": start["time"] + 60_000})
    killed.close()

    assert writer.flush(work) == 4
    assert list(journals(work)) == []
    store = mlflow.MlflowClient(f"sqlite:///{work}/mlflow.db")
    (experiment,) = (e for e in store.search_experiments() if e.name == "meta-ood")
    runs = store.search_runs([experiment.experiment_id], order_by=["start_time"])
    assert [(r.info.run_name, r.info.status) for r in runs] == [
        ("train mini seed=3", "FINISHED"),
        ("train mini seed=3", "FINISHED"),
        ("infer", "FAILED"),
        ("killed", "FAILED"),
    ]
    train = runs[0]
    assert train.data.params == {"seed": "3"}
    assert train.data.metrics["auroc/entropy"] == 0.75
    history = store.get_metric_history(train.info.run_id, "train/loss")
    assert [(m.step, m.value) for m in history] == [(0, 2.0), (1, 1.0)]
    (dataset,) = train.inputs.dataset_inputs
    assert dataset.dataset.digest == facts.file_md5(Path("data/raw/x.txt"))
    listed = {f.path for f in store.list_artifacts(train.info.run_id)}
    assert listed == {"metrics.json", "pictures"}
    assert train.info.artifact_uri.startswith((work / "mlartifacts").as_uri())
    assert store.get_model_version_by_alias("mini", "ood_trained").run_id == train.info.run_id
    (version,) = store.search_model_versions("name = 'mini'")
    assert version.tags["weights.md5"] == facts.file_md5(weights)
    assert version.run_id == train.info.run_id


def test_environment_is_not_left_with_a_run_id(work, monkeypatch):
    monkeypatch.setenv("MLFLOW_RUN_ID", "abc")
    monkeypatch.setenv("DVC_STAGE", "infer@x")
    with tracking.run("infer", keys={}, params={}, inputs={}) as run:
        assert "MLFLOW_RUN_ID" not in os.environ
        assert run.journal is not None
        start = run.journal.events()[0]
    assert (start["parent"], start["run_id"]) == ("abc", None)
    assert start["tags"]["dvc.stage"] == "infer@x"


def test_the_writer_stays_until_all_is_written_however_slow_it_is(work, monkeypatch):
    """A journal that is begun while mlflow is imported, and ended later, is not left behind."""
    journal = Journal.create(work, {"x": 1})
    calls = []

    def slow(seen):
        calls.append(time.monotonic())
        time.sleep(0.3)  # longer than the writer would wait for more
        if len(calls) == 2:
            journal.close()
        if len(calls) < 3:
            return False
        seen.remove()
        return True

    monkeypatch.setattr(writer, "advance", slow)
    assert writer.serve(work, idle=0.2) == 1
    assert list(journals(work)) == []


def test_a_journal_that_cannot_be_written_stays(work, monkeypatch):
    Journal.create(work, {"x": 1}).close()

    def fail(seen):
        raise OSError("the store is away")

    monkeypatch.setattr(writer, "advance", fail)
    monkeypatch.setattr(writer, "_POLL_SECONDS", 0.01)
    assert writer.flush(work) == 0
    assert writer.serve(work, idle=0.01) == 0
    assert len(list(journals(work))) == 1


def evaluated(seed, ood_weight, variant, auroc):
    """Track one evaluation as the command does, with a setting that is read from params."""
    params = config.load(
        Path("params.yaml"), [f"seed={seed}", f"train.ood_weight={ood_weight}", "report.title=x"]
    )
    cell = {"network": "dualgcn_mini", "variant": variant, "dataset": "lost_and_found"}
    metrics = Path("metrics.json")
    metrics.write_text(json.dumps({"auroc": auroc, "weights": "abc"}), encoding="utf-8")
    with tracking.run(
        "evaluate",
        keys=cell,
        params=config.stage_values(params, "evaluate", **cell),
        inputs={},
        setting=layout.setting_of(params, "evaluate", **cell),
    ) as run:
        run.outputs({"metrics": metrics})
        if auroc is None:
            raise KeyboardInterrupt


@pytest.mark.filterwarnings("ignore")  # mlflow's own
def test_runs_of_one_setting_over_seeds_are_found_together(work):
    from meta_ood.tracking import query

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
    assert writer.flush(work) == 7
    groups = {}
    for run in query.runs(query.open_store(work), "tags.stage = 'evaluate'"):
        groups.setdefault(run.data.tags["group"], []).append(run.data.params["seed"])
    assert sorted(map(sorted, groups.values())) == [["0"], ["0", "0", "1", "2"], ["0", "1"]]
    blocks = [block.splitlines() for block in compare("--seeds").split("\n\n")]
    found = {lines[0]: next(line.split() for line in lines if "auroc" in line) for lines in blocks}
    cell = "dualgcn_mini · {} · lost_and_found"
    assert found == {
        cell.format("baseline"): ["auroc", "0.5000", "0.3536", "0.2500", "0.7500", "2"],
        f"{cell.format('ood_trained')} · ood_weight 0.5": (
            ["auroc", "0.6000", "0.1414", "0.5000", "0.7000", "2"]
        ),
        f"{cell.format('ood_trained')} · ood_weight 0.9": (
            ["auroc", "0.8000", "–", "0.8000", "0.8000", "1"]
        ),
    }


def compare(*arguments):
    result = CliRunner().invoke(main, ["-v", "compare", *arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_a_setting_too_long_for_a_tag_is_still_a_group():
    tags = facts.setting_tags("evaluate", {}, {"key": "x" * 6000})
    assert list(tags) == ["group"]
    assert tags != facts.setting_tags("evaluate", {}, {"key": "y" * 6000})
