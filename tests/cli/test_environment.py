"""What `doctor` finds, and completion in a shell."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from meta_ood.cli import main


def test_doctor_finds_this_installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["doctor", "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.output)
    assert found["kernels"] == {"ok": True, "found": "compiled"}
    assert found["meta-ood"]["found"].endswith(f"Python {sys.version.split()[0]}")


def test_doctor_names_a_store_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://somebody:secret@127.0.0.1:9")  # nobody listens at port 9
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    result = CliRunner().invoke(main, ["doctor"])
    assert result.exit_code == 3
    (line,) = [line for line in result.output.splitlines() if line.startswith("!!")]
    assert "tracking" in line
    assert "127.0.0.1:9" in line
    assert "secret" not in result.output


def test_bash_completes_commands() -> None:
    script = subprocess.run(
        [sys.executable, "-m", "meta_ood", "completion", "bash"], capture_output=True, text=True, check=True
    ).stdout
    assert "_META_OOD_COMPLETE=bash_complete" in script
    # what the script asks the program for when the user has typed `meta-ood eval`
    answer = subprocess.run(
        [sys.executable, "-m", "meta_ood"],
        env={**os.environ, "_META_OOD_COMPLETE": "bash_complete", "COMP_WORDS": "meta-ood eval", "COMP_CWORD": "1"},
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    assert {"plain,evaluate", "plain,evaluate-maps"} <= set(answer.split())
