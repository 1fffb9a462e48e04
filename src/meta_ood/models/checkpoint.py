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
from meta_ood.models.pixels import Normalisation

FORMAT = 1
_KEY = "meta_ood"
_REQUIRED = ("format", "name", "architecture", "options", "num_classes", "class_names", "variant")


class CheckpointError(ValueError):
    """A weights file cannot be used; the message names the file, the keys and what to do."""


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
        # One entry only: safetensors writes several in random order.
        save_file(own, partial, {_KEY: json.dumps(metadata, sort_keys=True)})
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
    if not path.is_file():
        raise CheckpointError(f"{path}: no such weights file")
    try:
        with safetensors.safe_open(path, "pt") as file:
            entries = file.metadata() or {}
    except Exception as error:  # the library raises its own, OSError and others
        raise CheckpointError(f"{path}: not a safetensors file, or damaged: {error}") from None
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
    try:
        tensors = load_file(path)
    except Exception as error:
        raise CheckpointError(f"{path}: damaged: {error}") from None
    try:
        if own in MODELS:
            with torch.device("meta"):
                network = build(own, metadata["num_classes"], **metadata["options"])
        else:
            network = build(own, metadata["num_classes"], **metadata["options"])
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error
    check(path, network.state_dict(), tensors)
    network.load_state_dict(tensors, strict=True, assign=own in MODELS)
    return network, metadata


def check(path: Path, expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    """Compare names, shapes and dtypes.

    Raises
    ------
    CheckpointError
        Lists missing, unexpected and wrong entries.
    """
    problems = [f"missing {key}" for key in expected if key not in found]
    problems += [f"unexpected {key}" for key in found if key not in expected]
    problems += [
        f"{key} is {tuple(found[key].shape)} {found[key].dtype}, "
        f"expected {tuple(own.shape)} {own.dtype}"
        for key, own in expected.items()
        if key in found and (found[key].shape != own.shape or found[key].dtype != own.dtype)
    ]
    if problems:
        shown = "; ".join(problems[:5]) + ("; ..." if len(problems) > 5 else "")
        raise CheckpointError(f"{path}: {len(problems)} entries do not fit the network: {shown}")


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
