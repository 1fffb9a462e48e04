"""The processes of torchrun: which one this is, and when it has to end."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def is_first_process() -> bool:
    """Return whether this process writes the results that all processes share."""
    return os.environ.get("RANK", "0") == "0"


def end_with_parent() -> None:
    """Send SIGTERM to this process once its parent, torchrun, is gone.

    A killed torchrun cannot end its processes, which would then go on and compete with those of its next start.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return  # no torchrun
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent", daemon=True).start()


@contextmanager
def processes() -> Iterator[tuple[int, int]]:
    """Yield (rank, number of processes), (0, 1) without torchrun; wait for all at the end."""
    number = int(os.environ.get("WORLD_SIZE", "1"))
    if number == 1:
        yield 0, 1
        return
    end_with_parent()
    torch.distributed.init_process_group("gloo")
    try:
        yield torch.distributed.get_rank(), number
        torch.distributed.barrier()
    finally:
        torch.distributed.destroy_process_group()
