"""Items of work in processes: every item once, lost processes, errors."""

import os
import signal
from contextlib import contextmanager

import pytest

from meta_ood.data import workers
from meta_ood.data.context import Machine
from meta_ood.data.workers import Item, Job, distribute


@contextmanager
def worker():
    def do(number):
        if number == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        if number < 0:
            raise PermissionError(f"{number} is refused")
        yield 1
        yield 1
        yield [number, number**2]

    yield do


@pytest.fixture(params=["local", "ray"])
def machine(request, monkeypatch):
    """Each engine with two workers."""
    if request.param == "ray":
        pytest.importorskip("ray")
        monkeypatch.setattr(workers, "_RETRIES", 2)
    return Machine("cpu", 2, request.param)


def test_an_item_that_ends_every_process_is_given_up_and_the_others_are_done(machine):
    found = []
    events = distribute(Job(worker, ()), (Item(f"item {k}", k) for k in range(5)), machine)
    with pytest.raises(ChildProcessError, match="item 0: ended each process"):
        found.extend(events)
    assert sorted(result for _, result in found if result) == [[k, k**2] for k in range(1, 5)]
    assert sum(done for done, _ in found) == 4 * 2


def test_an_error_of_an_item_ends_the_others(machine):
    with pytest.raises(PermissionError, match="-1 is refused"):
        list(distribute(Job(worker, ()), [Item("item -1", -1)], machine))
