"""Training states on disk, and signals that end a training at the end of a step."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch

logger = logging.getLogger(__name__)


def save_state(folder: Path, state: Mapping[str, Any]) -> Path:
    """Write ``folder/state.pt`` atomically: tensors, numbers, texts, lists and dicts."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "state.pt"
    temporary = folder / f"state.{os.getpid()}.tmp"
    torch.save(dict(state), temporary)
    temporary.replace(path)
    return path


def load_state(folder: Path) -> dict[str, Any] | None:
    """Read what :func:`save_state` wrote; None if there is nothing."""
    path = folder / "state.pt"
    if not path.is_file():
        return None
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def forget(folder: Path) -> None:
    """Delete the states of a training that is done."""
    shutil.rmtree(folder, ignore_errors=True)


@dataclass
class Stop:
    """Whether somebody asked to end, and how."""

    signal: int = 0

    def __bool__(self) -> bool:
        """Return whether a signal came."""
        return self.signal != 0

    def leave(self) -> None:
        """End as the signal would have: KeyboardInterrupt, or exit code 128 + signal."""
        if self.signal == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + self.signal)


@contextmanager
def stop_requests() -> Iterator[Stop]:
    """Turn SIGTERM and SIGINT into a flag; a second signal of the kind ends at once.

    Outside of the main thread, where Python has no signals, the flag never rises.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    previous: dict[int, Any] = {}

    def request(number: int, frame: FrameType | None) -> None:
        logger.warning("signal %d: stopping after this step", number)
        stop.signal = number
        signal.signal(number, previous[number])

    for number in (int(signal.SIGTERM), int(signal.SIGINT)):
        previous[number] = signal.signal(number, request)
    try:
        yield stop
    finally:
        for caught, handler in previous.items():
            signal.signal(caught, handler)
