"""What a run says, on disk, before it is in the store: written by stages, read by the writer.

A journal is a folder with ``journal.jsonl`` (one event a line), the files to be logged, and
``live.lock``, which the stage's process holds as long as it lives.
"""

from __future__ import annotations

import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

Event = dict[str, Any]
"""``{"kind": "start" | "metrics" | "file" | "model" | "note" | "end", …}``."""

PLACE = Path(".meta_ood", "runs")


def now() -> int:
    """Return the time as MLflow counts it: milliseconds since 1970."""
    return time.time_ns() // 1_000_000


@dataclass
class Journal:
    """One run's folder."""

    folder: Path
    _lock: FileLock = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._lock = FileLock(self.folder / "live.lock")

    @classmethod
    def create(cls, root: Path, start: Mapping[str, Any]) -> Journal:
        """Make a journal below `root` whose first event is `start`; hold its lock."""
        place = root / PLACE
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder = place / f"{time.time_ns()}-{uuid.uuid4().hex[:8]}"
        folder.mkdir()
        journal = cls(folder)
        journal._lock.acquire()
        first = {"kind": "start", "time": now(), **start}
        hidden = folder / "journal.new"
        hidden.write_text(json.dumps(first) + "\n", encoding="utf-8")
        hidden.rename(folder / "journal.jsonl")  # from here on it is seen by the writer
        return journal

    def add(self, *events: Event) -> None:
        """Append `events`."""
        with (self.folder / "journal.jsonl").open("a", encoding="utf-8") as file:
            file.write("".join(json.dumps(event) + "\n" for event in events))

    def keep(self, path: Path) -> str:
        """Put the file `path` into the folder and return its name there.

        A link where the disk allows: the bytes stay even if the working directory goes, as that of
        a queued experiment does.
        """
        name = f"{uuid.uuid4().hex[:8]}-{path.name}"
        try:
            os.link(path, self.folder / name)
        except OSError:
            shutil.copy2(path, self.folder / name)
        return name

    def close(self) -> None:
        """Let go of the lock: the process has said all."""
        self._lock.release()

    def alive(self) -> bool:
        """Say whether the process that writes it still lives."""
        try:
            with self._lock.acquire(timeout=0):
                return False
        except Timeout:
            return True

    def events(self, skip: int = 0) -> list[Event]:
        """Return the complete events from number `skip` on."""
        text = (self.folder / "journal.jsonl").read_text(encoding="utf-8")
        return [json.loads(line) for line in text.split("\n")[:-1][skip:]]

    def state(self) -> dict[str, Any]:
        """Return what the writer noted: events already written and the run's id."""
        try:
            return dict(json.loads((self.folder / "state.json").read_text(encoding="utf-8")))
        except FileNotFoundError:
            return {"written": 0}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Note what the writer has done."""
        temporary = self.folder / "state.json.new"
        temporary.write_text(json.dumps(dict(state)), encoding="utf-8")
        temporary.replace(self.folder / "state.json")

    def remove(self) -> None:
        """Delete the folder: all of it is in the store."""
        shutil.rmtree(self.folder, ignore_errors=True)


def journals(root: Path) -> Iterator[Journal]:
    """Yield the journals below `root`, oldest first."""
    place = root / PLACE
    if place.is_dir():
        for folder in sorted(place.iterdir()):
            if folder.name[0].isdigit() and (folder / "journal.jsonl").is_file():
                yield Journal(folder)
