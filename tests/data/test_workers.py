"""Items of work in processes: every item once, lost processes, errors."""

import os
import signal
from contextlib import contextmanager

import pytest

from meta_ood.data.workers import Item, Job, distribute


@contextmanager
def worker(folder):
    def do(number):
        if number == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        if number < 0:
            raise PermissionError(f"{number} is refused")
        yield 1
        yield 1
        yield [number, number**2]

    yield do


def test_an_item_that_ends_every_process_is_given_up_and_the_others_are_done(tmp_path):
    found = []
    events = distribute(Job(worker, (tmp_path,)), (Item(f"item {k}", k) for k in range(5)), 2)
    with pytest.raises(ChildProcessError, match="item 0 ended their process 3 times at the same point"):
        found.extend(events)
    assert sorted(result for _, result in found if result) == [[k, k**2] for k in range(1, 5)]
    assert sum(done for done, _ in found) == 4 * 2


def test_an_error_of_an_item_ends_the_others(tmp_path):
    with pytest.raises(PermissionError, match="-1 is refused"):
        list(distribute(Job(worker, (tmp_path,)), [Item("item -1", -1)], 1))
