"""Tensors from files of ``torch.save``, read without running anything that a file says.

Such a file is a pickle, that is a program for a small stack machine, and beside it the tensors' numbers: either in a
zip archive, or one after the other (PyTorch before 1.6). Even the restricted ``torch.load(weights_only=True)`` calls
what the pickle names: 500 bytes make it compute the hash of a nested tuple for ever, and a storage that is too small
for its tensor is enlarged. This module therefore interprets the twenty-odd instructions that a state dict needs itself:

- keys of dicts are texts or numbers, so that nothing nested is ever hashed;
- of the functions that a pickle may call, those that make plain tensors are imitated, those that
  make NumPy values and the like leave None, and any other ends the reading;
- a tensor's numbers must be in the file, so that memory is bounded by the file's size, and time by
  the pickle's, which is bounded too.
"""

import pickletools
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch
from torch import Tensor

WRAPPERS = ("state_dict", "model", "model_state_dict")
"""Entries that hold a state dict in known files, in this order of preference."""

_MAGIC = 0x1950A86A20F9469CFC6C  # first value of a file of PyTorch before 1.6
_PICKLE_BYTES = 1 << 22  # interpreted in seconds; a published network with Adam's state: 0.3 MB
_DTYPES = {"Char": torch.int8, "Byte": torch.uint8}  # kind of storage -> dtype
for _kind in ("Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Bool"):
    _DTYPES[_kind] = getattr(torch, _kind.lower())
# Instructions that put their argument on the stack.
_VALUES = {
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE"),
    *("BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES"),
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_TUPLE": tuple}
# Functions whose values stand beside the weights, such as a stored mean IoU: not called, None.
_LEFT_OUT = {
    *("torch.Size", "torch.device", "_codecs.encode", "numpy.dtype", "numpy.ndarray"),
    *("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar"),
    *("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct"),
}


class CheckpointError(ValueError):
    """A weights file cannot be used; the message names the file, the keys and what to do."""


@dataclass(frozen=True)
class Contents:
    """The state dict of a file."""

    tensors: dict[str, Tensor]  # on the CPU
    layout: str  # the format in words, for reports
    ignored: tuple[str, ...] = ()  # other entries of the file: optimizer, epoch, ...


class _FileError(Exception):
    """The file asks for something that is not read here."""


class _Global(NamedTuple):
    """The dotted name of a function or class in a pickle; nothing is imported."""

    name: str


class _Storages:
    """Memory for the tensors' numbers, together at most as large as the file."""

    def __init__(self, file_size: int) -> None:
        self.file_size = file_size
        self.claimed = 0  # bytes
        self.by_key: dict[str, Tensor] = {}

    def add(self, key: str, dtype: torch.dtype, elements: int) -> Tensor:
        """Return the storage of this key, a one-dimensional tensor; its numbers are filled in later."""
        if key not in self.by_key:
            self.claimed += elements * dtype.itemsize
            if elements < 0 or self.claimed > self.file_size:
                raise _FileError(f"its tensors take {self.claimed} bytes, and the file has {self.file_size}")
            self.by_key[key] = torch.empty(elements, dtype=dtype)
        if self.by_key[key].dtype != dtype or len(self.by_key[key]) != elements:
            raise _FileError(f"storage {key} is described in two ways")
        return self.by_key[key]

    def fill(self, key: str, data: bytes) -> None:
        """Fill a storage with its numbers."""
        target = self.by_key[key]
        if len(data) != target.nbytes:
            raise ValueError(f"storage {key} has {len(data)} bytes, expected {target.nbytes}")
        if data:
            target.copy_(torch.frombuffer(bytearray(data), dtype=target.dtype))


def read(path: Path) -> Contents:
    """Return the state dict of a file of ``torch.save``, zip or older; CheckpointError for any other file."""
    if not path.is_file():
        raise CheckpointError(f"{path}: no such weights file")
    try:
        with path.open("rb") as file:
            is_zip = file.read(4) == b"PK\3\4"
            storages = _Storages(file.seek(0, 2))
            file.seek(0)
            loaded = _read_zip(file, storages) if is_zip else _read_legacy(file, storages)
    except _FileError as error:
        raise CheckpointError(f"{path}: refused: {error}") from None
    except Exception as error:  # zipfile and pickletools raise many kinds for damaged files
        raise CheckpointError(f"{path}: damaged or cut off, or no file of torch.save or safetensors: {error}") from None
    return unwrap(path, loaded, "torch zip" if is_zip else "torch before 1.6")


def unwrap(path: Path, loaded: object, kind: str) -> Contents:
    """Return the state dict that `loaded` is, or holds below a name of :data:`WRAPPERS`; all entries are tensors."""
    if not isinstance(loaded, Mapping) or not loaded:
        raise CheckpointError(f"{path}: holds {type(loaded).__name__}, expected a state dict")
    wrapper = next((key for key in WRAPPERS if isinstance(loaded.get(key), Mapping)), None)
    entries: Mapping[Any, Any] = loaded if wrapper is None else loaded[wrapper]
    ignored = () if wrapper is None else tuple(str(key) for key in loaded if key != wrapper)
    where = "bare state dict" if wrapper is None else f"state dict below {wrapper!r}"
    if not entries:
        raise CheckpointError(f"{path}: {where} is empty")
    for key, value in entries.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            found, known = f"entry {key!r:.100} is {type(value).__name__}", ", ".join(WRAPPERS)
            raise CheckpointError(f"{path}: {where}: {found}, expected a name and a tensor; known wrappers: {known}")
    return Contents(dict(entries), f"{kind}, {where}", ignored)


def _read_zip(file: BinaryIO, storages: _Storages) -> object:
    with zipfile.ZipFile(file) as archive:
        # 1. no member may be larger unpacked than it is in the file
        members = {info.filename.partition("/")[2]: info for info in archive.infolist()}
        total = sum(info.file_size for info in archive.infolist())
        if total > storages.file_size:
            raise _FileError(f"its members unpack to {total} bytes, and the file has {storages.file_size}")
        if "data.pkl" not in members or "constants.pkl" in members:
            raise _FileError("a zip archive, but not one of torch.save (TorchScript is not read)")
        if "byteorder" in members and archive.read(members["byteorder"]) != b"little":
            raise _FileError("its numbers are not little-endian")
        if members["data.pkl"].file_size > _PICKLE_BYTES:
            raise _FileError(f"its pickle has more than {_PICKLE_BYTES} bytes")
        # 2. the object, and each of its storages, which is a member of its own
        loaded = _interpret(BytesIO(archive.read(members["data.pkl"])), storages)
        for key in storages.by_key:
            storages.fill(key, archive.read(members[f"data/{key}"]))
        return loaded


def _read_legacy(file: BinaryIO, storages: _Storages) -> object:
    # 1. five pickles: magic number, version, byte order and sizes, the object, its storages' keys
    pickles = BytesIO(file.read(_PICKLE_BYTES))
    if _interpret(pickles, storages) != _MAGIC:
        raise ValueError("it does not begin as such a file")
    _, about, loaded, keys = (_interpret(pickles, storages) for _ in range(4))
    if not isinstance(about, dict) or not about.get("little_endian", True):
        raise _FileError("its numbers are not little-endian")
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or {*keys} != {*storages.by_key}:
        raise ValueError("the list of its storages does not belong to its tensors")
    # 2. each storage: the number of its elements, and these; tensors of `loaded` are views of it
    file.seek(pickles.tell())
    for key in keys:
        (elements,) = struct.unpack("<q", file.read(8))
        if elements != len(storages.by_key[key]):
            raise ValueError(f"storage {key} has {elements} elements, expected {len(storages.by_key[key])}")
        storages.fill(key, file.read(storages.by_key[key].nbytes))
    return loaded


def _interpret(stream: BinaryIO, storages: _Storages) -> object:
    """Return the value of one pickle; see the module's text."""
    stack: list[Any] = []
    marks: list[int] = []  # stack heights
    memo: dict[int, Any] = {}

    def since_mark() -> list[Any]:
        start = marks.pop()
        items = stack[start:]
        del stack[start:]
        return items

    argument: Any
    for opcode, argument, _ in pickletools.genops(stream):
        match opcode.name:
            case "PROTO":
                pass
            case "STOP":
                return stack.pop()
            case "MARK":
                marks.append(len(stack))
            case name if name in _VALUES:
                stack.append(argument)
            case name if name in _CONSTANTS:
                stack.append(_CONSTANTS[name])
            case name if name in _EMPTY:
                stack.append(_EMPTY[name]())
            case "TUPLE":
                stack.append(tuple(since_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                number = int(opcode.name[-1])
                stack[-number:] = [tuple(stack[-number:])]
            case "APPEND" | "APPENDS":
                items = since_mark() if opcode.name == "APPENDS" else [stack.pop()]
                if isinstance(stack[-1], list):
                    stack[-1].extend(items)
            case "SETITEM" | "SETITEMS":
                items = since_mark() if opcode.name == "SETITEMS" else [stack.pop(-2), stack.pop()]
                for key, value in zip(items[::2], items[1::2], strict=True):
                    if not isinstance(key, str | int | float | None) or not isinstance(stack[-1], dict):
                        raise _FileError(f"a key is {type(key).__name__}, expected text or a number of a dict")
                    stack[-1][key] = value
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "GLOBAL":
                stack.append(_Global(argument.replace(" ", ".")))
            case "REDUCE":
                arguments = stack.pop()
                stack.append(_call(stack.pop(), arguments))
            case "BUILD":  # attributes, such as `_metadata` of a state dict
                stack.pop()
            case "BINPERSID":
                _, kind, key, _, elements, *more = stack.pop()
                dtype = _DTYPES.get(kind.name.removeprefix("torch.").removesuffix("Storage"))
                if dtype is None or more not in ([], [None]) or not isinstance(key, str):
                    raise _FileError(f"a storage is a {kind.name:.100} or a view, no plain tensor")
                stack.append(storages.add(key, dtype, elements))
            case _:
                raise _FileError(f"it holds the instruction {opcode.name}, which no weights need")
    raise ValueError("its pickle has no end")


def _call(function: object, arguments: tuple[Any, ...]) -> object:
    """Imitate a call that a pickle asks for."""
    name = function.name if isinstance(function, _Global) else type(function).__name__
    if name in _LEFT_OUT:
        return None
    if name == "collections.OrderedDict" and arguments == ():
        return {}
    if name in ("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state"):
        return arguments[0]
    if name in ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2"):
        storage, offset, size, stride = arguments[:4]
        if not all(isinstance(number, int) and number >= 0 for number in (offset, *size, *stride)):
            raise _FileError("the size, stride or offset of a tensor is not made of numbers from 0 on")
        # checked here: `set_` of torch would enlarge the storage
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if 0 not in size and last >= len(storage):
            raise _FileError(f"a tensor of size {size!s:.60} is larger than its {len(storage)} numbers")
        return torch.as_strided(storage, size, stride, offset)
    raise _FileError(f"it asks for {name:.100}, which is no plain tensor; only weights are read")
