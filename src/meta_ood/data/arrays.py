"""Score maps and label maps of other programs: npy, npz, HDF5, TIFF and PNG files.

Such a file may be damaged or claim any size. The size is taken from the header and checked before memory is allocated,
formats come from an allow-list, and whatever a library raises becomes a ``ValueError`` that names the file.
"""

import math
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from meta_ood.data import hdf5
from meta_ood.data.files import readable
from meta_ood.data.images import MAX_PIXELS, read_numbers

Array = npt.NDArray[Any]

_LONGEST_HEADER = 10_000  # [bytes] of an npy file, NumPy's own limit
SUFFIXES = (".npy", ".npz", ".h5", ".hdf5", ".tif", ".tiff", ".png")


def read_array(path: Path) -> Array:
    """Return the two-dimensional array of numbers in a file; axes of length 1 are dropped.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged, holds several arrays or none, or anything but at most :data:`MAX_PIXELS`
            numbers in two dimensions; the file is named.
    """
    with readable(path, "not a readable map"):
        if path.suffix == ".npy":
            with path.open("rb") as file:
                array = _read_npy(file)
        elif path.suffix == ".npz":
            array = _read_npz(path)
        elif path.suffix in (".h5", ".hdf5"):
            array = hdf5.read_map(path, MAX_PIXELS)
        else:
            array = read_numbers(path)
        if array.ndim == 3 and 1 in (array.shape[0], array.shape[2]):
            array = np.squeeze(array, 0 if array.shape[0] == 1 else 2)
        if array.ndim != 2:
            raise ValueError(f"expected one value a pixel, got shape {array.shape}")
        if array.dtype.kind not in "biuf":
            raise ValueError(f"expected numbers, got dtype {array.dtype}")
        return array


def read_npz_member(path: Path, name: str) -> Array:
    """Return one array of an npz archive by its name; it may have any shape.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged or holds no such array of at most :data:`MAX_PIXELS` numbers.
    """
    with readable(path, f"expected an array named {name}"):
        return _read_npz(path, f"{name}.npy")


def _read_npy(file: IO[bytes]) -> Array:
    """Read an array from an open npy file after a check of its header."""
    version = np.lib.format.read_magic(file)
    length = int.from_bytes(file.read(2 if version == (1, 0) else 4), "little")
    if length > _LONGEST_HEADER:  # NumPy would read it first and refuse it then
        raise ValueError(f"a header of {length} bytes, expected at most {_LONGEST_HEADER}")
    file.seek(8)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    else:
        shape, _, dtype = np.lib.format.read_array_header_2_0(file)
    if dtype.kind not in "biuf" or math.prod(shape) > MAX_PIXELS:
        raise ValueError(f"expected at most {MAX_PIXELS} numbers, got {shape} of {dtype}")
    file.seek(0)
    return np.asarray(np.lib.format.read_array(file, allow_pickle=False))


def _read_npz(path: Path, member: str = "") -> Array:
    with zipfile.ZipFile(path) as archive:
        names = [member] if member else archive.namelist()
        if len(names) != 1:
            found = ", ".join(name.removesuffix(".npy") for name in names)
            raise ValueError(f"expected one array, found {found or 'none'}")
        with archive.open(names[0]) as file:
            return _read_npy(file)
