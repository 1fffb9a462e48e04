"""Items of work, each done by one of several processes; a killed process is replaced and its item done again."""

import logging
import signal
import traceback
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, closing, suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple

from threadpoolctl import threadpool_limits

_MOST_ENDS = 3  # an item that ends its process so often at the same point, for lack of memory say, is given up
logger = logging.getLogger(__name__)

Do = Callable[[Any], Iterator[Any]]
"""Does an item: yields ints, how much more of it is done, and its result last."""


class Item(NamedTuple):
    """A piece of work; its name is for messages."""

    name: str
    value: Any


class Job(NamedTuple):
    """What a process does: it calls ``start(*given)``, enters the context and does items with what this yields.

    ``start`` is a function of a module, and all values can be pickled.
    """

    start: Callable[..., AbstractContextManager[Do]]
    given: tuple[Any, ...]


@dataclass
class _Worker:
    """A process, the item that it does, and how much of it is done."""

    process: BaseProcess
    item: Item
    done: int = 0


def distribute(job: Job, items: Iterable[Item], workers: int) -> Generator[tuple[int, Any], None, None]:
    """Do items in processes of this machine; yield (how much is done, None) on the way and (0, result) for each item.

    How much is done is below 0 where a process has been lost with what it had done of its item. Processes are as many
    as there are items at most, each with one thread, and end with this one. Items are taken when a process is free.

    Raises:
        ChildProcessError: Items have ended their process three times at the same point; named, all others done.
        OSError, ImportError, ValueError, RuntimeError: Of an item; the others are ended.
    """
    busy: dict[Connection, _Worker] = {}
    ends: Counter[tuple[str, int]] = Counter()  # of processes, by name of their item and how much of it was done
    again: deque[Item] = deque()
    remaining = iter(items)

    def next_item() -> Item | None:
        return next(remaining, None) or (again.popleft() if again else None)

    try:
        while True:
            # 1. as many processes as there are items to do
            while len(busy) < workers and (item := next_item()):
                pipe, process = _started(job)
                busy[pipe] = _Worker(process, item)
                _give(pipe, item)
            if not busy:
                break
            # 2. what they say
            for ready in wait(list(busy)):
                pipe = ready  # type: ignore[assignment]
                worker = busy[pipe]
                try:
                    said = pipe.recv()
                except (EOFError, OSError):  # killed, by the kernel for its memory say: the item is done again
                    worker.process.join()
                    del busy[pipe]
                    pipe.close()
                    ends[worker.item.name, worker.done] += 1
                    logger.warning("process of %s ended: %s", worker.item.name, worker.process.exitcode)
                    if ends[worker.item.name, worker.done] < _MOST_ENDS:
                        again.append(worker.item)
                    yield -worker.done, None
                    continue
                if isinstance(said, Exception):
                    raise said
                if isinstance(said, int):
                    worker.done += said
                    yield said, None
                    continue
                yield 0, said
                if item := next_item():
                    worker.item, worker.done = item, 0
                    _give(pipe, item)
                else:
                    del busy[pipe]
                    pipe.close()  # the process ends
                    worker.process.join()
    finally:
        for pipe, worker in busy.items():
            worker.process.terminate()
            worker.process.join()
            pipe.close()
    if lost := [name for (name, _), times in ends.items() if times >= _MOST_ENDS]:
        raise ChildProcessError(
            f"{', '.join(sorted(lost))} ended their process {_MOST_ENDS} times at the same point, for lack of memory "
            "perhaps; all others are finished. Fewer --workers need less"
        )


def _started(job: Job) -> tuple[Connection, BaseProcess]:
    """Start a process; it is forked from one that has imported the job's module and nothing else, so at once."""
    context = get_context("forkserver")
    context.set_forkserver_preload([job.start.__module__])
    pipe, other = context.Pipe()
    process = context.Process(target=_work, args=(job, other), daemon=True)
    process.start()
    other.close()  # else its end would not be seen
    return pipe, process


def _give(pipe: Connection, item: Item) -> None:
    with suppress(OSError):  # the process has ended: `recv` will say so
        pipe.send(item.value)


def _work(job: Job, pipe: Connection) -> None:
    """Do items as they come through the pipe, until its other end is closed; say what is done, or what went wrong."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the first process's affair
    threadpool_limits(1)  # more threads would sum in another order, and processes are as many as there are cores
    with suppress(EOFError, BrokenPipeError):  # nobody there any more
        try:
            with job.start(*job.given) as do:
                while True:
                    with closing(do(pipe.recv())) as doing:  # type: ignore[type-var]
                        for said in doing:
                            pipe.send(said)
        except (EOFError, BrokenPipeError):
            raise
        except (OSError, ImportError) as error:
            pipe.send(error)
        except ValueError as error:
            pipe.send(ValueError(str(error)))  # not all kinds of it can be sent
        except Exception:
            pipe.send(RuntimeError(traceback.format_exc()))
