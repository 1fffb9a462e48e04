"""The side of the store: follow all journals below a root and write them with mlflow."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from filelock import FileLock, Timeout

from meta_ood.tracking.journal import PLACE, Journal, journals, now

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.2
_IDLE_SECONDS = 15.0
_TRIES = 5


def serve(root: Path, idle: float = _IDLE_SECONDS) -> int:
    """Write journals until there has been none for `idle` seconds; return how many were finished.

    Returns at once if another writer is at work.
    """
    lock = FileLock(root / PLACE / "writer.lock")
    done, before = 0, -1
    while done != before:  # a journal may have come between the last look and the release
        before = done
        try:
            with lock.acquire(timeout=1):
                done += _follow(root, idle)
        except Timeout:
            return done
        idle = 0.0
    return done


def flush(root: Path, seconds: float = 600.0) -> int:
    """Have all journals written whose process has ended; return how many there were.

    Raises
    ------
    TimeoutError
        If another writer is at work and has not done it in `seconds`.
    """
    lock = FileLock(root / PLACE / "writer.lock")
    before = {journal.folder for journal in journals(root)}
    end = time.monotonic() + seconds
    while any(not journal.alive() for journal in journals(root)):
        try:
            with lock.acquire(timeout=0.1):
                _follow(root, 0.0)
                break
        except Timeout:
            if time.monotonic() > end:
                raise TimeoutError(f"{root / PLACE}: the writer does not get on") from None
    return sum(not folder.exists() for folder in before)


def _follow(root: Path, idle: float) -> int:
    done = 0
    failures: dict[Path, int] = {}
    last = time.monotonic()
    while True:
        todo = [j for j in journals(root) if failures.get(j.folder, 0) < _TRIES]
        for journal in todo:
            last = time.monotonic()
            try:
                done += advance(journal)
                failures.pop(journal.folder, None)
            except Exception:  # the store may be away: the journal stays for another try
                failures[journal.folder] = failures.get(journal.folder, 0) + 1
                logger.exception("cannot write %s", journal.folder)
                time.sleep(1.0)
        if time.monotonic() - last >= idle and not (idle == 0.0 and todo and failures):
            return done
        time.sleep(_POLL_SECONDS)


def advance(journal: Journal) -> bool:
    """Write what is new in `journal`; return whether it was finished and is gone."""
    alive = journal.alive()  # asked first: what it wrote before it died is then read below
    state = journal.state()
    events = journal.events(state["written"])
    ended = bool(events) and events[-1]["kind"] == "end"
    if not alive and not ended:
        events.append({"kind": "end", "time": now(), "status": "FAILED"})
        ended = True
    if not events:
        return False
    from meta_ood.tracking import store  # mlflow comes in here, once, and after the lock

    run_id = store.write(journal, journal.events()[0], state.get("run_id"), events)
    if ended:
        journal.remove()
        return True
    journal.set_state({"run_id": run_id, "written": state["written"] + len(events)})
    return False
