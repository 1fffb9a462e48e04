"""Arguments of a stage besides its paths: a log for curves, the machine; and progress bars."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from tqdm import tqdm

T = TypeVar("T")

Log = Callable[[Mapping[str, float], int], None]
"""``log({"train/loss": 0.3}, step)``; stages do not know which tracking store is behind it."""


def no_log(values: Mapping[str, float], step: int) -> None:
    """No-op logger."""


@dataclass(frozen=True)
class Machine:
    """Device and number of workers; they must not change a result."""

    device: str = "auto"  # or "cpu", "cuda"
    workers: int = os.cpu_count() or 1  # processes or threads for independent images, 1 = none beside the main one


def progress(items: Iterable[T], what: str, total: int | None = None, unit: str = "img") -> tqdm[T]:
    """Return a progress bar over `items` on stderr; silent when logging is quieter than INFO.

    On a terminal the bar moves; a log file gets a line every ten seconds.
    """
    quiet = logging.getLogger("meta_ood").getEffectiveLevel() > logging.INFO
    # a log file shall not get a line per frame
    options: dict[str, Any] = {} if sys.stderr.isatty() else {"mininterval": 10.0, "ncols": 80}
    return tqdm(items, desc=what, total=total, unit=unit, disable=quiet, **options)
