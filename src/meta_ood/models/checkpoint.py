"""Weights on disk: safetensors with metadata, strict both ways, never a pickle.

A file holds the network's state dict and one metadata entry, ``meta_ood``: JSON with at least
``format``, ``name``, ``architecture``, ``options``, ``num_classes``, ``class_names``, ``variant``,
``normalisation``, ``align_corners`` and ``output_stride``. Same network, same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from meta_ood.models import MODELS, build
from meta_ood.models.matching import converted, match
from meta_ood.models.pixels import Normalisation
from meta_ood.models.torch_files import CheckpointError

FORMAT = 1
_KEY = "meta_ood"
_REQUIRED = ("format", "name", "architecture", "options", "num_classes", "class_names", "variant")


def save(
    path: Path,
    network: nn.Module,
    *,
    name: str,
    architecture: str,
    options: Mapping[str, Any],
    num_classes: int,
    class_names: Sequence[str],
    variant: str,
    **more_metadata: Any,
) -> None:
    """Write a network's weights and what is needed to build it again, atomically.

    Parameters
    ----------
    path
        Where to; parents are made.
    network
        Its state dict is written, on the CPU, in its own dtypes.
    name
        The network's name in params.yaml.
    architecture, options, num_classes
        What :func:`meta_ood.models.build` takes.
    class_names
        One a class.
    variant
        ``baseline`` or ``ood_trained``.
    **more_metadata
        Anything JSON can say: origin, epoch, hashes.

    Raises
    ------
    ValueError
        If class names and class count disagree or a tensor is not finite.
    """
    if len(class_names) != num_classes:
        raise ValueError(
            f"{path}: class_names has {len(class_names)} names for {num_classes} classes"
        )
    normalisation = [m.describe() for m in network.modules() if isinstance(m, Normalisation)]
    metadata = {
        "format": FORMAT,
        "name": name,
        "architecture": architecture,
        "options": dict(options),
        "num_classes": num_classes,
        "class_names": list(class_names),
        "variant": variant,
        "normalisation": normalisation[0] if normalisation else None,
        "align_corners": bool(network.align_corners),
        "output_stride": network.output_stride,
        **more_metadata,
    }
    write(path, network.state_dict(), metadata)


def write(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write tensors and metadata atomically.

    Raises
    ------
    ValueError
        If a tensor is not finite; nothing is written then.
    """
    own = {}
    storages: set[int] = set()
    for key, value in tensors.items():
        tensor = value.detach().cpu().contiguous()
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise ValueError(f"{path}: {key} is not finite; weights not written")
        storage = tensor.untyped_storage().data_ptr()
        own[key] = tensor.clone() if storage in storages else tensor
        storages.add(storage)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.touch()
        mode = partial.stat().st_mode  # safetensors would leave the file to its owner alone
        # One entry only: safetensors writes several in random order.
        save_file(own, partial, {_KEY: json.dumps(metadata, sort_keys=True)})
        partial.chmod(mode)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def read_metadata(path: Path) -> dict[str, Any]:
    """Return the metadata of a weights file without reading its tensors.

    Raises
    ------
    CheckpointError
        If the file is missing, damaged or was not written by :func:`save`.
    """
    entries = _entries(path)
    if _KEY not in entries:
        raise CheckpointError(
            f"{path}: no metadata entry {_KEY!r}: not written by meta-ood; "
            "make it a network of ours by `meta-ood weights import`"
        )
    try:
        metadata = json.loads(entries[_KEY])
        missing = [key for key in _REQUIRED if key not in metadata]
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: metadata entry {_KEY!r} is damaged: {error}") from None
    if not isinstance(metadata, dict) or missing:
        raise CheckpointError(f"{path}: metadata without {', '.join(missing) or 'a mapping'}")
    if metadata["format"] != FORMAT:
        raise CheckpointError(f"{path}: format {metadata['format']!r}, expected {FORMAT}")
    return metadata


def load(path: Path, architecture: str | None = None) -> tuple[nn.Module, dict[str, Any]]:
    """Build the network that a file describes and load its weights, strictly.

    Parameters
    ----------
    path
        A file of :func:`save`.
    architecture
        What params.yaml says; the file must agree. Needed for ``package.module:builder``: a file
        alone never says what code to import.

    Returns
    -------
    The network in training mode, as built, and the metadata.

    Raises
    ------
    CheckpointError
        If the file is missing, damaged, of another architecture, or its keys or shapes are not
        exactly those of the network.
    """
    metadata = read_metadata(path)
    own = metadata["architecture"]
    if architecture is not None and architecture != own:
        raise CheckpointError(f"{path}: architecture {own!r}, expected {architecture!r}")
    if architecture is None and ":" in own:
        raise CheckpointError(
            f"{path}: architecture {own!r} is code of your own; "
            "say so by passing the architecture of params.yaml"
        )
    tensors = read_tensors(path)
    try:
        network = _empty(own, metadata["num_classes"], metadata["options"])
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error
    expected = network.state_dict()
    report = match(str(path), "meta-ood", expected, tensors)
    network.load_state_dict(converted(report, expected, tensors), assign=own in MODELS)
    return network, metadata


def looks_like_safetensors(path: Path) -> bool:
    """Tell a safetensors file by its name or its first bytes."""
    with path.open("rb") as file:
        start = file.read(9)
    return path.suffix == ".safetensors" or start[8:9] == b"{"


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file, mapped from it.

    Raises
    ------
    CheckpointError
        If the file is no safetensors file or damaged.
    """
    try:
        return load_file(path)
    except Exception as error:
        raise CheckpointError(f"{path}: not a safetensors file, or damaged: {error}") from None


def own_metadata(path: Path) -> dict[str, Any]:
    """Return the metadata of a file of ours, nothing of another."""
    if not looks_like_safetensors(path) or _KEY not in _entries(path):
        return {}
    return read_metadata(path)


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _entries(path: Path) -> dict[str, str]:
    if not path.is_file():
        raise CheckpointError(f"{path}: no such weights file")
    try:
        with safetensors.safe_open(path, "pt") as file:
            return dict(file.metadata() or {})
    except Exception as error:  # the library raises its own, OSError and others
        raise CheckpointError(f"{path}: not a safetensors file, or damaged: {error}") from None


def _empty(architecture: str, num_classes: int, options: Mapping[str, Any]) -> nn.Module:
    """Build without memory where the constructors are ours and every tensor will be replaced."""
    if architecture not in MODELS:
        return build(architecture, num_classes, **options)
    with torch.device("meta"):
        return build(architecture, num_classes, **options)
