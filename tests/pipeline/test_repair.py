"""What a killed `dvc` leaves is repaired, and nothing else is touched."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from meta_ood.cli import main
from meta_ood.pipeline.lockfile import LOCK, RWLOCK, repair

ROOT = Path(__file__).parents[2]
WHOLE = "schema: '2.0'\nstages:\n  code:\n    cmd: python -m meta_ood code\n"


@pytest.fixture(autouse=True)
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    RWLOCK.parent.mkdir(parents=True)
    git = ["git", "-c", "user.name=n", "-c", "user.email=a@b"]
    LOCK.write_text(WHOLE)
    for command in (["init", "-q"], ["add", str(LOCK)], ["commit", "-qm", "lock"]):
        subprocess.run([*git, *command], check=True)


@pytest.mark.parametrize("is_committed", [False, True])
@pytest.mark.parametrize("pull", ["--no-rebase", "--rebase"])
def test_a_pull_does_not_collide_with_the_lock_of_this_machine(is_committed: bool, pull: str) -> None:
    """With the settings of `make setup` and the repository's .gitattributes."""
    settings = re.findall(r"git config (\S+) (\S+)", (ROOT / "Makefile").read_text())
    assert len(settings) == 3

    def git(*arguments: str) -> None:
        subprocess.run(["git", *arguments], check=True)

    for name in ("upstream", "mine"):
        git("clone", "-q", ".", name)
        for setting in (*settings, ("user.name", "n"), ("user.email", "a@b")):
            git("-C", name, "config", *setting)
        shutil.copy(ROOT / ".gitattributes", name)
    git("-C", "upstream", "add", "-A")
    git("-C", "upstream", "commit", "-qm", "attributes")
    git("-C", "mine", "clean", "-qf")
    git("-C", "mine", "pull", "-q", "../upstream")
    # the same line differs on both sides
    for name in ("upstream", "mine"):
        Path(name, LOCK).write_text(WHOLE.replace("code", name))
    git("-C", "upstream", "commit", "-qam", "results")
    if is_committed:
        git("-C", "mine", "commit", "-qam", "my results")
    git("-C", "mine", "pull", "-q", "--no-edit", pull, "../upstream")
    kept = "mine" if is_committed and pull == "--no-rebase" else "upstream"
    assert Path("mine", LOCK).read_text() == WHOLE.replace("code", kept)


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


def test_params_that_would_keep_dvc_busy_for_ever_are_refused() -> None:
    levels = [f"l{k}: &l{k} [{', '.join([f'*l{k - 1}'] * 9)}]" for k in range(1, 20)]
    Path("params.yaml").write_text("\n".join(["l0: &l0 [1]", *levels]))
    LOCK.write_text("")
    result = CliRunner().invoke(main, ["repair"])
    assert (result.exit_code, "more than 100000 values" in result.output) == (2, True)
    assert LOCK.read_text() == WHOLE  # repaired nevertheless
    shutil.copy(ROOT / "params.yaml", ".")
    assert CliRunner().invoke(main, ["repair"]).exit_code == 0
