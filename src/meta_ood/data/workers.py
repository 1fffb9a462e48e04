"""Items of work, each done by one of several processes; a killed process is replaced and its item done again."""

import logging
import os
import secrets
import signal
import traceback
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

from threadpoolctl import threadpool_limits

from meta_ood.data.context import Machine
from meta_ood.data.registry import lookup

_MOST_ENDS = 3  # an item that ends its process so often at the same point, for lack of memory say, is given up
_RETRIES = 9  # of ray, which does not see how far an item was
_STORE = 1 << 27  # [B] of memory that nodes share; a ray of our own keeps small objects only
logger = logging.getLogger(__name__)

Do = Callable[[Any], Iterator[Any]]
"""Does an item: yields ints, how much more of it is done, and its result last."""
Events = Generator[tuple[int, Any], None, None]
"""How much more is done, and the result of an item or None."""


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


def distribute(job: Job, items: Iterable[Item], machine: Machine) -> Events:
    """Do items in ``machine.workers`` processes; yield how much more is done, and the result of each item at its end.

    How much is done is below 0 where a process has been lost with what it had done of its item. Processes have one
    thread each, and end when this one does. Items are taken when a process is free.

    Raises:
        ChildProcessError: Items have ended their process again and again; they are named, all others are done.
        OSError, ImportError, ValueError, RuntimeError: Of an item; the others are ended.
    """
    return lookup("engine", ENGINES, machine.engine)(job, items, machine)


def _local(job: Job, items: Iterable[Item], machine: Machine) -> Events:
    """Do items in processes of this machine."""
    busy: dict[Connection, _Worker] = {}
    ends: Counter[tuple[str, int]] = Counter()  # of processes, by name of their item and how much of it was done
    again: deque[Item] = deque()
    remaining = iter(items)

    def next_item() -> Item | None:
        return next(remaining, None) or (again.popleft() if again else None)

    try:
        while True:
            # 1. as many processes as there are items to do
            while len(busy) < machine.workers and (item := next_item()):
                pipe, process = _started(job)
                busy[pipe] = _Worker(process, item)
                _give(pipe, item)
            if not busy:
                break
            # 2. their messages: an error, how much more is done, or the result of an item
            for ready in wait(list(busy)):
                pipe = ready  # type: ignore[assignment]
                worker = busy[pipe]
                try:
                    message = pipe.recv()
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
                if isinstance(message, Exception):
                    raise message
                if isinstance(message, int):
                    worker.done += message
                    yield message, None
                    continue
                yield 0, message
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
    _report(name for (name, _), times in ends.items() if times >= _MOST_ENDS)


def _report(lost: Iterable[str]) -> None:
    """Raise a ChildProcessError if there are lost items."""
    if names := ", ".join(sorted(lost)):
        raise ChildProcessError(
            f"{names}: ended each process that was at it, for lack of memory perhaps; all others are finished. "
            "Fewer --workers need less"
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
    with suppress(OSError):  # the process has ended: the next `recv` raises an EOFError
        pipe.send(item.value)


def _work(job: Job, pipe: Connection) -> None:
    """Do items as they come through the pipe, until its other end is closed; send what is done, or an error."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process handles Ctrl-C
    with suppress(EOFError, BrokenPipeError):  # the other end is closed
        try:
            with _started_job(job) as do:
                while True:
                    for message in do(pipe.recv()):
                        pipe.send(message)
        except (EOFError, BrokenPipeError):
            raise
        except Exception as error:
            pipe.send(_picklable(error))


@contextmanager
def _started_job(job: Job) -> Iterator[Do]:
    """Yield what does items of a job, in one thread."""
    threadpool_limits(1)  # more threads would sum in another order, and processes are as many as there are cores
    with job.start(*job.given) as do:
        yield do


def _picklable(error: Exception) -> Exception:
    """Return an error that can be sent to another process: not all kinds can."""
    if isinstance(error, OSError | ImportError):
        return error
    return ValueError(str(error)) if isinstance(error, ValueError) else RuntimeError(traceback.format_exc())


# --- ray -----------------------------------------------------------------------------------------


def _ray(job: Job, items: Iterable[Item], machine: Machine) -> Events:
    """Do items as tasks of a ray cluster, whose nodes share a file system under the same paths."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray
    from ray.exceptions import RayError, RayTaskError

    # 1. the cluster; one that is started here is not found by others and ends with this process, even if it is killed
    is_ours = not ray.is_initialized()
    if is_ours:
        own = {"num_cpus": machine.workers, "include_dashboard": False, "object_store_memory": _STORE}
        given = {} if machine.address else own
        ray.init(machine.address or "local", log_to_driver=False, logging_level=logging.ERROR, **given)
    running: dict[ray.ObjectRef, str] = {}
    lost = []
    try:
        gpus = int(machine.device != "cpu" and ray.cluster_resources().get("GPU", 0) > 0)
        # ray starts a task again whose process or node is lost, and keeps processes for the next ones (max_calls)
        task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=_RETRIES, max_calls=0)(_do_there)
        shared = ray.put((secrets.token_hex(8), job, Path.cwd()))
        remaining = iter(items)
        while True:
            # 2. as many tasks as there may be processes
            while len(running) < machine.workers and (item := next(remaining, None)):
                running[task.remote(shared, item.value)] = item.name
            if not running:
                break
            # 3. the result or the error of the next one that ends
            (ready,), _ = ray.wait(list(running))
            name = running.pop(ready)
            try:
                yield ray.get(ready)
            except RayTaskError as error:
                raise error.cause from None
            except RayError as error:
                logger.warning("process of %s ended: %s", name, error)
                lost.append(name)
    finally:
        for ref in running:
            ray.cancel(ref, force=True)
        if is_ours:
            ray.shutdown()
    _report(lost)


# in a process of ray: jobs that have been started, by a token; they end with the process
_jobs_here = ExitStack()
_started_here: dict[str, Do] = {}


def _do_there(given: tuple[str, Job, Path], value: Any) -> tuple[int, Any]:
    """Do an item in a process of ray; return how much is done in all, and the result."""
    token, job, folder = given
    try:
        if token not in _started_here:
            os.chdir(folder)
            _started_here[token] = _jobs_here.enter_context(_started_job(job))
        *done, result = _started_here[token](value)
    except Exception as error:
        raise _picklable(error) from None
    return sum(done), result


ENGINES: dict[str, Callable[[Job, Iterable[Item], Machine], Events]] = {"local": _local, "ray": _ray}
