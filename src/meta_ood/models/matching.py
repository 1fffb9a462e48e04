"""Does what a file holds fit a network?  Answered in full before anything is loaded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from meta_ood.models.torch_files import CheckpointError

_COUNTER = "num_batches_tracked"
_SHOWN = 6


@dataclass(frozen=True)
class Report:
    """The comparison of a file's entries with a network's state dict.

    Attributes
    ----------
    source
        The file's name.
    layout
        Its format in words.
    matched
        Names that fit.
    missing
        Names that the network has and the file has not.
    unexpected
        Names that the file has and the network has not.
    wrong
        Name -> what the file has and what the network expects.
    counted
        Missing ``num_batches_tracked`` that are set to 0 (files of torch before 0.4.1).
    dropped
        Entries left out on purpose: an ImageNet backbone's classifier.
    ignored
        Entries of the file beside the state dict.
    hint
        What is the matter, where the pattern is plain.
    """

    source: str
    layout: str
    matched: tuple[str, ...]
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    wrong: Mapping[str, str] | None = None
    counted: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    hint: str = ""

    @property
    def fits(self) -> bool:
        """Whether every name, shape and value fits."""
        return not (self.missing or self.unexpected or self.wrong)

    def lines(self) -> list[str]:
        """Return the report as text, one line an item."""
        wrong = [f"{key} {text}" for key, text in (self.wrong or {}).items()]
        rows = (
            ("missing", self.missing),
            ("unexpected", self.unexpected),
            ("wrong", wrong),
            ("set to 0", self.counted),
            ("dropped", self.dropped),
            ("ignored", self.ignored),
        )
        lines = [f"{self.source}: {self.layout}", f"matched     {len(self.matched)}"]
        for name, keys in rows:
            if keys or name in ("missing", "unexpected", "wrong"):
                lines.append(f"{name:<11} {len(keys)}{': ' if keys else ''}{_shorten(keys)}")
        return [*lines, f"hint: {self.hint}"] if self.hint else lines

    def require_fit(self) -> None:
        """Raise unless everything fits.

        Raises
        ------
        CheckpointError
            With the whole report and, where the pattern is plain, what is the matter.
        """
        if not self.fits:
            raise CheckpointError("\n".join(self.lines()))


def match(
    source: str,
    layout: str,
    expected: Mapping[str, Tensor],
    found: Mapping[str, Tensor],
    *,
    dropped: tuple[str, ...] = (),
    ignored: tuple[str, ...] = (),
) -> Report:
    """Compare what a file holds with what a network expects.

    Parameters
    ----------
    source, layout
        For the report.
    expected
        The network's state dict; ``meta`` tensors will do.
    found
        The file's tensors.
    dropped, ignored
        For the report.
    """
    missing = [key for key in expected if key not in found]
    counted = [key for key in missing if key.endswith(_COUNTER)]
    if len(counted) < sum(key.endswith(_COUNTER) for key in expected):
        counted = []
    missing = [key for key in missing if key not in set(counted)]
    unexpected = [key for key in found if key not in expected]
    wrong = {
        key: text
        for key, own in expected.items()
        if key in found and (text := _mismatch(found[key], own))
    }
    return Report(
        source=source,
        layout=layout,
        matched=tuple(key for key in expected if key in found and key not in wrong),
        missing=tuple(missing),
        unexpected=tuple(unexpected),
        wrong=wrong,
        counted=tuple(counted),
        dropped=dropped,
        ignored=ignored,
        hint=_prefix_hint(missing, unexpected)
        or ("" if missing or unexpected else _class_hint(expected, found, wrong)),
    )


def converted(
    report: Report, expected: Mapping[str, Tensor], found: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return a state dict of the network's own dtypes, in its order; `report` must fit."""
    report.require_fit()
    return {
        key: found[key].detach().to(own.dtype) if key in found else torch.tensor(0)
        for key, own in expected.items()
    }


def _mismatch(tensor: Tensor, own: Tensor) -> str:
    shape, expected = tuple(tensor.shape), tuple(own.shape)
    if shape != expected:
        return f"is {shape}, expected {expected}"
    if tensor.is_floating_point() != own.is_floating_point() or tensor.is_complex():
        return f"is {tensor.dtype}, expected {own.dtype}"
    if tensor.is_floating_point() and not torch.isfinite(tensor.to(own.dtype)).all():
        return "has values that are not finite"
    return ""


def _prefix_hint(missing: list[str], unexpected: list[str]) -> str:
    prefixes = Counter(
        other.removesuffix(key)
        for key in missing[:50]
        for other in unexpected
        if other.endswith(f".{key}")
    )
    if not prefixes:
        return ""
    prefix, _ = prefixes.most_common(1)[0]
    return f"names carry the prefix {prefix!r}, which the network's have not"


def _class_hint(
    expected: Mapping[str, Tensor], found: Mapping[str, Tensor], wrong: Mapping[str, str]
) -> str:
    shapes = [(tuple(found[key].shape), tuple(expected[key].shape)) for key in wrong]
    if not shapes or any(not a or not b or a[1:] != b[1:] for a, b in shapes):
        return ""
    counts = {(a[0], b[0]) for a, b in shapes}
    if len(counts) != 1:
        return ""
    theirs, ours = counts.pop()
    return f"the file seems to be for {theirs} classes, the network has {ours}"


def _shorten(keys: tuple[str, ...] | list[str]) -> str:
    shown = ", ".join(keys[:_SHOWN])
    return f"{shown}, ... {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else shown
