"""HDF5 files that appear whole or not at all, and arrays of other programs."""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from meta_ood.data import files

_LAYOUT = ("v110", "v110")
"""Oldest and newest version of the HDF5 format that is written: the same bytes everywhere."""


@contextmanager
def replacing(path: Path) -> Iterator[h5py.File]:
    """Yield a new HDF5 file that takes the place of `path` if all goes well.

    It is made in memory: when HDF5 itself meets a full disk, it crashes at the end of the process.
    """
    name = secrets.token_hex(8)  # HDF5 has one open file for a name, and never writes this one
    with h5py.File(name, "w", driver="core", backing_store=False, libver=_LAYOUT) as file:
        yield file
        file.flush()
        files.write_bytes(path, file.id.get_file_image())


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


def read_map(path: Path, most: int) -> npt.NDArray[Any]:
    """Return the only array in an HDF5 file of another program, such as a score map.

    Links to other files are not followed, and data that lie in other files are not read.

    Raises
    ------
    ValueError
        If the file holds no array, several, or one of more than `most` values.
    """
    found: list[str] = []
    with h5py.File(path, "r") as file:
        # visits hard links only, and each object once
        file.visititems(lambda name, node: found.append(name) if hasattr(node, "shape") else None)
        if len(found) != 1:
            raise ValueError(f"expected one array, found {', '.join(found) or 'none'}")
        return stored_array(file, found[0], most)


def stored_array(file: h5py.File, name: str, most: int) -> npt.NDArray[Any]:
    """Return the values of :func:`stored_dataset`."""
    return np.asarray(stored_dataset(file, name, most)[()])


def stored_dataset(file: h5py.File, name: str, most: int) -> h5py.Dataset:
    """Return a dataset that is stored in the file itself, after its claimed size was checked.

    Raises
    ------
    ValueError
        If it is a link or its data lie in another file, if it has more than `most` values, or if
        they are not numbers.
    """
    dataset = file.get(name)
    if not isinstance(file.get(name, getlink=True), h5py.HardLink) or not isinstance(
        dataset, h5py.Dataset
    ):
        raise ValueError(f"{name!r} is no array of this file")
    if dataset.external or dataset.is_virtual:
        raise ValueError(f"the data of {name!r} lie in another file")
    if dataset.dtype.kind not in "biuf" or math.prod(dataset.shape or (most + 1,)) > most:
        raise ValueError(
            f"{name!r}: expected at most {most} numbers, got shape {dataset.shape} and dtype "
            f"{dataset.dtype}"
        )
    return dataset


def write_array(path: Path, name: str, values: npt.NDArray[Any]) -> None:
    """Write a file of one array atomically: the format of other programs."""
    with replacing(path) as file:
        file.create_dataset(name, data=values)
