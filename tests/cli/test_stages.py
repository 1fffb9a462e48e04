"""Commands: what they refuse, warn of and report."""

import logging
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from demo_world import REPOSITORY
from meta_ood import config
from meta_ood.cli import main, stages
from meta_ood.cli.stages import run_stage
from meta_ood.pipeline import synthesize

PARAMS = REPOSITORY / "params.yaml"
COUNTS = "synthesize={height: 64, width: 128, cityscapes_train: 1, cityscapes_val: 1, coco: 1, %s"
SMALL = COUNTS % "lost_and_found: 1, fishyscapes: 1}"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(*overrides: str, out: Path = Path("data")) -> None:
    run_stage("synthesize", {}, params_file=PARAMS, overrides=overrides, out=out, track=False)


def test_the_last_line_says_what_came_out_and_where(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    run(SMALL)
    line = caplog.messages[-1]
    assert line.startswith("synthesize: wrote data/raw/demo/cityscapes (")
    assert "data/raw/demo/fishyscapes (" in line


def test_an_override_that_the_stage_does_not_use_is_told(caplog: pytest.LogCaptureFixture) -> None:
    same = f"segments.threshold={config.load(PARAMS).segments.threshold}"
    run(SMALL, "train.ood_weight=0.5", same, "tracking.experiment=x")
    told = [message for message in caplog.messages if "changes nothing" in message]
    assert told == ["--set train.ood_weight=0.5 changes nothing: synthesize uses seed, synthesize, tracking"]


def test_a_second_run_of_an_instance_is_refused_and_names_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    started = []

    def run_again(params: config.Params, **_: object) -> None:
        started.append(params.seed)
        with pytest.raises(BlockingIOError, match=rf"synthesize is running since 2.* by process {os.getpid()} on"):
            run(SMALL, "seed=1")  # the same outputs
        with pytest.raises(BlockingIOError, match="synthesize is running since"):
            run(SMALL, out=Path("elsewhere"))  # the same resume folder
        raise KeyboardInterrupt

    monkeypatch.setattr(synthesize, "run", run_again)
    with pytest.raises(KeyboardInterrupt):
        run(SMALL)
    assert started == [0]


def test_the_other_processes_of_torchrun_take_no_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    with stages._alone("infer", "a"), stages._alone("infer", "a"):
        assert not stages.LOCKS.exists()


def test_statistics_are_asked_for_only_where_a_score_needs_them() -> None:
    """Everything else that the stage reads is there, but empty."""
    Path("data/prepare/lost_and_found").mkdir(parents=True)
    weights = Path("data/networks/dualgcn_mini/baseline.safetensors")
    weights.parent.mkdir(parents=True)
    weights.touch()
    keys = {"network": "dualgcn_mini", "variant": "baseline", "dataset": "lost_and_found"}
    made = "make it with: meta-ood statistics --network dualgcn_mini --variant baseline$"
    with pytest.raises(FileNotFoundError, match=rf"statistics .* infer.scores has knn, kl_to_prior, .*{made}"):
        run_stage("infer", keys, params_file=PARAMS, overrides=["infer.scores=[knn, kl_to_prior]"], track=False)
    with pytest.raises(FileNotFoundError, match=r"frames\.csv"):  # the stage itself runs, and finds no frames
        run_stage("infer", keys, params_file=PARAMS, track=False)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("infer --network dualgcn_mni --variant baseline --dataset coco", "did you mean dualgcn_mini?"),
        ("segments --network dualgcn_mini --variant basline --dataset coco", "did you mean baseline?"),
        ("prepare --dataset coca", "did you mean coco?"),
        ("promote --network dualgcn", "did you mean dualgcn_mini?"),
        ("promote --network dualgcn_mini --variant trained", "did you mean ood_trained?"),
        ("weights import none.pth --network dualgcn --variant baseline", "did you mean dualgcn_mini?"),
        ("submit fishyscape --network dualgcn_mini --variant baseline --dataset coco", "did you mean fishyscapes?"),
        ("submit fishyscapes --network dualgcn_mini --variant baseline --dataset coca", "did you mean coco?"),
        ("evaluate-maps --scores . --targets . --protocol smic", "did you mean smiyc?"),
        ("evaluate-maps --scores . --targets . --encoding meta_ood", "did you mean meta-ood?"),
        ("evaluate-maps --scores . --targets . --track obstacles", "did you mean obstacle?"),
        ("compare-meta none.h5 --folds scenes", "did you mean scene?"),
        ("compare-meta none.h5 --classifier logistic", "known: gradient_boosted_trees"),
        ("data check coca", "did you mean coco?"),
        ("data audit-proxies coca", "did you mean coco?"),
        ("data synthesize cocoa out", "did you mean coco?"),
    ],
)
def test_names_are_checked_before_files(command: str, message: str) -> None:
    Path("params.yaml").write_text(PARAMS.read_text())
    result = CliRunner().invoke(main, command.split())
    assert result.exit_code == 2, result.output
    assert message in result.output
