"""HDF5 files that appear whole or not at all, and arrays of other programs."""

import io
import os
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
_NUMBERS = 1 << 20  # [bytes] HDF5 reads its own structures in pieces below this (H5F_ACCUM_MAX_SIZE)
_MOST_NODES = 1000  # groups in a file of another program; HDF5 takes quadratic time for nested ones


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
def opened(path: Path, kind: str, version: int | tuple[int, ...]) -> Iterator[h5py.File]:
    """Yield an HDF5 file of ours, opened for reading.

    The file may come from others: arrays that are links, lie in other files or claim more memory than the file can hold
    are refused before any is read, and damaged heaps of texts when they are.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, or not of this kind and one of these versions; the file is named.
    """
    versions = (version,) if isinstance(version, int) else version
    # the caller reads inside the `with` too: what it raises on values of wrong types names the file
    with files.readable(path, "damaged or not a file of ours"), _Source(path) as source, h5py.File(source, "r") as file:
        found, number = file.attrs.get("format"), file.attrs.get("version")
        if not isinstance(found, str) or found != kind or number not in versions:
            known = " or ".join(map(str, versions))
            raise ValueError(f"expected {kind!r} version {known}, got {found!r} {number}")
        for name in file:
            checked(file, name)
        yield file


class _Source(io.BufferedReader):
    """A file from which HDF5 reads, refused where it reads a heap that would keep it busy for ever."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer of HDF5, if there is no damaged heap in it."""
        start = self.tell()
        count = super().readinto(buffer)
        if count >= _NUMBERS:
            return count
        # the first bytes of a heap may have been read before
        margin = min(start, len(_HEAP) - 1)
        content = os.pread(self.fileno(), margin, start - margin) + bytes(buffer[:count])
        place = content.find(_HEAP)
        while place >= 0:
            self._check_heap(start - margin + place)
            place = content.find(_HEAP, place + 1)
        return count

    def _check_heap(self, address: int) -> None:
        """Refuse a heap of texts that does not advance: HDF5 would read it for ever."""
        size = int.from_bytes(os.pread(self.fileno(), 8, address + 8), "little")
        heap = os.pread(self.fileno(), min(size, os.fstat(self.fileno()).st_size), address)
        place = 16
        while place + 16 <= size:
            # an object: 2 bytes index (0 = free space), 6 bytes, 8 bytes size; then its data, in steps of 8 bytes
            index, length = (int.from_bytes(heap[place + a : place + b], "little") for a, b in ((0, 2), (8, 16)))
            step = length if index == 0 else 16 + -(-length // 8) * 8
            if step < 16 or place + step > len(heap):
                raise ValueError("a heap of texts is damaged")
            place += step


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
    names: list[str] = []
    found: list[str] = []

    def note(name: str, node: h5py.HLObject) -> bool | None:
        names.append(name)
        if hasattr(node, "shape"):
            found.append(name)
        return True if len(found) > 1 or len(names) > _MOST_NODES else None  # True ends the visit

    with h5py.File(path, "r") as file:
        # visits hard links only, and each object once
        file.visititems(note)
        if len(found) != 1:
            raise ValueError(f"expected one array, found {', '.join(found) or f'none in {len(names)} groups'}")
        return stored_array(file, found[0], most)
