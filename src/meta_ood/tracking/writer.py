"""The side of the store: follow all journals below a root and write them with mlflow."""

from __future__ import annotations

import logging
import time
from collections import Counter
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
    done, given_up = 0, set[Path]()
    while True:
        try:
            with lock.acquire(timeout=1):
                done += _follow(root, idle, given_up)
        except Timeout:
            return done
        # one may have come between the last look and the release
        if all(journal.folder in given_up for journal in journals(root)):
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
                _follow(root, 0.0, set())
                break
        except Timeout:
            if time.monotonic() > end:
                raise TimeoutError(f"{root / PLACE}: the writer does not get on") from None
    return sum(not folder.exists() for folder in before)


def _follow(root: Path, idle: float, given_up: set[Path]) -> int:
    """Write until there was nothing to follow for `idle` seconds; 0 = until no ended one is left.

    Journals that cannot be written are tried again, then put into `given_up`.
    """
    done = 0
    failures: Counter[Path] = Counter()
    last = time.monotonic()
    while True:
        todo = [journal for journal in journals(root) if journal.folder not in given_up]
        for journal in todo:
            try:
                done += advance(journal)
            except Exception:  # the store may be away: the journal stays for another writer
                logger.exception("cannot write %s", journal.folder)
                failures[journal.folder] += 1
                if failures[journal.folder] == _TRIES:
                    given_up.add(journal.folder)
                time.sleep(_POLL_SECONDS)
        if todo:
            last = time.monotonic()  # after the writing, which may take long
        waiting = [j for j in todo if j.folder.exists() and j.folder not in given_up]
        if idle == 0.0 and all(journal.alive() for journal in waiting):
            return done
        if idle and time.monotonic() - last >= idle:
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
    from meta_ood.tracking import store

    run_id = store.write(journal, journal.events()[0], state.get("run_id"), events)
    if ended:
        journal.remove()
        return True
    journal.set_state({"run_id": run_id, "written": state["written"] + len(events)})
    return False
