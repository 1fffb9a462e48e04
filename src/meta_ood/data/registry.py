"""Lookup of a name in a registry."""

import difflib
import pkgutil
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

T = TypeVar("T")


def lookup(kind: str, registry: Mapping[str, T], name: str) -> T:
    """Return ``registry[name]``; an unknown name is a ValueError that lists the known ones."""
    if name not in registry:
        raise ValueError(f"unknown {kind} {name!r}; {known_names(name, registry)}")
    return registry[name]


def resolve(kind: str, registry: Mapping[str, T], name: str) -> T | Any:
    """Return ``registry[name]``, or for ``package.module:name`` the object of that name; it is imported.

    Raises:
        ValueError: If the name is unknown, or there is no such module or no such name in it.
    """
    if ":" not in name:
        return lookup(kind, registry, name)
    try:
        return pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        expected = "expected package.module:name, in this folder, installed or on PYTHONPATH"
        raise ValueError(f"{kind} {name}: {expected}: {error}") from None


def known_names(name: object, known: Iterable[str]) -> str:
    """Return a text of the known names, and of those that `name` may have been meant to be.

    Examples:
        >>> known_names("enropy", ["entropy", "energy"])
        'known: energy, entropy; did you mean entropy or energy?'
    """
    names = sorted(known)
    # two guesses at most: more are no help
    close = difflib.get_close_matches(str(name), names, n=2)
    meant = f"; did you mean {' or '.join(close)}?" if close else ""
    return f"known: {', '.join(names)}{meant}"
