"""Which part of params.yaml each stage depends on, and its values as flat keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from pydantic import BaseModel, TypeAdapter

from meta_ood.config.errors import expected
from meta_ood.config.schema import DatasetParams, NetworkParams, Params

SECTIONS: dict[str, tuple[str, ...]] = {
    "synthesize": ("seed", "synthesize"),
    "prepare": ("datasets.<dataset>",),
    "pretrain": ("seed", "roles", "pretrain", "network.<network>"),
    "train": ("seed", "roles", "train", "network.<network>"),
    "infer": ("infer", "network.<network>"),
    "segments": ("segments",),
    "meta": ("seed", "meta"),
    "evaluate": ("seed", "segments", "evaluate", "datasets.<dataset>"),
    "detector": ("infer", "segments", "detector"),
    "report": (*("seed", "networks", "variants", "evaluation_sets", "datasets", "network"), *("segments", "report")),
}
"""Stage -> the parts of params.yaml that its result depends on, as in dvc.yaml."""

_MODELS: dict[str, Any] = {"datasets.<dataset>": DatasetParams, "network.<network>": NetworkParams}


def describe(section: str) -> list[tuple[str, str]]:
    """Return ``(dotted key, expected value)`` for each value of a section of params.yaml.

    Examples:
        >>> describe("report")
        [('report.title', 'a string')]
    """
    hint = _MODELS.get(section) or Params.model_fields[section].rebuild_annotation()
    schema = TypeAdapter(hint).json_schema()
    fields = schema.get("properties")
    if fields is None:
        return [(section, expected(schema))]
    return [(f"{section}.{key}", expected(value)) for key, value in fields.items()]


def stage_values(params: Params, stage: str, network: str = "", variant: str = "", dataset: str = "") -> dict[str, Any]:
    """Return the flat ``{dotted key: value}`` that an instance of `stage` depends on.

    The pretrain and train sections are those of the network, its own values put over them.
    """
    values: dict[str, Any] = {}
    for section in SECTIONS[stage]:
        key, value = section, cast(Any, None)
        if section == "datasets.<dataset>":
            key, value = f"datasets.{dataset}", params.dataset_params(dataset)
        elif section == "network.<network>":
            # its own pretrain and train sections are in those sections already
            own = params.network_params(network)
            key = f"network.{network}"
            value = own.model_dump(include={"architecture", "options", "weights"})
        elif section in ("pretrain", "train"):
            value = getattr(params, f"{section}_of")(network)
        else:
            value = getattr(params, section)
        values.update(_flat(key, value))
    return values


def _flat(key: str, value: Any) -> dict[str, Any]:
    if isinstance(value, BaseModel):
        value = dict(value)
    if not isinstance(value, Mapping):
        return {key: value}
    return {k: v for name in value for k, v in _flat(f"{key}.{name}", value[name]).items()}
