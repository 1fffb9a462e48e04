"""Files of ``torch.save``, read as what they may hold: plain tensors, and nothing that runs.

Nothing here knows a network. The formats are those of METHOD.md, section G3, checkpoints.
"""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

WRAPPERS = ("state_dict", "model", "model_state_dict")
"""Entries that hold a state dict in known files, in this order of preference."""
PREFIXES = ("module.", "_orig_mod.")
"""What DataParallel, DDP and torch.compile put before every name."""
_NUMPY = (
    "numpy.dtype",
    "numpy.ndarray",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray._reconstruct",
)


class CheckpointError(ValueError):
    """A weights file cannot be used; the message names the file, the keys and what to do."""


@dataclass(frozen=True)
class Contents:
    """What was found in a file.

    Attributes
    ----------
    tensors
        Name without prefixes -> tensor on the CPU, maybe mapped from the file.
    layout
        The format in words, for reports.
    ignored
        Other entries of the file: optimizer, epoch, ...
    """

    tensors: dict[str, Tensor]
    layout: str
    ignored: tuple[str, ...] = ()


class _Nothing:
    """Stands in for NumPy values beside the weights, such as a stored mean IoU: runs no NumPy."""

    def __init__(self, *values: object) -> None:
        """Forget the values."""

    def __setstate__(self, state: object) -> None:
        """Forget the state."""


def read(path: Path) -> Contents:
    """Read a file of ``torch.save`` (zip or the older pickle layout), weights only.

    Raises
    ------
    CheckpointError
        If the file is missing, damaged, compressed, asks for anything but tensors and plain
        values, or holds no state dict.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such weights file")
    is_zip = zipfile.is_zipfile(path)
    if is_zip:
        _refuse_compressed(path)
    allowed: list[Any] = [(_Nothing, name) for name in _NUMPY]
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(allowed):
            warnings.simplefilter("ignore")  # what torch warns of, sparse tensors, is refused below
            loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except Exception as error:  # RuntimeError, UnpicklingError, EOFError, KeyError, ...
        raise CheckpointError(f"{path}: {_reason(str(error))}") from None
    return unwrap(path, loaded, "torch zip" if is_zip else "torch before 1.6")


def unwrap(path: Path, loaded: object, kind: str) -> Contents:
    """Find the state dict among what a file holds, and take prefixes off its names.

    Parameters
    ----------
    path
        For messages.
    loaded
        A bare state dict or a dict with one below a name of :data:`WRAPPERS`.
    kind
        Of file, for reports.

    Raises
    ------
    CheckpointError
        If there is no state dict or an entry of it is no plain tensor; entries are named.
    """
    if not isinstance(loaded, Mapping) or not loaded:
        raise CheckpointError(f"{path}: holds {type(loaded).__name__}, expected a state dict")
    wrapper = next((key for key in WRAPPERS if isinstance(loaded.get(key), Mapping)), None)
    entries: Mapping[Any, Any] = loaded if wrapper is None else loaded[wrapper]
    ignored = () if wrapper is None else tuple(str(key) for key in loaded if key != wrapper)
    where = "bare state dict" if wrapper is None else f"state dict below {wrapper!r}"
    if not entries:
        raise CheckpointError(f"{path}: {where} is empty")
    for key, value in entries.items():
        if not isinstance(key, str):
            raise CheckpointError(f"{path}: {where}: the name {key!r} is no text")
        if not _is_plain(value):
            raise CheckpointError(
                f"{path}: {where}: entry {key!r} is {_describe(value)}, expected a plain tensor; "
                f"known wrappers: {', '.join(WRAPPERS)}"
            )
    tensors = dict(entries)
    taken = ""
    while prefix := next((p for p in PREFIXES if all(k.startswith(p) for k in tensors)), None):
        tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
        taken += prefix
    return Contents(tensors, f"{kind}, {where}, prefix {taken or 'none'}", ignored)


def _refuse_compressed(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError) as error:
        raise CheckpointError(f"{path}: damaged or cut off: {error}") from None
    total = sum(member.file_size for member in members)
    if total > path.stat().st_size:
        raise CheckpointError(
            f"{path}: refused: its members unpack to {total} bytes, more than the file has; "
            "torch.save compresses nothing"
        )


def _is_plain(value: object) -> bool:
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and not value.is_quantized
    )


def _describe(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of layout {value.layout} on {value.device}"
    return type(value).__name__


def _reason(message: str) -> str:
    """Say in one line why ``torch.load`` refused, without its advice to trust the file."""
    if asked := re.search(r"GLOBAL ([\w.]+)", message) or re.search(r"type '([\w.]+)'", message):
        return f"refused: it asks for {asked[1]}, which is no tensor; only weights are read"
    if "TorchScript" in message or "legacy .tar" in message:
        return "refused: TorchScript archives and .tar files are not read, only state dicts"
    if "Weights only load failed" in message:
        detail = message.rsplit("WeightsUnpickler error:", 1)[-1].strip().splitlines()[0]
        return f"refused or damaged: only weights are read: {detail}"
    return f"damaged or cut off: {message.strip().splitlines()[0] if message.strip() else 'empty'}"
