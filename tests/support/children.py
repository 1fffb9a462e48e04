"""Processes for tests to start and to kill, forked from one that has imported what they run."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing import forkserver
from multiprocessing.context import ForkServerProcess
from typing import Any

import pytest

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    [
        *("pytest", "training_run", "stage_runs"),
        *("meta_ood.pipeline.infer", "meta_ood.pipeline.segments", "meta_ood.detector.scan.engine"),
    ]
)


def start(target: Callable[..., object], *args: Any, **kwargs: Any) -> ForkServerProcess:
    """Run `target` in a process of its own, which starts at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
        forkserver.ensure_running()  # the path is for the modules of the tests
    process = SERVER.Process(target=target, args=args, kwargs=kwargs)
    process.start()
    return process


def kill_eight_times(
    begin: Callable[[], ForkServerProcess], gathered: Callable[[], int], total: int, check: Callable[[], None]
) -> set[int]:
    """Kill what `begin` starts, and what goes on with the parts it gathered, and so on.

    A kill comes at a random moment up to a quarter of `total` after the parts that are there already. A process that
    ends before must have done its work, which `check` looks at and clears; the next one begins anew. Return how many
    parts there were at the kills.
    """
    start(int).join()  # the first waits for the imports
    started = time.monotonic()
    undisturbed = begin()
    undisturbed.join()
    assert undisturbed.exitcode == 0
    check()
    a_part = (time.monotonic() - started) / total
    chance = random.Random(0)
    kills, seen = 0, set()
    # more kills on a busy machine, where all eight may come before the first part or after the last
    while kills < 8 or (kills < 40 and not seen - {0, total}):
        process = begin()
        until = min(total, gathered() + chance.randint(0, max(1, total // 4)))
        while process.is_alive() and gathered() < until:
            time.sleep(0.0005)
        process.join(chance.uniform(0, a_part))
        process.kill()
        process.join()
        if process.exitcode == -signal.SIGKILL:
            kills += 1
            seen.add(gathered())
        else:
            assert process.exitcode == 0
            check()
    assert seen - {0, total}, "no kill came amid the parts"
    last = begin()
    last.join()
    assert last.exitcode == 0
    check()
    return seen
