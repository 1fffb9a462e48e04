"""The published features of segments, from sums over their pixels (docs/method.md, section 4).

Segment features for C classes, F = 37 + 2 C, in the table sorted by name:

- ``S``, ``S_in``, ``S_bd`` [px]: pixels of the segment, inner ones, boundary ones. A boundary pixel
  has an 8-neighbour inside the image that is in no segment.
- ``S_rel``, ``S_rel_in``: ``S / S_bd``, ``S_in / S_bd``.
- ``mean_x``, ``mean_y`` [px]: mean row and mean column (the published names say x for rows).
- for a heat map h out of ``E`` (entropy over ln C), ``D`` (1 - p1 + p2, margin) and ``V`` (1 - p1,
  variation ratio): ``h``, ``h_in``, ``h_bd`` mean over the segment, its inside, its boundary;
  ``h_var``, ``h_var_in``, ``h_var_bd`` mean of squares minus square of the mean (a tiny negative
  number is possible); ``h_rel = h S_rel``, ``h_rel_in = h_in S_rel_in``, likewise ``h_var_rel``
  and ``h_var_rel_in``.
- ``cprobc``: mean softmax of class c over the segment.
- ``ndistc``: of all pairs (pixel of the segment, 8-neighbour outside), the share whose neighbour
  has its largest softmax at class c.

Of each further score that is asked for, which is one more heat map, the table has the features of a heat map, named
after the score: ``knn``, ``knn_in``, ``knn_var_rel`` and so on.

Empty means (no inner pixels, no boundary pixels, no pairs) are 0; where there is no boundary pixel the ratios take
``S_bd`` as 1.
"""

import re
from collections.abc import Sequence

import numpy as np

from meta_ood.scores import SCORES
from meta_ood.segments.table import FloatArray, IntArray

_BLOCK = 2048  # [segments] computed together, so that their columns stay in the cache

HEATS = ("E", "D", "V")
_HEAT_SUFFIXES = (
    "", "_in", "_bd", "_rel", "_rel_in", "_var", "_var_in", "_var_bd", "_var_rel", "_var_rel_in",
)  # fmt: skip
SIZE, INNER, ROW, COLUMN, SCORE, HEAT = range(6)
"""Columns of the sums; from HEAT on four a heat map: sum, squares, inner sum, inner squares."""
SUMS = HEAT + 4 * len(HEATS)
OF_SCORE = re.compile(rf"({'|'.join(SCORES)})(_var)?((?:_in|_bd|_rel|_rel_in)?)")
"""Names of features of scores: score, variance or mean, place."""


def scores_of(names: Sequence[str]) -> list[str]:
    """Return the scores that these features are of, each once; the published features are of none."""
    return list(dict.fromkeys(found[1] for name in names if (found := OF_SCORE.fullmatch(name))))


def feature_names(classes: int, scores: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the names of the segment features in the order of the table's columns: 75 for 19 classes, 10 a score."""
    names = ["S", "S_in", "S_bd", "S_rel", "S_rel_in", "mean_x", "mean_y"]
    names += [f"{heat}{suffix}" for heat in (*HEATS, *scores) for suffix in _HEAT_SUFFIXES]
    names += [f"{kind}{c}" for kind in ("cprob", "ndist") for c in range(classes)]
    return tuple(sorted(names))


def segment_features(
    sums: FloatArray, probabilities: FloatArray, neighbours: IntArray, scores: Sequence[str] = ()
) -> FloatArray:
    """Return the ``(S, F)`` features from ``(S, SUMS + 4 M)`` sums, ``(S, C)`` probabilities and neighbours.

    The first SUMS columns are the kernel's; four follow for each of M `scores`, as for a heat map.
    """
    names = feature_names(probabilities.shape[1], scores)
    features = np.empty((len(sums), len(names)))
    for start in range(0, len(sums), _BLOCK):
        rows = slice(start, start + _BLOCK)
        column = {name: features[rows, index] for index, name in enumerate(names)}
        _fill(column, sums[rows], probabilities[rows], neighbours[rows], (*HEATS, *scores))
    return features


def _fill(
    column: dict[str, FloatArray],
    sums: FloatArray,
    probabilities: FloatArray,
    neighbours: IntArray,
    heats: Sequence[str],
) -> None:
    # 1. sizes and place; without boundary pixels the ratios divide by 1 (decision 0031)
    size, inner = sums[:, SIZE], sums[:, INNER]
    boundary = size - inner
    relative, relative_inner = size / np.maximum(boundary, 1), inner / np.maximum(boundary, 1)
    column["S"][:], column["S_in"][:], column["S_bd"][:] = size, inner, boundary
    column["S_rel"][:], column["S_rel_in"][:] = relative, relative_inner
    column["mean_x"][:], column["mean_y"][:] = sums[:, ROW] / size, sums[:, COLUMN] / size
    # 2. mean and variance of each heat map, over all, inner and boundary pixels
    for index, heat in enumerate(heats):
        total, squares, inner_total, inner_squares = sums[:, HEAT + 4 * index :].T[:4]
        for suffix, first, second, count in (
            ("", total, squares, size),
            ("_in", inner_total, inner_squares, inner),
            ("_bd", total - inner_total, squares - inner_squares, boundary),
        ):
            mean = first / np.maximum(count, 1)
            column[f"{heat}{suffix}"][:] = mean
            column[f"{heat}_var{suffix}"][:] = second / np.maximum(count, 1) - mean * mean
        for name in (heat, f"{heat}_var"):
            column[f"{name}_rel"][:] = column[name] * relative
            column[f"{name}_rel_in"][:] = column[f"{name}_in"] * relative_inner
    # 3. classes inside and around
    pairs = np.maximum(neighbours.sum(1), 1)
    for c in range(probabilities.shape[1]):
        column[f"cprob{c}"][:] = probabilities[:, c] / size
        column[f"ndist{c}"][:] = neighbours[:, c] / pairs
