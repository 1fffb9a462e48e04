"""params.yaml and other YAML files, read strictly."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from meta_ood.config.schema import Params
from meta_ood.config.strict import ConfigError, build


def load(path: Path, overrides: Sequence[str] = ()) -> Params:
    """Read a params file strictly.

    Parameters
    ----------
    path
        A YAML file with the schema of :class:`Params`.
    overrides
        ``key=value`` texts, dotted keys, YAML values: ``train.ood_weight=0.5``.

    Raises
    ------
    ConfigError
        Names the file, the key and what was expected.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        for override in overrides:
            _set(values, override)
        return build(Params, values)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (yaml.YAMLError, ConfigError) as error:
        raise ConfigError(f"{path}: {error}") from None


def read_yaml(path: Path) -> Any:
    """Read the plain values of any YAML file, such as dvc.lock; empty if there is no file."""
    return yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _set(values: Any, override: str) -> None:
    dotted, equals, text = override.partition("=")
    if not equals:
        raise ConfigError(f"--set {override}: expected key=value")
    *parents, last = dotted.split(".")
    for depth, name in enumerate(parents):
        if not isinstance(values, dict) or name not in values:
            raise ConfigError(f"--set {'.'.join(parents[: depth + 1])}: no such section")
        values = values[name]
    if not isinstance(values, dict):
        raise ConfigError(f"--set {dotted}: {'.'.join(parents)} is not a section")
    values[last] = yaml.safe_load(text)
