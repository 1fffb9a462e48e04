"""params.yaml and other YAML files, read without surprises.

Differences to PyYAML's safe loader: a key may not occur twice, aliases may not expand to more than :data:`MOST_NODES`
values nor contain themselves, and ``1e-5`` is a number, as it is for DVC.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from meta_ood.config.errors import ConfigError, messages
from meta_ood.config.schema import Params

MOST_NODES = 100_000
"""Values in a YAML file after its aliases are replaced: dvc.lock of 1,000 cells has fewer."""
DEEPEST = 50
"""Levels of nesting; params.yaml and dvc.lock have about five."""

_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the C parser, where PyYAML has it


class _Loader(_Base):  # type: ignore[misc]
    """YAML without duplicate keys and with the numbers of YAML 1.2."""

    def construct_mapping(self, node: yaml.Node, deep: bool = False) -> dict[Hashable, Any]:
        if isinstance(node, yaml.MappingNode):
            first: dict[Any, yaml.Node] = {}
            for key, _ in node.value:
                # merge keys may repeat
                if not isinstance(key, yaml.ScalarNode) or key.value == "<<":
                    continue
                if key.value in first:
                    lines = f"{first[key.value].start_mark.line + 1} and {key.start_mark.line + 1}"
                    raise ConfigError(f"the key {key.value!r} occurs twice, in lines {lines}")
                first[key.value] = key
        values: dict[Hashable, Any] = super().construct_mapping(node, deep)
        return values


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), "-+0123456789"
)


def parse_yaml(text: str) -> Any:
    """Return the plain values of a YAML text.

    Raises:
        ConfigError: If it is not YAML, names a key twice, is nested too deeply or expands to too many values.
    """
    try:
        # The parser itself does not recurse; what builds values from its events crashes in C.
        depth = 0
        for event in yaml.parse(text, Loader=_Loader):
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:
                raise ConfigError(f"nested more than {DEEPEST} deep")
        loader = _Loader(text)
        try:
            # nodes share what an alias names: counted before they are copied into values
            node = loader.get_single_node()
            _count(node, {}, set())
            return None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    except ConfigError:
        raise
    # PyYAML's constructors of tagged scalars, such as !!timestamp, raise whatever comes
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, LookupError) as error:
        raise ConfigError(f"not YAML that can be read: {' '.join(str(error).split())}") from None


def _count(node: yaml.Node | None, counts: dict[int, int], around: set[int]) -> int:
    """Return how many values `node` has once its aliases are replaced by copies."""
    if not isinstance(node, yaml.CollectionNode):
        return 1
    if id(node) in around:
        raise ConfigError(f"the alias in line {node.start_mark.line + 1} contains itself")
    if id(node) not in counts:
        around.add(id(node))
        children = node.value
        if isinstance(node, yaml.MappingNode):
            children = [child for pair in children for child in pair]
        counts[id(node)] = 1 + sum(_count(child, counts, around) for child in children)
        around.discard(id(node))
    if counts[id(node)] > MOST_NODES:
        raise ConfigError(f"more than {MOST_NODES} values, its aliases replaced")
    return counts[id(node)]


def read_yaml(path: Path) -> Any:
    """Return the plain values of a YAML file, such as dvc.lock; empty if there is no file.

    Raises:
        ConfigError: If it cannot be read; the file is named.
    """
    try:
        return parse_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:  # also text that is not UTF-8
        raise ConfigError(f"{path}: {error}") from None


def load(path: Path, overrides: Sequence[str] = ()) -> Params:
    """Read and check a params file.

    Args:
        path: A YAML file with the schema of :class:`Params`.
        overrides: ``key=value`` texts, dotted keys, YAML values: ``train.ood_weight=0.5``.

    Raises:
        ConfigError: Names the file and, in one line per mistake, the key, its value and what was expected.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: no such file")
    values = read_yaml(path)
    try:
        for override in overrides:  # in their order: the last one of a key wins
            _set(values, override)
        return Params.model_validate(values)
    except ValidationError as error:
        text = "\n".join(messages(error, Params))
    except ConfigError as error:
        text = str(error)
    raise ConfigError("\n".join(f"{path}: {line}" for line in text.splitlines()))


def _set(values: Any, override: str) -> None:
    """Put one ``key=value`` over the values of a file, in place."""
    dotted, equals, text = override.partition("=")
    if not equals:
        raise ConfigError(f"--set {override}: expected key=value")
    *parents, last = dotted.split(".")
    for depth, name in enumerate(parents):
        if not isinstance(values, dict):
            raise ConfigError(f"--set {dotted}: {'.'.join(parents[:depth])} is not a section")
        if name not in values:
            raise ConfigError(f"--set {'.'.join(parents[: depth + 1])}: no such section")
        values = values[name]
    if not isinstance(values, dict):
        raise ConfigError(f"--set {dotted}: {'.'.join(parents)} is not a section")
    values[last] = parse_yaml(text)
