"""HDF5 files that appear whole or not at all, and arrays of other programs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from meta_ood.data import files

_LAYOUT = ("v110", "v110")


@contextmanager
def replacing(path: Path) -> Iterator[h5py.File]:
    """Yield a new HDF5 file that takes the place of `path` if all goes well."""
    # `files` marks the file as being written by a lock; HDF5's own lock would collide with it
    with (
        files.replacing(path) as temporary,
        h5py.File(temporary, "w", locking=False, libver=_LAYOUT) as file,
    ):
        yield file


@contextmanager
def opened(path: Path, kind: str, version: int | tuple[int, ...]) -> Iterator[h5py.File]:
    """Yield an HDF5 file of ours, opened for reading.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is damaged, or not of this kind and one of these versions; the file is named.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    versions = (version,) if isinstance(version, int) else version
    try:
        with h5py.File(path, "r") as file:
            found, number = file.attrs.get("format"), file.attrs.get("version")
            if found != kind or number not in versions:
                known = " or ".join(map(str, versions))
                raise ValueError(f"expected {kind!r} version {known}, got {found!r} {number}")
            yield file
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        raise ValueError(f"{path}: damaged or not a file of ours: {error}") from error


def read_map(path: Path) -> npt.NDArray[Any]:
    """Read the only array of somebody's HDF5 file, such as a score map.

    Raises
    ------
    ValueError
        If the file holds no array, or several.
    """
    found: list[str] = []
    with h5py.File(path, "r") as file:
        file.visititems(lambda name, node: found.append(name) if hasattr(node, "shape") else None)
        if len(found) != 1:
            raise ValueError(f"expected one array, found {', '.join(found) or 'none'}")
        return np.asarray(file[found[0]][()])


def write_array(path: Path, name: str, values: npt.NDArray[Any]) -> None:
    """Write a file of one array atomically: the format of other programs."""
    with replacing(path) as file:
        file.create_dataset(name, data=values)
