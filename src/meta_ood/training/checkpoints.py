"""Training states on disk, and signals that end a training after the current step."""

import logging
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

from meta_ood.data.files import replacing

logger = logging.getLogger(__name__)

FORMAT = 2  # a state of another format is not continued


def save_checkpoint(folder: Path, state: Mapping[str, Any]) -> None:
    """Write ``folder/state.pt`` (tensors, numbers, texts, lists, dicts) atomically; OSError leaves it unchanged."""
    path = folder / "state.pt"
    with replacing(path) as temporary:
        try:
            torch.save({**state, "format": FORMAT}, temporary)
        except RuntimeError as error:  # what PyTorch makes of a full disk
            reason = str(error).strip().splitlines()[0]
            raise OSError(f"{path}: the training's state cannot be written: {reason}") from None


def load_checkpoint(folder: Path) -> dict[str, Any] | None:
    """Return what :func:`save_checkpoint` wrote, None if there is nothing to continue; ValueError if it is damaged."""
    path = folder / "state.pt"
    if not path.is_file():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds
        raise ValueError(f"{path}: damaged; delete it to start the training anew") from error
    if state.get("format") != FORMAT:
        logger.warning("%s is of another version; training starts from the beginning", path)
        return None
    return state


def delete_checkpoint(folder: Path) -> None:
    """Delete the state of a training whose weights are saved."""
    if folder.is_dir():
        shutil.rmtree(folder)


@dataclass
class StopRequest:
    """The signal that asks to stop, 0 if none came."""

    signal: int = 0

    def exit_gracefully(self) -> None:
        """End as the signal would have: KeyboardInterrupt, or exit code 128 + signal.

        A process that was not signalled itself, but stops with others, ends as by SIGTERM.
        """
        if self.signal == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + (self.signal or signal.SIGTERM))


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Turn SIGTERM and SIGINT into a flag; a second signal of the same kind ends at once.

    Outside of the main thread, where Python cannot handle signals, the flag is never set.
    """
    stop = StopRequest()
    numbers = (signal.SIGTERM, signal.SIGINT) if threading.current_thread() is threading.main_thread() else ()
    previous = {int(number): signal.getsignal(number) for number in numbers}

    def request(number: int, frame: FrameType | None) -> None:
        logger.warning("signal %d: stopping after this step", number)
        stop.signal = number
        signal.signal(number, previous[number])

    for caught in previous:
        signal.signal(caught, request)
    try:
        yield stop
    finally:
        for caught, handler in previous.items():
            signal.signal(caught, handler)
