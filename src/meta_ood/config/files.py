"""params.yaml and other YAML files, read strictly.

Differences to PyYAML's safe loader: a key may not occur twice, aliases may not expand to more than :data:`MOST_NODES`
values nor contain themselves, and ``1e-5`` is a number, as it is for DVC.
"""

import re
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import yaml

from meta_ood.config.errors import ConfigError, validated
from meta_ood.config.schema import Params

MOST_NODES = 100_000  # values in a YAML file after its aliases are replaced: dvc.lock of 1,000 cells has fewer
DEEPEST = 50  # levels of nesting; params.yaml and dvc.lock have about five

_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the C parser, where PyYAML has it


class _Loader(_Base):  # type: ignore[misc]
    """YAML without duplicate keys and with the numbers of YAML 1.2."""

    def construct_mapping(self, node: yaml.Node, deep: bool = False) -> dict[Hashable, Any]:
        first: dict[Any, yaml.Node] = {}
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            # merge keys may repeat
            if not isinstance(key, yaml.ScalarNode) or key.value == "<<":
                continue
            if first.setdefault(key.value, key) is not key:
                lines = f"{first[key.value].start_mark.line + 1} and {key.start_mark.line + 1}"
                raise ConfigError(f"the key {key.value!r} occurs twice, in lines {lines}")
        return dict(super().construct_mapping(node, deep))


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), "-+0123456789"
)


def parse_yaml(text: str) -> Any:
    """Return the plain values of a YAML text; anything else is a ConfigError."""
    try:
        _check_size(text)
        return yaml.load(text, Loader=_Loader)
    except ConfigError:
        raise
    # PyYAML's constructors of tagged scalars, such as !!timestamp, may raise any exception
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, LookupError) as error:
        raise ConfigError(f"not YAML that can be read: {' '.join(str(error).split())}") from None


def _check_size(text: str) -> None:
    """Refuse a text that is too deep, or too large once its aliases are replaced by copies.

    This looks at the parser's events, because building values from them crashes in C on such a text.
    """
    sizes: dict[str | None, int] = {}  # anchor -> number of values that it names
    around: list[str | None] = []  # the anchors of the collections that are open
    counts = [0]  # the number of values in the whole text and in each open collection
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            around.append(event.anchor)
            counts.append(1)
        elif isinstance(event, yaml.CollectionEndEvent):
            sizes[around.pop()] = size = counts.pop()
            counts[-1] += size
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor in around:
                raise ConfigError(f"what the alias {event.anchor!r} names contains itself")
            counts[-1] += sizes.get(event.anchor, 1)
        elif isinstance(event, yaml.ScalarEvent):
            sizes[event.anchor] = 1
            counts[-1] += 1
        if len(around) > DEEPEST:
            raise ConfigError(f"nested more than {DEEPEST} deep")
        if counts[-1] > MOST_NODES:
            raise ConfigError(f"more than {MOST_NODES} values, its aliases replaced")


def read_yaml(path: Path) -> Any:
    """Return the plain values of a YAML file, such as dvc.lock; empty if there is no file.

    What is no YAML is a ConfigError that names the file.
    """
    try:
        return parse_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:  # also text that is not UTF-8
        raise ConfigError(f"{path}: {error}") from None


def load(path: Path, overrides: Sequence[str] = ()) -> Params:
    """Read and check a params file; `overrides` are texts like ``train.ood_weight=0.5``, the last one of a key wins.

    Raises:
        ConfigError: Names the file and, in one line per mistake, the key, its value and what was expected.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: no such file")
    values = read_yaml(path)
    try:
        for override in overrides if isinstance(values, dict) else ():
            _set(values, override)
        return validated(Params, values)
    except ConfigError as error:
        raise ConfigError("\n".join(f"{path}: {line}" for line in str(error).splitlines())) from None


def _set(section: Any, override: str) -> None:
    """Put one ``key=value`` over the values of a file, in place."""
    dotted, equals, text = override.partition("=")
    if not equals:
        raise ConfigError(f"--set {override}: expected key=value")
    *parents, last = dotted.split(".")
    for end, name in enumerate(parents, start=1):
        place = ".".join(parents[:end])
        if name not in section:
            raise ConfigError(f"--set {place}: no such section")
        section = section[name]
        if not isinstance(section, dict):
            raise ConfigError(f"--set {dotted}: {place} is not a section")
    try:
        section[last] = parse_yaml(text)
    except ConfigError as error:
        raise ConfigError(f"--set {dotted}: {error}") from None
