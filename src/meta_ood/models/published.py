"""Released weights: read in every known format, matched in full, then loaded or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from meta_ood.models import build, checkpoint, torch_files
from meta_ood.models.matching import Report, converted, match
from meta_ood.models.torch_files import CheckpointError, Contents


def import_published(
    path: Path,
    architecture: str,
    num_classes: int,
    options: Mapping[str, Any] | None = None,
) -> tuple[nn.Module, Report]:
    """Build a network and load released weights of any known format, strictly.

    Parameters
    ----------
    path
        Safetensors, ours or bare; or a ``torch.save`` file, see :mod:`meta_ood.models.torch_files`.
    architecture, num_classes, options
        What :func:`meta_ood.models.build` takes.

    Returns
    -------
    The network and the report; every entry of the state dict came from the file.

    Raises
    ------
    CheckpointError
        If the file cannot be read safely or anything is missing, unexpected or of wrong shape.
    """
    contents = _read_any(path)
    network = build(architecture, num_classes, **(options or {}))
    expected = network.state_dict()
    report = match(str(path), contents.layout, expected, contents.tensors, ignored=contents.ignored)
    network.load_state_dict(converted(report, expected, contents.tensors))
    return network, report


def load_backbone(network: nn.Module, path: Path) -> Report:
    """Initialise a network's backbone alone from the weights of an image classifier.

    Parameters
    ----------
    network
        One with the attribute ``backbone_prefixes``: how the names of its backbone begin.
    path
        A file of a classifier with the same backbone; its classifier is left out.

    Returns
    -------
    The report; it lists what was left out.

    Raises
    ------
    CheckpointError
        If the network declares no backbone or the backbone's names or shapes do not fit.
    """
    prefixes = getattr(network, "backbone_prefixes", None)
    if not prefixes:
        raise CheckpointError(
            f"{type(network).__name__} declares no backbone_prefixes (before 0.2: trunk_prefixes)"
        )
    contents = _read_any(path)
    found = contents.tensors
    state = network.state_dict()
    expected = {key: value for key, value in state.items() if key.startswith(tuple(prefixes))}
    if len(prefixes) == 1 and not any(key.startswith(prefixes[0]) for key in found):
        # torchvision: "layer1.0..." or "features.0..." in a classifier, "backbone.…" here
        found = {prefixes[0] + k.removeprefix("features."): v for k, v in found.items()}
    dropped = tuple(key for key in found if _is_classifier(key.removeprefix(prefixes[0])))
    found = {key: value for key, value in found.items() if key not in set(dropped)}
    report = match(
        str(path), contents.layout, expected, found, dropped=dropped, ignored=contents.ignored
    )
    network.load_state_dict({**state, **converted(report, expected, found)})
    return report


def import_weights(
    source: Path,
    destination: Path,
    *,
    name: str,
    architecture: str,
    options: Mapping[str, Any],
    class_names: Sequence[str],
    variant: str,
    origin: str = "",
) -> Report:
    """Turn a released weights file into one of ours; on any error nothing is written.

    Parameters
    ----------
    source
        See :func:`import_published`.
    destination
        Where the safetensors file goes.
    name, architecture, options, class_names, variant
        See :func:`meta_ood.models.checkpoint.save`.
    origin
        Where the file is from, in the user's words: a URL, a paper. The file's name, sha256 and
        format are noted by themselves; a file of ours keeps the origin it has.

    Raises
    ------
    CheckpointError
        See :func:`import_published`.
    """
    network, report = import_published(source, architecture, len(class_names), options)
    noted = {
        "file": source.name,
        "sha256": checkpoint.file_sha256(source),
        "layout": report.layout,
        "ignored": list(report.ignored),
        "said": origin,
    }
    earlier = checkpoint.own_metadata(source)
    if earlier.get("class_names", list(class_names)) != list(class_names):
        raise CheckpointError(f"{source}: its class names are not those of network {name}")
    checkpoint.save(
        destination,
        network,
        name=name,
        architecture=architecture,
        options=options,
        num_classes=len(class_names),
        class_names=class_names,
        variant=variant,
        origin=earlier.get("origin", noted),
    )
    return report


def adopt(
    source: Path,
    destination: Path,
    *,
    name: str,
    architecture: str,
    options: Mapping[str, Any],
    num_classes: int,
    variant: str,
) -> nn.Module:
    """Make imported weights those of a network: check that they are what params.yaml says, copy.

    Parameters
    ----------
    source
        A file of :func:`import_weights`; its metadata, origin and all, go along.
    destination
        Where the network's weights are expected.
    name, architecture, options, num_classes, variant
        What params.yaml says.

    Returns
    -------
    The network.

    Raises
    ------
    CheckpointError
        If the file cannot be used or is of another network; nothing is written then.
    """
    network, metadata = checkpoint.load(source, architecture)
    expected = {"options": dict(options), "num_classes": num_classes, "variant": variant}
    for key, value in json.loads(json.dumps(expected)).items():
        if metadata[key] != value:
            raise CheckpointError(
                f"{source}: {key} {metadata[key]!r}, but network {name} has {value!r}"
            )
    checkpoint.write(destination, network.state_dict(), {**metadata, "name": name})
    return network


def _read_any(path: Path) -> Contents:
    if path.is_file() and checkpoint.looks_like_safetensors(path):
        ours = "meta-ood" if checkpoint.own_metadata(path) else "bare"
        return torch_files.unwrap(path, checkpoint.read_tensors(path), f"safetensors, {ours}")
    return torch_files.read(path)


def _is_classifier(key: str) -> bool:
    return key.startswith(("fc.", "bn_out.", "classifier."))
