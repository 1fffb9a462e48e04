"""Lookup of a name in a registry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")


def lookup(kind: str, registry: Mapping[str, T], name: str) -> T:
    """Return ``registry[name]``; an unknown name lists the known ones.

    Raises
    ------
    ValueError
        If `name` is not a key of `registry`.

    Examples
    --------
    >>> lookup("colour", {"red": 1}, "red")
    1
    """
    try:
        return registry[name]
    except KeyError:
        known = ", ".join(sorted(registry))
        raise ValueError(f"unknown {kind} {name!r}; known: {known}") from None
