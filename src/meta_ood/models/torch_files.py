"""Tensors from files of ``torch.save``, read without running anything that a file says.

Such a file is a pickle, that is a program for a small stack machine, and beside it the tensors' numbers: either in a
zip archive, or one after the other (PyTorch before 1.6). Even the restricted ``torch.load(weights_only=True)`` calls
what the pickle names, so that a few hundred bytes can ask for gigabytes or compute the hash of a nested tuple for ever.
This module therefore interprets the twenty-odd instructions that a state dict needs itself:

- keys of dicts are texts or numbers, so that nothing nested is ever hashed;
- of the functions that a pickle may call, those that make plain tensors are imitated, those that
  make NumPy values and the like leave None, and any other ends the reading;
- a tensor's numbers must be in the file, so that memory is bounded by the file's size, and time by
  the pickle's, which is bounded too.

Nothing here knows a network.
"""

import pickletools
import struct
import zipfile
from collections.abc import Callable, Mapping
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
_DTYPES = {
    "Float": torch.float32,
    "Double": torch.float64,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
}
_VALUES = {
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE"),
    *("BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES"),
}  # instructions that put their argument on the stack
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
    """The state dict of a file.

    Attributes:
        tensors: Name -> tensor on the CPU.
        layout: The format in words, for reports.
        ignored: Other entries of the file: optimizer, epoch, ...
    """

    tensors: dict[str, Tensor]
    layout: str
    ignored: tuple[str, ...] = ()


class _FileError(Exception):
    """The file asks for something that is not read here."""


class _Global(NamedTuple):
    """The dotted name of a function or class in a pickle; nothing is imported."""

    name: str


_Storages = Callable[[str, torch.dtype, int], Tensor]
"""(key, dtype, number of elements) -> one-dimensional tensor."""


def read(path: Path) -> Contents:
    """Return the state dict of a file of ``torch.save``, zip or the older layout.

    Raises:
        CheckpointError: If the file is missing, damaged, compressed, asks for anything but tensors and plain values, or
            holds no state dict.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such weights file")
    try:
        with path.open("rb") as file:
            is_zip = file.read(4) == b"PK\3\4"
            file.seek(0)
            loaded = _read_zip(file) if is_zip else _read_legacy(file)
    except _FileError as error:
        raise CheckpointError(f"{path}: refused: {error}") from None
    except Exception as error:  # zipfile and pickletools raise many kinds for damaged files
        raise CheckpointError(f"{path}: damaged or cut off, or no file of torch.save or safetensors: {error}") from None
    return unwrap(path, loaded, "torch zip" if is_zip else "torch before 1.6")


def unwrap(path: Path, loaded: object, kind: str) -> Contents:
    """Return the state dict that `loaded` is or holds.

    Args:
        path: For messages.
        loaded: A bare state dict, or a dict with one below a name of :data:`WRAPPERS`.
        kind: Kind of file, for reports.

    Raises:
        CheckpointError: If there is no state dict, or an entry of it is not a tensor; the entry is named.
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
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise CheckpointError(
                f"{path}: {where}: entry {key!r:.100} is {type(value).__name__}, expected a name "
                f"and a tensor; known wrappers: {', '.join(WRAPPERS)}"
            )
    return Contents(dict(entries), f"{kind}, {where}", ignored)


def _read_zip(file: BinaryIO) -> object:
    with zipfile.ZipFile(file) as archive:
        # 1. no member may be larger unpacked than it is in the file
        members = {info.filename.partition("/")[2]: info for info in archive.infolist()}
        size = file.seek(0, 2)
        total = sum(info.file_size for info in archive.infolist())
        if total > size:
            raise _FileError(f"its members unpack to {total} bytes, and the file has {size}")
        if "data.pkl" not in members or "constants.pkl" in members:
            raise _FileError("a zip archive, but not one of torch.save (TorchScript is not read)")
        if "byteorder" in members and archive.read(members["byteorder"]) != b"little":
            raise _FileError("its numbers are not little-endian")
        if members["data.pkl"].file_size > _PICKLE_BYTES:
            raise _FileError(f"its pickle has more than {_PICKLE_BYTES} bytes")
        # 2. each storage is a member of its own
        read: dict[str, bytearray] = {}

        def storage(key: str, dtype: torch.dtype, elements: int) -> Tensor:
            if key not in read:
                read[key] = bytearray(archive.read(members[f"data/{key}"]))
            if len(read[key]) != elements * dtype.itemsize:
                raise _FileError(f"storage {key} has {len(read[key])} bytes, not {elements} {dtype}")
            return torch.frombuffer(read[key], dtype=dtype) if elements else torch.empty(0, dtype=dtype)

        return _interpret(BytesIO(archive.read(members["data.pkl"])), storage)


def _read_legacy(file: BinaryIO) -> object:
    size = file.seek(0, 2)
    file.seek(0)
    pickles = BytesIO(file.read(_PICKLE_BYTES))
    storages: dict[str, Tensor] = {}
    claimed = 0  # bytes of all storages

    def storage(key: str, dtype: torch.dtype, elements: int) -> Tensor:
        nonlocal claimed
        if key not in storages:
            claimed += elements * dtype.itemsize
            if elements < 0 or claimed > size:
                raise _FileError(f"its tensors take {claimed} bytes, and the file has {size}")
            storages[key] = torch.empty(elements, dtype=dtype)
        if storages[key].dtype != dtype or len(storages[key]) != elements:
            raise _FileError(f"storage {key} is described in two ways")
        return storages[key]

    # 1. five pickles: magic number, version, byte order and sizes, the object, its storages' keys
    if _interpret(pickles, storage) != _MAGIC:
        raise ValueError("it does not begin as such a file")
    _, about, loaded, keys = (_interpret(pickles, storage) for _ in range(4))
    if not isinstance(about, dict) or not about.get("little_endian", True):
        raise _FileError("its numbers are not little-endian")
    # 2. each storage: the number of its elements, and these; tensors of `loaded` are views of it
    file.seek(pickles.tell())
    for key in keys if isinstance(keys, list) else []:
        (elements,) = struct.unpack("<q", file.read(8))
        target = storages.pop(str(key))
        if elements != len(target):
            raise ValueError(f"storage {key} has {elements} elements, expected {len(target)}")
        data = bytearray(file.read(target.nbytes))
        if len(data) != target.nbytes:
            raise ValueError(f"it ends within storage {key}")
        if elements:
            target.copy_(torch.frombuffer(data, dtype=target.dtype))
    if storages:
        raise ValueError(f"storage {next(iter(storages))} is missing")
    return loaded


def _interpret(stream: BinaryIO, storage: _Storages) -> object:
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
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[opcode.name])
            case name if name in _VALUES:
                stack.append(argument)
            case "EMPTY_LIST" | "EMPTY_DICT" | "EMPTY_TUPLE":
                stack.append({"LIST": list, "DICT": dict, "TUPLE": tuple}[opcode.name[6:]]())
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
                    if not isinstance(key, str | int | float | None):
                        raise _FileError(f"a key is {type(key).__name__}, expected text or a number")
                    stack[-1][key] = value
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "GLOBAL":
                stack.append(_Global(argument.replace(" ", ".")))
            case "REDUCE":
                arguments, function = stack.pop(), stack.pop()
                stack.append(_call(function, arguments))
            case "BUILD":  # attributes, such as `_metadata` of a state dict
                stack.pop()
            case "BINPERSID":
                _, kind, key, _, elements, *more = stack.pop()
                dtype = _DTYPES.get(kind.name.removeprefix("torch.").removesuffix("Storage"))
                if dtype is None or more not in ([], [None]):
                    raise _FileError(f"storage {key} is a {kind.name} or a view, no plain tensor")
                stack.append(storage(key, dtype, elements))
            case _:
                raise _FileError(f"it holds the instruction {opcode.name}, which no weights need")
    raise ValueError("its pickle has no end")


def _call(function: object, arguments: tuple[Any, ...]) -> object:
    """Imitate a call that a pickle asks for."""
    name = function.name if isinstance(function, _Global) else type(function).__name__
    if name == "collections.OrderedDict" and arguments == ():
        return {}
    if name in ("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state"):
        return arguments[0]
    if name in ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2"):
        storage, offset, size, stride = arguments[:4]
        if min((offset, *size, *stride)) < 0 or len(size) != len(stride):
            raise _FileError(f"a tensor of size {size!s:.60} and stride {stride!s:.60}")
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if 0 not in size and last >= len(storage):
            raise _FileError(f"a tensor of size {size!s:.60} is larger than its {len(storage)} numbers")
        return torch.as_strided(storage, size, stride, offset)
    if name in _LEFT_OUT:
        return None
    raise _FileError(f"it asks for {name:.100}, which is no plain tensor; only weights are read")
