"""What a killed `dvc` leaves is repaired, and nothing else is touched."""

import subprocess
from pathlib import Path

import pytest

from meta_ood.pipeline.lockfile import LOCK, RWLOCK, repair

WHOLE = "schema: '2.0'\nstages:\n  code:\n    cmd: python -m meta_ood code\n"


@pytest.fixture(autouse=True)
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    RWLOCK.parent.mkdir(parents=True)
    git = ["git", "-c", "user.name=n", "-c", "user.email=a@b"]
    LOCK.write_text(WHOLE)
    for command in (["init", "-q"], ["add", str(LOCK)], ["commit", "-qm", "lock"]):
        subprocess.run([*git, *command], check=True)


def test_whole_files_are_left_alone() -> None:
    RWLOCK.write_text("{}")
    changed = WHOLE + "  report:\n    cmd: x\n"
    LOCK.write_text(changed)
    assert repair() == []
    assert (LOCK.read_text(), RWLOCK.read_text()) == (changed, "{}")


@pytest.mark.parametrize("text", ["", WHOLE[:-5], WHOLE + "    deps: [\n", "schema: '2.0'\n", "- 1\n"])
def test_a_cut_lock_file_gives_way_to_the_committed_one(text: str) -> None:
    LOCK.write_text(text)
    assert len(repair()) == 1
    assert LOCK.read_text() == WHOLE
    assert Path("dvc.lock.damaged").read_text() == text


def test_without_a_commit_there_is_no_lock_file() -> None:
    subprocess.run(["rm", "-rf", ".git"], check=True)
    LOCK.write_text("")
    assert "dvc repro writes a new one" in repair()[0]
    assert not LOCK.exists()


@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_a_cut_rwlock_is_removed(text: str) -> None:
    RWLOCK.write_text(text)
    assert len(repair()) == 1
    assert not RWLOCK.exists()
