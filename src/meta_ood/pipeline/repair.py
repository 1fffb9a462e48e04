"""Repair of the files that a killed ``dvc``, a full disk or a power cut leaves empty or cut off."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from meta_ood.data.files import write_bytes
from meta_ood.pipeline import lockfile

LOCK, RWLOCK = Path("dvc.lock"), Path(".dvc/tmp/rwlock")


def repair() -> list[str]:
    """Repair the repository in the current folder; no other `dvc` may run. Return a line per repaired file."""
    lines = []
    if LOCK.is_file() and not _is_whole_lock():
        LOCK.replace(f"{LOCK}.damaged")
        committed = subprocess.run(["git", "show", f"HEAD:./{LOCK}"], capture_output=True, check=False)
        if committed.returncode == 0:
            write_bytes(LOCK, committed.stdout)
        kept = "the committed one is in its place" if committed.returncode == 0 else "dvc repro writes a new one"
        lines.append(f"{LOCK} was cut off and is {LOCK}.damaged now; {kept}")
    # it only says which dvc processes run now; DVC cannot read it when it is empty
    if RWLOCK.is_file() and not _is_json(RWLOCK):
        RWLOCK.unlink()
        lines.append(f"{RWLOCK} was cut off and is removed")
    return lines


def _is_whole_lock() -> bool:
    try:
        lockfile.read(LOCK)
    except ValueError:
        return False
    return True


def _is_json(path: Path) -> bool:
    try:
        return isinstance(json.loads(path.read_bytes()), dict)
    except ValueError:
        return False
