"""One plain line for everything that is wrong in a params file."""

import re
from collections.abc import Mapping
from types import UnionType
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from meta_ood.data.registry import known_names

ModelT = TypeVar("ModelT", bound=BaseModel)


class ConfigError(ValueError):
    """A params file is wrong; the message names the key, its value and what was expected."""


def validated(model: type[ModelT], values: Any, key: str = "") -> ModelT:
    """Return `values` as a model, or raise a ConfigError, one line a mistake; `key` is the section's dotted name."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        lines = [_line(mistake, model, key) for mistake in error.errors(include_url=False)]
        raise ConfigError("\n".join(lines)) from None


def expected(schema: Mapping[str, Any]) -> str:
    """Return in words what a JSON schema, as pydantic writes it, admits."""
    if "anyOf" in schema:
        return " or ".join(expected(option) for option in schema["anyOf"])
    if "enum" in schema:
        return "one of " + ", ".join(map(str, schema["enum"]))
    if schema.get("type") == "array":
        return f"a list, each {expected(schema['items'])}"
    words = {"integer": "an integer", "number": "a number", "string": "a string"}
    words |= {"boolean": "true or false", "null": "nothing"}
    text = words.get(schema.get("type", ""), "a mapping")
    bounds = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    return text + "".join(f", {word} {schema[key]}" for key, word in bounds.items() if key in schema)


def _line(mistake: Any, model: type[BaseModel], key: str) -> str:
    place, kind, value, text = (mistake[name] for name in ("loc", "type", "input", "msg"))
    name = ".".join(str(part) for part in (key, *place) if part not in ("", "[key]")) or "the file"
    if kind == "value_error":
        # the message of a validator in schema.py; those of the whole file name the key themselves
        text = text.removeprefix("Value error, ")
        return f"{name}: {text}" if place else text
    if kind in ("missing", "extra_forbidden"):
        section: Any = model
        for part in place[:-1]:  # a field of a model, a key of a dict[str, model], or an index of a tuple[model, ...]
            inside = getattr(section, "__args__", ())
            section = section.model_fields[part].annotation if not inside else inside[isinstance(part, str)]
            if isinstance(section, UnionType):  # a section that may be null
                section = section.__args__[0]
        if kind == "missing":
            return f"{name}: missing, expected {expected(section.model_json_schema()['properties'][place[-1]])}"
        return f"{name}: unknown key; {known_names(place[-1], section.model_fields)}"
    if kind == "literal_error":
        known = re.findall(r"'([^']*)'", mistake["ctx"]["expected"])
        renamed = "; it is called backbone now" if value == "trunk" else ""  # since version 0.2
        return f"{name}: {value!r} is unknown; {known_names(value, known)}{renamed}"
    # the others: pydantic's message in plainer words
    plain = {"Input should be ": "", "a valid tuple": "a list", "a valid boolean": "true or false"}
    plain |= {"a valid integer": "an integer", "valid ": ""}
    plain |= {"greater than or equal to": "at least", "less than or equal to": "at most"}
    for word, ours in plain.items():
        text = text.replace(word, ours)
    if kind == "string_pattern_mismatch":
        text = "a name of letters, digits, '_', '-' and '.' that begins with a letter or digit"
    elif kind in ("model_type", "dict_type"):
        text = "a mapping"
    got = "nothing" if value is None else repr(value)[:200]
    return f"{name}: got {got}, expected {text}"
