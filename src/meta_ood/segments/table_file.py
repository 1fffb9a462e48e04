"""Segment tables as HDF5 files. The format is described in docs/formats.md."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from meta_ood.data.hdf5 import opened, replacing
from meta_ood.segments.table import SegmentTable

READABLE = (1, 2)  # version 1 also had columns of true components that nothing read; they are left out


def write_table(path: Path, table: SegmentTable, provenance: Mapping[str, Any]) -> None:
    """Write a segment table atomically, one HDF5 dataset per field; the folder is created.

    `provenance` is the table's origin: network, variant, dataset, hash of the weights, names of the classes.
    """
    with replacing(path) as file:
        file.attrs["format"] = "meta-ood segments"
        file.attrs["version"] = READABLE[-1]
        for key, value in provenance.items():
            file.attrs[f"provenance.{key}"] = value
        for f in fields(SegmentTable):
            value = getattr(table, f.name)
            if isinstance(value, np.ndarray):
                file.create_dataset(f.name, data=value)
            elif isinstance(value, tuple):
                file.create_dataset(f.name, data=list(value), dtype=h5py.string_dtype())
            else:
                file.attrs[f.name] = value


def read_table(path: Path) -> SegmentTable:
    """Read a segment table.

    FileNotFoundError, or ValueError if the file, which is named, is damaged or no segment table of a known version.
    """
    with opened(path, "meta-ood segments", READABLE) as file:
        values: dict[str, Any] = {}
        for f in fields(SegmentTable):
            if f.name not in file:
                values[f.name] = file.attrs[f.name]
            elif h5py.check_string_dtype(file[f.name].dtype) is not None:
                values[f.name] = tuple(file[f.name].asstr()[()])
            else:
                values[f.name] = file[f.name][()]
        values["score"], values["threshold"] = str(values["score"]), float(values["threshold"])
        return SegmentTable(**values)


def read_weights_sha256(path: Path) -> str | None:
    """Return the SHA-256 of the weights that a table's segments were predicted with; None if unknown.

    Errors are those of :func:`read_table`.
    """
    with opened(path, "meta-ood segments", READABLE) as file:
        found = file.attrs.get("provenance.weights_sha256")
        return None if found is None else str(found)


def read_class_names(path: Path) -> tuple[str, ...]:
    """Return the names of the classes that the network of a table predicts; () if unknown.

    Errors are those of :func:`read_table`.
    """
    with opened(path, "meta-ood segments", READABLE) as file:
        return tuple(str(name) for name in file.attrs.get("provenance.class_names", ()))
