"""Run lengths of masks as COCO writes them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def run_lengths(mask: npt.NDArray[np.bool_]) -> list[int]:
    """Return lengths of alternating runs in column order, beginning with zeros.

    Examples
    --------
    >>> run_lengths(np.array([[0, 1], [0, 1]], bool))
    [2, 2]
    >>> run_lengths(np.array([[1, 0], [1, 0]], bool))
    [0, 2, 2]
    """
    flat = mask.ravel(order="F")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    bounds = np.concatenate(([0], changes, [flat.size]))
    lengths = [int(length) for length in np.diff(bounds)]
    return [0, *lengths] if flat[0] else lengths


def compress(lengths: list[int]) -> str:
    """Return COCO's text form of run lengths.

    Each length from the fourth on is written as the difference to the one two before; a number is
    written five bits at a time, low ones first, with bit 6 set while more follow, as the characters
    from ``0`` (code 48) on.

    Examples
    --------
    >>> compress([2, 2])
    '22'
    """
    text = []
    for index, length in enumerate(lengths):
        number = length - lengths[index - 2] if index > 2 else length
        more = True
        while more:
            part = number & 0x1F
            number >>= 5
            more = number != (-1 if part & 0x10 else 0)
            text.append(chr(48 + (part | (0x20 if more else 0))))
    return "".join(text)
