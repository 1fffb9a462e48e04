"""Hashes of a stage's inputs, against those that DVC itself computes."""

from pathlib import Path

import pytest

from meta_ood.data.files import file_hash
from meta_ood.pipeline.lockfile import LockedStage, input_hashes


def dvc_hash(path: Path) -> str:
    from dvc_data.hashfile.build import build
    from dvc_data.hashfile.db import HashFileDB
    from dvc_objects.fs.local import LocalFileSystem

    files = LocalFileSystem()
    return str(
        build(HashFileDB(files, str(path.parent / "cache")), str(path), files, "md5", dry_run=True)[2].hash_info.value
    )


def locked(outs: dict[str, str]) -> dict[str, LockedStage]:
    return {"a": LockedStage("a", "meta", "", {}, {}, outs, {})}


def test_folders_inside_and_above_outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Path("data/meta/n/v")
    for name in ("laf/b.csv", "laf/a.json", "fs/a.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    # inside the output of a stage
    inside = {"meta": folder / "laf"}
    assert input_hashes(inside, locked({"data/meta/n/v": "0.dir"})) == {"meta": dvc_hash((folder / "laf").resolve())}
    # above outputs that are files
    outs = {path.as_posix(): file_hash(path, "md5") for path in (folder / "laf").iterdir()}
    assert input_hashes(inside, locked(outs)) == {"meta": dvc_hash((folder / "laf").resolve())}
    assert input_hashes({"x": Path("data/nowhere")}, locked(outs)) == {"x": "unversioned"}
