"""Plain YAML values -> frozen dataclasses, strictly: errors name the key and what was expected."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Annotated, Any, Literal, TypeVar

T = TypeVar("T")


class ConfigError(ValueError):
    """A params file is wrong; the message names the key and what was expected."""


@dataclass(frozen=True)
class Range:
    """Closed bounds of a number."""

    low: float = float("-inf")
    high: float = float("inf")

    def __str__(self) -> str:
        """Say the bounds in words."""
        if self.high == float("inf"):
            return f"at least {self.low:g}"
        if self.low == float("-inf"):
            return f"at most {self.high:g}"
        return f"in [{self.low:g}, {self.high:g}]"


def build(kind: type[T], values: object, key: str = "") -> T:
    """Build the frozen dataclass `kind` from plain YAML values, strictly.

    Parameters
    ----------
    kind
        A dataclass whose fields are annotated with the types below: bool, int, float, str,
        ``Literal``, ``X | None``, ``tuple[X, ...]``, ``Mapping[str, X]``, ``Annotated[X, Range]``
        and other dataclasses.
    values
        What YAML gave.
    key
        Dotted name of `values` in the file, for messages.

    Raises
    ------
    ConfigError
        Unknown or missing key, wrong type, value out of range.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{key or 'the file'}: expected a mapping, got {_say(values)}")
    hints = typing.get_type_hints(kind, include_extras=True)
    known = {f.name: f for f in fields(typing.cast(Any, kind))}
    for name in values:
        if name not in known:
            raise ConfigError(f"{_join(key, name)}: unknown key; known: {', '.join(known)}")
    arguments = {}
    for name, f in known.items():
        if name in values:
            arguments[name] = _convert(hints[name], values[name], _join(key, name))
        elif f.default is MISSING and f.default_factory is MISSING:
            raise ConfigError(f"{_join(key, name)}: missing; expected {expected(hints[name])}")
    return kind(**arguments)


def _convert(hint: Any, value: object, key: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        number = _scalar(arguments[0], value, key, hint)
        bounds = arguments[1]
        if not bounds.low <= number <= bounds.high:
            raise ConfigError(f"{key}: {number!r} is out of range; expected {expected(hint)}")
        return number
    if origin in (types.UnionType, typing.Union):
        options = [a for a in arguments if a is not type(None)]
        return None if value is None else _convert(options[0], value, key)
    if origin is Literal:
        if value not in arguments or isinstance(value, bool):
            raise ConfigError(f"{key}: {_say(value)}; expected {expected(hint)}")
        return value
    if origin is tuple:
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise ConfigError(f"{key}: expected {expected(hint)}, got {_say(value)}")
        return tuple(_convert(arguments[0], v, f"{key}[{i}]") for i, v in enumerate(value))
    if hint is Any:
        return value
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{key}: expected {expected(hint)}, got {_say(value)}")
        return {_text(k, key): _convert(arguments[1], v, _join(key, k)) for k, v in value.items()}
    if is_dataclass(hint):
        return build(typing.cast(type, hint), value, key)
    return _scalar(hint, value, key, hint)


def _scalar(hint: Any, value: object, key: str, said: Any) -> Any:
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is hint:
        if isinstance(value, float) and value != value:
            raise ConfigError(f"{key}: nan; expected {expected(said)}")
        return value
    message = f"{key}: expected {expected(said)}, got {_say(value)}"
    if hint in (int, float) and isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            raise ConfigError(message) from None
        message += (
            f" (YAML reads {value!r} as a string; write it with a decimal point and a signed "
            f"exponent: {_yaml_float(number)})"
        )
    raise ConfigError(message)


def _yaml_float(number: float) -> str:
    mantissa, _, exponent = f"{number:e}".partition("e")
    digits = mantissa.rstrip("0")
    return f"{digits + '0' if digits.endswith('.') else digits}e{exponent}"


def _text(key: object, where: str) -> str:
    if not isinstance(key, str):
        raise ConfigError(f"{where}: key {key!r} must be a string")
    return key


def _join(key: str, name: object) -> str:
    return f"{key}.{name}" if key else str(name)


def _say(value: object) -> str:
    names = {Mapping: "a mapping", str: f"the string {value!r}"}
    for kind, text in names.items():
        if isinstance(value, kind):
            return text
    return "nothing" if value is None else f"{type(value).__name__} {value!r}"


def expected(hint: Any) -> str:
    """Say in words which values a type hint admits."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return f"{expected(arguments[0])} {arguments[1]}"
    if origin is Literal:
        return "one of " + ", ".join(str(a) for a in arguments)
    if origin is tuple:
        return f"a list of {expected(arguments[0])}"
    if origin in (types.UnionType, typing.Union):
        return " or ".join("nothing" if a is type(None) else expected(a) for a in arguments)
    if (origin is not None and issubclass(origin, Mapping)) or is_dataclass(hint):
        return "a mapping"
    names = {int: "an integer", float: "a number", str: "a string", bool: "true or false"}
    return names.get(hint, str(hint))
