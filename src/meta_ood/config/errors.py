"""One plain line for everything that is wrong in a params file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, cast

from pydantic import BaseModel, ValidationError

from meta_ood.data.registry import known_names


class ConfigError(ValueError):
    """A params file is wrong; the message names the key, its value and what was expected."""


def messages(error: ValidationError, model: type[BaseModel], key: str = "") -> list[str]:
    """Return one line per mistake that pydantic found.

    Args:
        error: What validating `model` raised.
        model: The model of the section `key`; names the known keys.
        key: Dotted name of the section in the file; empty for the whole file.
    """
    return [_line(mistake, model, key) for mistake in error.errors(include_url=False)]


def expected(schema: Mapping[str, Any]) -> str:
    """Return in words what a JSON schema, as pydantic writes it, admits.

    Examples:
        >>> expected({"type": "integer", "minimum": 1})
        'an integer, at least 1'
    """
    if "anyOf" in schema:
        return " or ".join(expected(option) for option in schema["anyOf"])
    if "enum" in schema:
        return "one of " + ", ".join(map(str, schema["enum"]))
    if schema.get("type") == "array":
        return f"a list, each {expected(schema['items'])}"
    words = {"integer": "an integer", "number": "a number", "string": "a string"}
    words |= {"boolean": "true or false", "null": "nothing"}
    text = words.get(schema.get("type", ""), "a mapping")
    bounds = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most"}
    return text + "".join(f", {word} {schema[key]}" for key, word in bounds.items() if key in schema)


_PLAIN = {
    "Input should be ": "",
    "a valid tuple": "a list",
    "a valid boolean": "true or false",
    "a valid integer": "an integer",
    "valid ": "",
    "greater than or equal to": "at least",
    "less than or equal to": "at most",
}
"""Words of pydantic's messages -> ours."""

_RENAMED = {"trunk": "backbone"}
"""Names of version 0.1 -> today's."""


def _line(mistake: Any, model: type[BaseModel], key: str) -> str:
    place, kind, value = mistake["loc"], mistake["type"], mistake["input"]
    parts = [str(part) for part in (key, *place) if part not in ("", "[key]")]
    name = ".".join(parts) or "the file"
    if kind == "value_error":
        # the message of a validator in schema.py; those of the whole file name the key themselves
        text = mistake["msg"].removeprefix("Value error, ")
        return f"{name}: {text}" if place else text
    if kind == "missing":
        schema = _section(model, place[:-1]).model_json_schema()["properties"][place[-1]]
        return f"{name}: missing, expected {expected(schema)}"
    if kind == "extra_forbidden":
        fields = _section(model, place[:-1]).model_fields
        return f"{name}: unknown key; {known_names(place[-1], fields)}"
    if kind == "literal_error":
        known = re.findall(r"'([^']*)'", mistake["ctx"]["expected"])
        renamed = f"; it is called {_RENAMED[value]} now" if value in _RENAMED else ""
        return f"{name}: {value!r} is unknown; {known_names(value, known)}{renamed}"
    # the others: pydantic's own words
    text = mistake["msg"]
    for word, ours in _PLAIN.items():
        text = text.replace(word, ours)
    if kind == "string_pattern_mismatch":
        text = "a name of letters, digits, '_', '-' and '.' that begins with a letter or digit"
    elif kind in ("model_type", "dict_type"):
        text = "a mapping"
    got = "nothing" if value is None else repr(value)[:200]
    return f"{name}: got {got}, expected {text}"


def _section(model: type[BaseModel], place: tuple[Any, ...]) -> type[BaseModel]:
    """Return the model of the section at `place` below `model`."""
    section: Any = model
    for part in place:
        if hasattr(section, "model_fields"):
            section = section.model_fields[part].annotation
        else:
            section = section.__args__[1]  # of dict[str, section]
    return cast(type[BaseModel], section)
