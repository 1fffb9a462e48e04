"""HDF5 files that appear whole or not at all, and arrays of other programs."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from meta_ood.data import files

# begin of a global heap of HDF5, version 1: it holds the texts of attributes and arrays
_HEAP = b"GCOL\x01\0\0\0"


@contextmanager
def replacing(path: Path) -> Iterator[h5py.File]:
    """Yield a new HDF5 file that takes the place of `path` if all goes well.

    It is made in memory: when HDF5 itself meets a full disk, it crashes at the end of the process.
    """
    name = secrets.token_hex(8)  # HDF5 has one open file for a name, and never writes this one
    # one version of the format, oldest and newest, so that the bytes are the same everywhere
    with h5py.File(name, "w", driver="core", backing_store=False, libver=("v110", "v110")) as file:
        yield file
        file.flush()
        files.write_bytes(path, file.id.get_file_image())


@contextmanager
def opened(path: Path, kind: str, version: int | tuple[int, ...], texts_within: int = -1) -> Iterator[h5py.File]:
    """Yield an HDF5 file of ours, opened for reading; its texts lie within the first bytes, by default anywhere.

    The file may come from others: arrays that are links, lie in other files or claim more memory than the file can hold
    are refused before any is read.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, or not of this kind and one of these versions; the file is named.
    """
    versions = (version,) if isinstance(version, int) else version
    # the caller reads inside the `with` too: what it raises on values of wrong types names the file
    with files.readable(path, "damaged or not a file of ours"):
        with path.open("rb") as begin:
            _check_heaps(begin.read(texts_within), is_whole=path.stat().st_size <= texts_within or texts_within < 0)
        with h5py.File(path, "r") as file:
            found, number = file.attrs.get("format"), file.attrs.get("version")
            if not isinstance(found, str) or found != kind or number not in versions:
                known = " or ".join(map(str, versions))
                raise ValueError(f"expected {kind!r} version {known}, got {found!r} {number}")
            for name in file:
                checked(file, name)
            yield file


def _check_heaps(content: bytes, is_whole: bool) -> None:
    """Refuse a file whose heaps of texts do not advance: the library would read them for ever."""
    start = content.find(_HEAP)
    while start >= 0:
        end = start + int.from_bytes(content[start + 8 : start + 16], "little")
        place = start + 16
        while place + 16 <= (end if is_whole else min(end, len(content))):
            # an object: 2 bytes index (0 = free space), 6 bytes, 8 bytes size; then its data, in steps of 8 bytes
            index = int.from_bytes(content[place : place + 2], "little")
            size = int.from_bytes(content[place + 8 : place + 16], "little")
            step = size if index == 0 else 16 + -(-size // 8) * 8
            if step < 16 or place + step > (min(end, len(content)) if is_whole else end):
                raise ValueError("a heap of texts is damaged")
            place += step
        start = content.find(_HEAP, start + 8)


def checked(file: h5py.File, name: str) -> h5py.Dataset:
    """Return an array of a file; one that is a link, lies elsewhere or claims too much is a ValueError."""
    dataset = file.get(name)
    if not isinstance(file.get(name, getlink=True), h5py.HardLink) or not isinstance(dataset, h5py.Dataset):
        raise ValueError(f"{name!r} is no array of this file")
    if dataset.external or dataset.is_virtual:
        raise ValueError(f"the data of {name!r} lie in another file")
    stored = dataset.id.get_storage_size()
    # gzip shrinks to 1 / 1032 at most: a longer claim is no compressed data
    if dataset.nbytes > stored * (1032 if dataset.chunks else 1):
        raise ValueError(f"{name!r} claims {dataset.nbytes} bytes, the file holds {stored} of them")
    return dataset


def stored_dataset(file: h5py.File, name: str, most: int) -> h5py.Dataset:
    """Return an array of at most `most` numbers, see :func:`checked`; ValueError otherwise."""
    dataset = checked(file, name)
    if dataset.dtype.kind not in "biuf" or dataset.size is None or dataset.size > most:
        got = f"shape {dataset.shape} and dtype {dataset.dtype}"
        raise ValueError(f"{name!r}: expected at most {most} numbers, got {got}")
    return dataset


def stored_array(file: h5py.File, name: str, most: int) -> npt.NDArray[Any]:
    """Return the values of :func:`stored_dataset`."""
    return np.asarray(stored_dataset(file, name, most)[()])


def read_map(path: Path, most: int) -> npt.NDArray[Any]:
    """Return the only array in an HDF5 file of another program; no array or several are a ValueError."""
    found: list[str] = []
    with h5py.File(path, "r") as file:
        # visits hard links only, and each object once
        file.visititems(lambda name, node: found.append(name) if hasattr(node, "shape") else None)
        if len(found) != 1:
            raise ValueError(f"expected one array, found {', '.join(found) or 'none'}")
        return stored_array(file, found[0], most)
