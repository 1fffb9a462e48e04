"""Weights from elsewhere: read in every known format, compared in full, loaded or refused.

The published code loads checkpoints with ``strict=False``: a file with another prefix before its names loads nothing,
without a message. Here :mod:`~meta_ood.models.torch_files` (or safetensors) gives tensors, which
:mod:`~meta_ood.models.matching` compares with the network and :mod:`~meta_ood.models.checkpoint` stores as ours.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from meta_ood.data.files import file_hash
from meta_ood.models import build, checkpoint, portable, torch_files, transformers_segmentation
from meta_ood.models.matching import MatchReport, match
from meta_ood.models.torch_files import CheckpointError, Contents


def import_published(
    path: Path, architecture: str, num_classes: int, options: Mapping[str, Any] | None = None
) -> tuple[nn.Module, MatchReport]:
    """Return the network of these :func:`meta_ood.models.build` arguments, with weights from a file, and the report.

    Args:
        path: A safetensors file, ours or not, a file of ``torch.save``, or a folder of transformers; every entry of the
            state dict is in it.

    Raises:
        CheckpointError: If the file cannot be read, or anything is missing, unexpected or of another shape.
    """
    options = portable(architecture, options or {})
    contents = _read_folder(path, options) if path.is_dir() else _read_any(path)
    network = build(architecture, num_classes, **options)
    report, tensors = match(str(path), contents, network.state_dict())
    network.load_state_dict(tensors)
    return network, report


def load_backbone(network: nn.Module, path: Path) -> MatchReport:
    """Initialise the backbone of a network with the weights of an image classifier.

    Args:
        network: One with the attribute ``backbone_prefixes``: how the names of its backbone begin.
        path: A file of a classifier with the same backbone; its last layer is left out.

    Raises:
        CheckpointError: If the network declares no backbone, or the backbone's names or shapes do not fit.
    """
    prefixes: tuple[str, ...] = getattr(network, "backbone_prefixes", ())
    if not prefixes:
        raise CheckpointError(f"{type(network).__name__} declares no backbone_prefixes (before 0.2: trunk_prefixes)")
    # torchvision's segmentation networks have "backbone.layer1...", its classifiers "layer1..."
    within = prefixes[0] if len(prefixes) == 1 else ""
    state = network.state_dict()
    expected = {key.removeprefix(within): value for key, value in state.items() if key.startswith(prefixes)}
    # of ImageNet classifiers, unless the network knows better
    last_layers: tuple[str, ...] = getattr(network, "last_layers", ("fc.", "bn_out.", "classifier."))
    report, found = match(str(path), _read_any(path), expected, last_layers)
    network.load_state_dict({**state, **{within + key: value for key, value in found.items()}})
    return report


def import_weights(source: Path, destination: Path, *, origin: str = "", **about: Any) -> MatchReport:
    """Write a released weights file in our format; nothing is written if it does not fit.

    Args:
        source: See :func:`import_published`.
        destination: Path of the safetensors file.
        origin: The source in the user's words: a URL, a paper. It is stored with the file's name, sha256
            and format. A file of ours keeps the origin that it has.
        **about: Metadata for :func:`meta_ood.models.checkpoint.save`, but ``num_classes``.
    """
    names = list(about["class_names"])
    network, report = import_published(source, about["architecture"], len(names), about["options"])
    earlier = {} if source.is_dir() else checkpoint.own_metadata(source)
    if earlier.get("class_names", names) != names:
        raise CheckpointError(f"{source}: its class names are not those of network {about['name']}")
    file = {
        "file": source.name,
        "sha256": ", ".join(file_hash(path) for path in _weights_files(source)),
        "layout": f"{report.layout}, prefix {report.prefix or 'none'}",
        "ignored": list(report.ignored),
        "source": origin,
    }
    checkpoint.save(destination, network, num_classes=len(names), origin=earlier.get("origin", file), **about)
    return report


def adopt(source: Path, destination: Path, *, name: str, architecture: str, **expected: Any) -> nn.Module:
    """Copy weights of :func:`import_weights`, with their metadata, to where a network's weights belong; return it.

    Raises:
        CheckpointError: If the file cannot be used, or its metadata is not `architecture` and `expected`, the values of
            params.yaml; nothing is written then.
    """
    network, metadata = checkpoint.load(source, architecture)
    for key, value in json.loads(json.dumps(expected)).items():  # tuples are lists in the file
        if metadata[key] != value:
            raise CheckpointError(f"{source}: {key} {metadata[key]!r}, but network {name} has {value!r}")
    checkpoint.write(destination, network.state_dict(), {**metadata, "name": name})
    return network


def _weights_files(source: Path) -> list[Path]:
    return sorted(source.glob("*.safetensors")) if source.is_dir() else [source]


def _read_folder(folder: Path, options: Mapping[str, Any]) -> Contents:
    if "config" not in options:
        raise CheckpointError(f"{folder}: a folder; expected a file, or architecture: transformers")
    try:
        tensors, ignored = transformers_segmentation.read_weights(folder, options["config"])
    except ValueError as error:
        raise CheckpointError(str(error)) from None
    return Contents(tensors, "a folder of transformers", ignored)


def _read_any(path: Path) -> Contents:
    if path.is_file() and checkpoint.is_safetensors(path):
        kind = "ours" if checkpoint.own_metadata(path) else "bare"
        return torch_files.unwrap(path, checkpoint.read_tensors(path), f"safetensors, {kind}")
    return torch_files.read(path)
