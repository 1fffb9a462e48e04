"""What a stage is given besides its paths: a log for curves, facts about the machine, progress."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tqdm import tqdm

T = TypeVar("T")

Log = Callable[[Mapping[str, float], int], None]
"""``log({"train/loss": 0.3}, step)``: stages know nothing else of the tracking behind it."""


def log_nothing(values: Mapping[str, float], step: int) -> None:
    """Be the log of a stage that is not tracked."""


@dataclass(frozen=True)
class Machine:
    """Facts about the machine; they must not change a result.

    Attributes
    ----------
    device
        ``auto``, ``cpu`` or ``cuda``.
    workers
        Processes or threads for independent images, 1 = none beside the main one.
    """

    device: str = "auto"
    workers: int = field(default_factory=lambda: os.cpu_count() or 1)


def progress(items: Iterable[T], what: str, total: int | None = None, unit: str = "img") -> tqdm[T]:
    """Return a progress bar over `items` on stderr; silent when logging is quieter than INFO.

    A terminal sees a bar that moves; a log file gets a line every ten seconds.
    """
    quiet = logging.getLogger("meta_ood").getEffectiveLevel() > logging.INFO
    options: dict[str, Any] = {} if sys.stderr.isatty() else {"mininterval": 10.0, "ncols": 80}
    return tqdm(items, desc=what, total=total, unit=unit, disable=quiet, **options)
