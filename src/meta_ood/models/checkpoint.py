"""Weights files of this package: safetensors with metadata, never a pickle.

A file holds the network's state dict and one metadata entry, ``meta_ood``: JSON with at least the keys of
``_REQUIRED``, and ``normalisation``, ``align_corners`` and ``output_stride``. The same network gives the same bytes.
"""

import json
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from meta_ood.data.files import write_bytes
from meta_ood.models import build, is_ours, library_of
from meta_ood.models.matching import match
from meta_ood.models.pixels import Normalisation
from meta_ood.models.torch_files import CheckpointError, Contents

FORMAT = 1
# Keys that every file has, and the type of their values.
_REQUIRED: dict[str, type] = {"format": int, "name": str, "architecture": str, "options": dict}
_REQUIRED |= {"num_classes": int, "class_names": list, "variant": str}
_KEY = "meta_ood"
# Bounds for files that others may have written: the largest published option is a vocabulary of 49,408 words, and
# the metadata of an imported network have 2 kB, with a config of transformers 20 kB.
_LARGEST_OPTION = 100_000
_LARGEST_METADATA = 1 << 20


def save(path: Path, network: nn.Module, **metadata: Any) -> None:
    """Write a network's weights and what is needed to build it again, atomically.

    Args:
        path: Path of the file; its folder is made.
        network: Its state dict is written in its own dtypes.
        **metadata: Values that JSON can hold, with at least ``name`` (the network's in params.yaml), ``architecture``,
            ``options`` and ``num_classes`` (arguments of :func:`meta_ood.models.build`), ``class_names`` (C of them)
            and ``variant`` (``baseline`` or ``ood_trained``).

    Raises:
        CheckpointError: If a key is missing or of another type, or the number of class names is not ``num_classes``.
        ValueError: If a tensor is not finite.
    """
    normalisation = [m.describe() for m in network.modules() if isinstance(m, Normalisation)]
    metadata |= {
        "format": FORMAT,
        "options": dict(metadata["options"]),
        "class_names": list(metadata["class_names"]),
        "normalisation": normalisation[0] if normalisation else None,
        "align_corners": bool(network.align_corners),
        "output_stride": network.output_stride,
    }
    _check(path, metadata)
    write(path, network.state_dict(), metadata)


def write(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write tensors and metadata atomically; ValueError if a tensor is not finite, and nothing is written then."""
    own = {}
    storages: set[int] = set()
    for key, value in tensors.items():
        tensor = value.detach().cpu().contiguous()
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise ValueError(f"{path}: {key} is not finite; weights not written")
        # safetensors refuses tensors that share memory
        storage = tensor.untyped_storage().data_ptr()
        own[key] = tensor.clone() if storage in storages else tensor
        storages.add(storage)
    # Not `save_file`, which writes a file of its own beside ours and gives it other permissions.
    # One entry of metadata only: safetensors writes several in random order.
    write_bytes(path, to_bytes(own, {_KEY: json.dumps(metadata, sort_keys=True)}))


def read_metadata(path: Path) -> dict[str, Any]:
    """Return the metadata of a weights file; CheckpointError if :func:`save` did not write it, or it is damaged."""
    entries = _entries(path)
    if _KEY not in entries:
        raise CheckpointError(
            f"{path}: no metadata entry {_KEY!r}: not written by meta-ood; convert it with `meta-ood weights import`"
        )
    if len(entries[_KEY]) > _LARGEST_METADATA:
        raise CheckpointError(f"{path}: metadata of more than {_LARGEST_METADATA} bytes")
    try:
        metadata = json.loads(entries[_KEY])
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: metadata entry {_KEY!r} is damaged: {error}") from None
    if not isinstance(metadata, dict):
        raise CheckpointError(f"{path}: metadata is {type(metadata).__name__}, expected a mapping")
    _check(path, metadata)
    return metadata


def _check(path: Path, metadata: Mapping[str, Any]) -> None:
    """Refuse metadata with missing or wrong values; files may come from elsewhere."""
    if missing := [key for key in _REQUIRED if key not in metadata]:
        raise CheckpointError(f"{path}: metadata without {', '.join(missing)}")
    for key, kind in _REQUIRED.items():
        if not isinstance(metadata[key], kind):
            raise CheckpointError(f"{path}: metadata: {key} is {metadata[key]!r:.80}, expected {kind.__name__}")
    if metadata["format"] != FORMAT:
        raise CheckpointError(f"{path}: format {metadata['format']!r}, expected {FORMAT}")
    names, number = metadata["class_names"], metadata["num_classes"]
    if len(names) != number or not all(isinstance(name, str) for name in names):
        raise CheckpointError(f"{path}: metadata: {number} classes with {len(names)} class_names")
    # Options such as `blocks` decide how long it takes to build one of our networks.
    values = list(metadata["options"].values()) if is_ours(metadata["architecture"]) else []
    for value in values:  # which grows by the members of lists and mappings
        if isinstance(value, list | dict):
            values.extend(value.values() if isinstance(value, dict) else value)
        elif isinstance(value, int | float) and not abs(value) <= _LARGEST_OPTION:
            raise CheckpointError(f"{path}: metadata: option {value!r} is above {_LARGEST_OPTION}")


def load(path: Path, architecture: str | None = None) -> tuple[nn.Module, dict[str, Any]]:
    """Return the network that a file of :func:`save` describes, in training mode, and the metadata.

    Args:
        path: The file.
        architecture: The value of params.yaml, with which the file must agree. It is required for
            ``package.module:builder``, because a file alone never decides what code is imported.

    Raises:
        CheckpointError: If the file is missing, damaged, of another architecture, or does not fit the network exactly.
    """
    metadata = read_metadata(path)
    own = metadata["architecture"]
    if architecture is not None and architecture != own:
        raise CheckpointError(f"{path}: architecture {own!r}, expected {architecture!r}")
    if architecture is None and ":" in own:
        raise CheckpointError(
            f"{path}: architecture {own!r} is code outside of this package; "
            "pass the architecture of params.yaml to load it"
        )
    tensors = read_tensors(path)
    try:
        # Our constructors need no memory: every tensor is replaced below. Those of libraries make other tensors, too.
        with torch.device("meta") if is_ours(own) and not library_of(own) else nullcontext():
            network = build(own, metadata["num_classes"], **metadata["options"])
    except Exception as error:  # options from elsewhere: a negative width is a RuntimeError
        raise CheckpointError(f"{path}: {error}") from error
    _, values = match(str(path), Contents(tensors, "meta-ood"), network.state_dict())
    network.load_state_dict(values, assign=is_ours(own))
    return network, metadata


def load_alike(path: Path, metadata: Mapping[str, Any]) -> nn.Module:
    """Return another network of the architecture, classes and stride of the one with this metadata.

    Raises:
        CheckpointError: If they differ, or as :func:`load`.
    """
    network, own = load(path, metadata["architecture"])
    for key in ("class_names", "align_corners", "output_stride"):
        if own.get(key) != metadata.get(key):
            raise CheckpointError(f"{path}: {key} is {own.get(key)!r:.80}, not that of {metadata['name']}")
    return network


def is_safetensors(path: Path) -> bool:
    """Return whether the name or the first bytes are those of a safetensors file."""
    with path.open("rb") as file:
        start = file.read(9)
    return path.suffix == ".safetensors" or start[8:9] == b"{"


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file, mapped from it; CheckpointError if it is damaged."""
    try:
        return load_file(path)
    except Exception as error:
        raise CheckpointError(f"{path}: not a safetensors file, or damaged: {error}") from None


def own_metadata(path: Path) -> dict[str, Any]:
    """Return the metadata of a file of ours, and an empty dict for any other."""
    if not is_safetensors(path) or _KEY not in _entries(path):
        return {}
    return read_metadata(path)


def _entries(path: Path) -> dict[str, str]:
    if not path.is_file():
        raise CheckpointError(f"{path}: no such weights file")
    try:
        with safetensors.safe_open(path, "pt") as file:
            return dict(file.metadata() or {})
    except Exception as error:  # the library raises its own, OSError and others
        raise CheckpointError(f"{path}: not a safetensors file, or damaged: {error}") from None
