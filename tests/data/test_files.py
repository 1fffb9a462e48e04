import errno
import os
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from children import start
from meta_ood.data import hdf5
from meta_ood.data.files import read_csv, replace_folder, resume_folder, running, write_csv, write_text
from meta_ood.data.images import write_image

NOISE = np.random.default_rng(0).integers(0, 256, (100, 100), np.uint8)


def _folder(path: Path, *names: str) -> Path:
    path.mkdir(parents=True)
    for name in names:
        (path / name).write_text(name)
    return path


def _names(path: Path) -> list[str]:
    return sorted(child.name for child in path.iterdir())


@contextmanager
def _full_disk() -> Iterator[None]:
    """Let no file grow beyond 5,000 bytes, which fails where a full disk would fail."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def _write_hdf5(path: Path) -> None:
    with hdf5.replacing(path) as file:
        file["noise"] = NOISE


@pytest.mark.parametrize(
    "write",
    [
        _write_hdf5,
        lambda path: write_image(path, NOISE),
        lambda path: write_text(path, 10_000 * "a"),
        lambda path: write_csv(path, ["a"], [[number] for number in range(10_000)]),
    ],
    ids=["hdf5", "image", "text", "csv"],
)
def test_a_failed_write_names_the_file_and_leaves_the_old_one(tmp_path: Path, write: Callable[[Path], None]) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    with pytest.raises(OSError, match=str(path)) as raised, _full_disk():
        write(path)
    assert (raised.value.errno, path.read_text(), _names(tmp_path)) == (errno.EFBIG, "old", ["a"])


def test_a_finished_folder_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    target = _folder(tmp_path / "out", "old")
    replace_folder(_folder(tmp_path / "new", "a"), target)
    assert _names(target) == ["a"]
    assert _names(tmp_path) == ["out"]


def test_a_link_is_replaced_and_the_folder_behind_it_is_not_touched(tmp_path: Path) -> None:
    behind = _folder(tmp_path / "behind", "precious")
    (tmp_path / "out").symlink_to(behind)
    replace_folder(_folder(tmp_path / "new", "a"), tmp_path / "out")
    assert _names(behind) == ["precious"]
    assert _names(tmp_path / "out") == ["a"]


def test_an_old_folder_that_stays_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = _folder(tmp_path / "out", "old")
    new = _folder(tmp_path / "new", "a")

    def refuse(path: object, **_: object) -> None:
        raise PermissionError(1, "Operation not permitted", str(path))

    monkeypatch.setattr(os, "unlink", refuse)
    with pytest.raises(PermissionError):
        replace_folder(new, target)
    assert (_names(target), _names(new)) == (["old"], ["a"])


def test_a_lock_names_its_owner_and_ends_with_it(tmp_path: Path) -> None:
    lock = tmp_path / "locks" / "a.lock"
    with running("infer net", lock):
        with (
            pytest.raises(BlockingIOError, match=rf"infer net is running since 2.* by process {os.getpid()} on "),
            running("infer net", lock),
        ):
            pass
        other = start(_hold, lock)
        other.join()
        assert other.exitcode == 1
    killed = start(_hold, lock)
    killed.join()
    assert killed.exitcode == 9
    with running("infer net", lock):
        pass


def _hold(lock: Path) -> None:
    with running("infer net", lock):
        os._exit(9)


def test_without_a_lock_file_a_command_still_runs(tmp_path: Path) -> None:
    (tmp_path / "locks").write_text("a file where a folder should be")
    with running("meta", tmp_path / "locks" / "a.lock"):
        pass


def test_a_resume_folder_is_named_by_all_that_decides_the_result(tmp_path: Path) -> None:
    one, many = tmp_path / "frames.csv", tmp_path / "a.h5"
    one.write_text("1")
    many.write_text("1")
    first = resume_folder(("infer", 1), (one,), (many,))
    assert first == resume_folder(("infer", 1), (one,), (many,))
    assert first != resume_folder(("infer", 2), (one,), (many,))
    many.write_text("12")
    second = resume_folder(("infer", 1), (one,), (many,))
    one.write_text("2")
    assert len({first, second, resume_folder(("infer", 1), (one,), (many,))}) == 3


def test_no_text_of_a_csv_file_is_a_formula_and_all_are_read_back(tmp_path: Path) -> None:
    texts = ["=cmd|' /C calc'!A0", "+1+1", "@SUM(A1)", "-x", "\t=1", "'quoted", "plain", "-0.5", "+1e3", "", "a=b"]
    path = tmp_path / "a.csv"
    write_csv(path, ["text"], [[text] for text in texts])
    stored = path.read_text().splitlines()[1:]
    for cell in stored:
        start = cell.strip('"')[:1]
        assert start not in ("=", "@", "\t")
        if start in ("+", "-"):
            float(cell)
    assert [row["text"] for row in read_csv(path, ["text"])] == texts


def test_a_folder_that_does_not_fit_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finished, target = _folder(tmp_path / "finished", "a"), tmp_path / "out" / "set"

    def move(source: Path, place: Path) -> None:  # what shutil.move does between file systems, on a full disk
        shutil.copytree(source, place)
        raise shutil.Error([(str(source / "a"), str(place / "a"), "[Errno 28] No space left on device")])

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "move", move)
        with pytest.raises(OSError, match=r"out/set: \[Errno 28\] No space left"):
            replace_folder(finished, target)
    assert _names(target.parent) == []
    replace_folder(finished, target)  # nothing of the work is lost
    assert _names(target) == ["a"]


def test_a_lock_on_a_full_disk_does_not_fail_at_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with running("infer a", tmp_path / "a.lock"):
            pass
