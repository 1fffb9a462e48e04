"""The first screen of --help, what every error ends with, and --json."""

import errno
import json
import math
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from evaluation_folder import DATASETS, write_cell
from meta_ood.cli import GROUPS, STAGES, TOOLS, main, options, remedies
from meta_ood.config import ConfigError


def call(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == code, result.output
    return result.output


def test_the_first_screen_names_every_command_in_a_screen() -> None:
    text = call("--help")
    assert {*STAGES, *TOOLS} <= set(text.split())
    assert len(text.splitlines()) <= 24  # of a terminal
    everything = call("--help-all")
    assert all(purpose in everything for purpose in GROUPS)
    assert len(everything.splitlines()) > len(text.splitlines())


@pytest.mark.parametrize(
    ("error", "command", "told"),
    [
        (ConfigError("seed: got x"), "train", "meta-ood STAGE --help"),
        (OSError(errno.ENOSPC, "No space left on device"), "infer", "run the same command again"),
        (OSError(errno.ENOMEM, "8 images do not fit"), "scan", "--batch-size"),
        (ValueError("data/networks/a/ood_trained.safetensors: damaged"), "detect", "dvc repro train"),
        (FileNotFoundError("data/evaluate/a/b is missing"), "compare", "dvc repro evaluate"),
        (FileNotFoundError("data/raw/demo/coco is missing"), "prepare", "dvc repro synthesize"),
        (FileNotFoundError("data/raw/coco is missing"), "prepare", "meta-ood data check"),
        (ValueError("threshold nan"), "evaluate-maps", "meta-ood evaluate-maps --help"),
    ],
)
def test_the_remedy_is_that_of_the_kind_the_file_or_the_command(error: Exception, command: str, told: str) -> None:
    assert told in remedies.remedy(error, command)


def test_every_folder_that_a_remedy_names_has_its_stage() -> None:
    assert set(remedies._FOLDERS.values()) <= {*STAGES, *TOOLS}


def test_an_error_ends_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    last = call("train", "--network", "x", code=2).splitlines()[-1]
    assert last.startswith("To do: ")


def test_a_package_that_is_missing_is_no_defect(tmp_path: Path) -> None:
    without = "import sys; sys.modules['mlflow'] = None; from meta_ood.cli import main; main(['sync'])"
    done = subprocess.run([sys.executable, "-c", without], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    told, remedy = done.stderr.splitlines()
    assert "mlflow is not installed" in told
    assert remedy == "To do: pip install 'mlflow'"


def test_results_as_json(tmp_path: Path) -> None:
    for seed in ("1", "2"):
        for variant in ("baseline", "ood_trained"):
            write_cell(
                tmp_path / seed / "dualgcn_mini" / variant / "lost_and_found", "dualgcn_mini", variant, DATASETS[0]
            )
    (first, *_) = json.loads(call("compare", str(tmp_path / "1"), "--json"))
    change = first["metrics"]["auprc"]
    assert change["after"] - change["before"] == pytest.approx(change["change"])
    spread = json.loads(call("compare", str(tmp_path / "1"), str(tmp_path / "2"), "--json"))[0]["metrics"]["auprc"]
    assert (spread["n"], spread["deviation"]) == (2, 0)  # the same numbers twice


def test_what_is_not_finite_is_null(capsys: pytest.CaptureFixture[str]) -> None:
    options.answer(True, {"low": math.nan, "ends": (math.inf, 1.0)}, "text")
    assert json.loads(capsys.readouterr().out) == {"low": None, "ends": [None, 1.0]}


def test_commands_with_results_have_the_same_option() -> None:
    context = click.Context(main)
    with_json = {
        "compare",
        "compare-meta",
        "thresholds",
        "detect",
        "evaluate-maps",
        "promote",
        "sync",
        "networks",
        "scores",
    }
    for name in {*with_json, "doctor", *STAGES}:
        command = main.get_command(context, name)
        assert command is not None
        assert "as_json" in {parameter.name for parameter in command.params}, name
