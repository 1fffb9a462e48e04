"""Compare the entries of a weights file with a network's state dict before anything is loaded."""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from meta_ood.models.torch_files import CheckpointError, Contents


@dataclass(frozen=True)
class MatchReport:
    """The result of :func:`match`."""

    source: str  # the file's path
    layout: str  # its format in words
    ignored: tuple[str, ...]  # its entries beside the state dict
    prefix: str  # what stood before all names and was removed
    matched: tuple[str, ...]  # names that fit
    missing: tuple[str, ...]  # names that only the network has
    unexpected: tuple[str, ...]  # names that only the file has
    wrong: Mapping[str, str]  # name -> what the file holds and what the network expects
    zeroed: tuple[str, ...]  # missing `num_batches_tracked` that are set to 0
    dropped: tuple[str, ...]  # entries left out on purpose: a classifier's last layer
    hint: str  # the likely reason of a mismatch, or ""

    @property
    def fits(self) -> bool:
        """Whether every name, shape and value fits."""
        return not (self.missing or self.unexpected or self.wrong)

    def lines(self) -> list[str]:
        """Return the report as text, one line per item."""
        wrong = [f"{key} {text}" for key, text in self.wrong.items()]
        shown = {"missing": self.missing, "unexpected": self.unexpected, "wrong": wrong}
        others = {"set to 0": self.zeroed, "dropped": self.dropped, "ignored": self.ignored}
        shown |= {name: keys for name, keys in others.items() if keys}
        lines = [f"{self.source}: {self.layout}, prefix {self.prefix or 'none'}", f"matched     {len(self.matched)}"]
        for name, keys in shown.items():
            lines.append(f"{name:<11} {len(keys)}{': ' if keys else ''}{_shorten(keys)}")
        return [*lines, f"hint: {self.hint}"] if self.hint else lines


def match(
    source: str, contents: Contents, expected: Mapping[str, Tensor], drop: Sequence[str] = ()
) -> tuple[MatchReport, dict[str, Tensor]]:
    """Compare what a file holds with what a network expects.

    Args:
        source, contents: The file's path, for the report, and its state dict, without a prefix that all names have.
        expected: The network's state dict, or the part of it that the file must hold; may be on the meta device.
        drop: How names begin that the file may hold and the network does not need.

    Returns:
        The report, and the values for `expected` in its dtypes and its order.

    Raises:
        CheckpointError: If anything does not fit; the message is the whole report.
    """
    # 1. names: remove the prefix and what is not needed
    prefix = _common_prefix(contents.tensors, expected, drop)
    found = {key.removeprefix(prefix): value for key, value in contents.tensors.items()}
    dropped = tuple(key for key in found if key.startswith(tuple(drop)))
    for key in dropped:
        del found[key]
    missing = [key for key in expected if key not in found]
    unexpected = [key for key in found if key not in expected]
    # 2. counters may be missing if all are: old versions of PyTorch had none
    counters = {key for key in expected if key.endswith("num_batches_tracked")}
    zeroed = counters if counters <= set(missing) else set()
    missing = [key for key in missing if key not in zeroed]
    # 3. shapes and values
    wrong = {key: text for key, own in expected.items() if key in found and (text := _mismatch(found[key], own))}
    hint = "" if missing or unexpected else _class_hint(expected, found, wrong)
    if other := next(filter(None, (_prefix_of(name, missing) for name in unexpected[:100])), ""):
        hint = f"some names carry the prefix {other!r}, which others do not have"
    matched = tuple(key for key in expected if key in found and key not in wrong)
    names = (matched, tuple(missing), tuple(unexpected), wrong, tuple(sorted(zeroed)), dropped)
    report = MatchReport(source, contents.layout, contents.ignored, prefix, *names, hint)
    if not report.fits:
        raise CheckpointError("\n".join(report.lines()))
    return report, {
        key: found[key].detach().to(own.dtype) if key in found else torch.tensor(0) for key, own in expected.items()
    }


def _common_prefix(found: Iterable[str], expected: Mapping[str, Tensor], drop: Sequence[str]) -> str:
    """Return the prefix that makes names of `found` those of `expected`; "" if it is not on all."""
    if any(name in expected for name in found):
        return ""
    for name in islice(found, 100):  # enough to meet one that is expected, in bounded time
        prefix = _prefix_of(name, expected)
        if prefix and all(other.startswith((prefix, *drop)) for other in found):
            return prefix
    return ""


def _prefix_of(name: str, expected: Container[str]) -> str:
    """Return what stands in `name` before one of `expected`: text that ends with a dot, or ""."""
    short = name[:100]  # prefixes are short, and a file's names may have any length
    ends = [place + 1 for place, letter in enumerate(short) if letter == "."]
    return next((name[:end] for end in ends if name[end:] in expected), "")


def _mismatch(tensor: Tensor, own: Tensor) -> str:
    """Return how a tensor of the file differs from the network's, or ""."""
    # The shape comes first: a view of any size takes no memory until its values are looked at.
    if tensor.shape != own.shape:
        return f"is {tuple(tensor.shape)}, expected {tuple(own.shape)}"
    if tensor.is_floating_point() != own.is_floating_point() or tensor.is_complex():
        return f"is {tensor.dtype}, expected {own.dtype}"
    if tensor.is_floating_point() and not torch.isfinite(tensor.to(own.dtype)).all():
        return "has values that are not finite"
    return ""


def _class_hint(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], wrong: Iterable[str]) -> str:
    """Return that the file is for another number of classes, if that explains all of `wrong`."""
    shapes = [(found[key].shape, expected[key].shape) for key in wrong]
    counts = {(*theirs[:1], *own[:1]) for theirs, own in shapes}
    if any(theirs[1:] != own[1:] for theirs, own in shapes) or [len(pair) for pair in counts] != [2]:
        return ""
    return "the file seems to be for {} classes, the network has {}".format(*counts.pop())


def _shorten(keys: Sequence[str]) -> str:
    shown = ", ".join(key[:100] for key in keys[:6])
    return f"{shown}, ... {len(keys) - 6} more" if len(keys) > 6 else shown
