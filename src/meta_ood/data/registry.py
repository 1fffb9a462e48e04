"""Lookup of a name in a registry."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import TypeVar

T = TypeVar("T")


def lookup(kind: str, registry: Mapping[str, T], name: str) -> T:
    """Return ``registry[name]``; for an unknown name the error lists the known ones.

    Raises:
        ValueError: If `name` is not a key of `registry`.

    Examples:
        >>> lookup("colour", {"red": 1}, "red")
        1
    """
    try:
        return registry[name]
    except KeyError:
        raise ValueError(f"unknown {kind} {name!r}; {known_names(name, registry)}") from None


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
