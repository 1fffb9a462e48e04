"""Arguments of a stage besides its paths: a log for curves, the machine; and progress bars."""

from __future__ import annotations

import logging
import os
import sys
import warnings
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
    """Device, workers and where these are; they must not change a result."""

    device: str = "auto"  # or "cpu", "cuda"
    workers: int = os.cpu_count() or 1  # processes or threads for independent images, 1 = none beside the main one
    engine: str = "local"  # or "ray": see data/workers.py
    address: str | None = None  # of a ray cluster; None: one is started on this machine


def progress(items: Iterable[T], what: str, total: int | None = None, unit: str = "img") -> tqdm[T]:
    """Return a progress bar over `items` on stderr; silent when logging is quieter than INFO.

    On a terminal it is rich's bar; a log file gets a line every ten seconds.
    """
    quiet = logging.getLogger("meta_ood").getEffectiveLevel() > logging.INFO
    given: dict[str, Any] = {"desc": what, "total": total, "unit": unit, "disable": quiet}
    if quiet or not sys.stderr.isatty():
        return tqdm(items, **given, mininterval=10.0, ncols=80)
    # imported here: a stage under DVC has no terminal
    from rich import progress as columns
    from rich.console import Console
    from tqdm import TqdmExperimentalWarning
    from tqdm.rich import RateColumn, tqdm_rich

    class Bar(tqdm_rich):  # type: ignore[misc]
        """rich's bar, which also shows what `set_postfix` says."""

        def display(self, *_: object, **__: object) -> None:
            if hasattr(self, "_task_id"):
                self._prog.update(self._task_id, completed=self.n, postfix=self.postfix or "")

    # tqdm's own columns need a total
    counts = columns.MofNCompleteColumn(), RateColumn(unit=unit)
    times = columns.TimeElapsedColumn(), columns.TimeRemainingColumn()
    shown = ("{task.description}", columns.BarColumn(), *counts, *times, "{task.fields[postfix]}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TqdmExperimentalWarning)
        return Bar(items, **given, progress=shown, options={"console": Console(stderr=True)})
