"""Which part of params.yaml each stage depends on, and its values as flat keys."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, TypeAdapter

from meta_ood.config.errors import expected
from meta_ood.config.schema import DatasetParams, NetworkParams, OperatingPointParams, Params

SECTIONS: dict[str, tuple[str, ...]] = {
    "synthesize": ("seed", "synthesize"),
    "prepare": ("datasets.<dataset>",),
    "pretrain": ("seed", "roles", "pretrain", "network.<network>"),
    "train": ("seed", "roles", "train", "network.<network>"),
    "statistics": ("seed", "roles", "infer", "network.<network>"),
    "infer": ("infer", "network.<network>"),
    "segments": ("segments",),
    "meta": ("seed", "evaluation_sets", "meta", "operating_point"),
    "evaluate": ("seed", "segments", "evaluate", "datasets.<dataset>"),
    "detector": ("infer", "segments", "meta", "operating_point", "detector"),
    "report": ("seed", "networks", "variants", "evaluation_sets", "datasets", "network", "segments", "report"),
}
"""Stage -> the parts of params.yaml that its result depends on, as in dvc.yaml."""


def describe(section: str) -> list[tuple[str, str]]:
    """Return ``(dotted key, expected value)`` for each value of a section of params.yaml.

    Examples:
        >>> describe("report")
        [('report.title', 'a string')]
    """
    entries = {"datasets.<dataset>": DatasetParams, "network.<network>": NetworkParams}
    entry: Any = {**entries, "operating_point": OperatingPointParams}.get(section)
    schema = TypeAdapter(entry or Params.model_fields[section].rebuild_annotation()).json_schema()
    if "properties" not in schema:
        return [(section, expected(schema))]
    return [(f"{section}.{key}", expected(value)) for key, value in schema["properties"].items()]


def stage_values(params: Params, stage: str, network: str = "", variant: str = "", dataset: str = "") -> dict[str, Any]:
    """Return the flat ``{dotted key: value}`` that an instance of `stage` depends on.

    The pretrain and train sections are those of the network, its own values put over them.
    """
    values: dict[str, Any] = {}
    for section in SECTIONS[stage]:
        if section == "datasets.<dataset>":
            values[f"datasets.{dataset}"] = params.dataset_params(dataset)
        elif section == "network.<network>":
            # its own pretrain and train sections are in those sections already
            own = params.network_params(network).model_dump(include={"architecture", "options", "weights"})
            values[f"network.{network}"] = own
        elif section in ("pretrain", "train"):
            values[section] = getattr(params, f"{section}_of")(network)
        else:
            values[section] = getattr(params, section)
    return {key: value for key, value in flat(values).items() if value != {}}


def flat(values: Any, key: str = "") -> dict[str, Any]:
    """Return nested mappings and sections as dotted keys; empty ones and lists are values.

    Examples:
        >>> flat({"a": {"b": 1, "c": {}}, "d": [2], "e.f": 3})
        {'a.b': 1, 'a.c': {}, 'd': [2], 'e.f': 3}
    """
    if isinstance(values, BaseModel):
        values = values.model_dump()
    if not isinstance(values, Mapping) or not values:
        return {key: values} if key else {}
    prefix = f"{key}." if key else ""
    return {k: v for name, value in values.items() for k, v in flat(value, f"{prefix}{name}").items()}
