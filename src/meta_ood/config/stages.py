"""Which part of params.yaml each stage depends on, and its values as flat keys."""

from __future__ import annotations

import typing
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields, is_dataclass
from typing import Any

from meta_ood.config.schema import DatasetParams, NetworkParams, Params
from meta_ood.config.strict import expected

SECTIONS: dict[str, tuple[str, ...]] = {
    "synthesize": ("seed", "synthesize"),
    "prepare": ("datasets.<dataset>",),
    "pretrain": ("seed", "roles", "pretrain", "network.<network>"),
    "train": ("seed", "roles", "train", "network.<network>"),
    "infer": ("infer",),
    "segments": ("segments",),
    "meta": ("seed", "meta"),
    "evaluate": ("seed", "segments", "meta", "evaluate"),
    "detector": ("infer", "segments", "detector"),
    "report": (
        *("seed", "networks", "variants", "evaluation_sets", "datasets", "network"),
        *("segments", "report"),
    ),
}
"""Stage -> the parts of params.yaml that its result depends on, as in dvc.yaml."""

_KINDS: dict[str, type] = {"datasets.<dataset>": DatasetParams, "network.<network>": NetworkParams}


def describe(section: str) -> list[tuple[str, str]]:
    """Return ``(dotted key, what is expected)`` for each value of a section of params.yaml.

    Examples
    --------
    >>> describe("segments")
    [('segments.score', 'a string'), ('segments.threshold', 'a number')]
    """
    hint = _KINDS.get(section) or typing.get_type_hints(Params, include_extras=True)[section]
    if not is_dataclass(hint):
        return [(section, expected(hint))]
    hints = typing.get_type_hints(hint, include_extras=True)
    return [(f"{section}.{f.name}", expected(hints[f.name])) for f in fields(hint)]


def stage_values(
    params: Params, stage: str, network: str = "", variant: str = "", dataset: str = ""
) -> dict[str, Any]:
    """Return the flat ``{dotted key: value}`` that an instance of `stage` depends on.

    The pretrain and train sections are those of the network, its own values put over them.
    """
    special: dict[str, tuple[str, Callable[[], Any]]] = {
        "datasets.<dataset>": (f"datasets.{dataset}", lambda: params.dataset_params(dataset)),
        "network.<network>": (f"network.{network}", lambda: _architecture(params, network)),
        "pretrain": ("pretrain", lambda: params.pretrain_of(network)),
        "train": ("train", lambda: params.train_of(network)),
    }
    values: dict[str, Any] = {}
    for section in SECTIONS[stage]:
        key, value = section, None
        if section in special:
            key, get = special[section]
            value = get()
        else:
            value = getattr(params, section)
        values.update(_flat(key, value))
    return values


def _architecture(params: Params, network: str) -> Mapping[str, Any]:
    own = params.network_params(network)
    return {"architecture": own.architecture, "options": own.options, "weights": own.weights}


def _flat(key: str, value: Any) -> dict[str, Any]:
    if is_dataclass(value):
        value = asdict(typing.cast(Any, value))
    if not isinstance(value, Mapping):
        return {key: value}
    return {k: v for name in value for k, v in _flat(f"{key}.{name}", value[name]).items()}
