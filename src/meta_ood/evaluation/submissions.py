"""Score maps in the file formats that benchmark servers take."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np

from meta_ood import scores
from meta_ood.data import hdf5
from meta_ood.data.predictions import FloatMap, Prediction
from meta_ood.data.registry import lookup


def segment_me_if_you_can(path: Path, score: FloatMap) -> Path:
    """Write ``{path}.hdf5`` with one float16 array ``value``, as road-anomaly-benchmark does.

    Scores beyond float16 are clipped to its range; more is lost only in the order of scores that
    differ by less than a thousandth of their size.
    """
    limit = float(np.finfo(np.float16).max)
    hdf5.write_array(
        path.with_name(f"{path.name}.hdf5"),
        "value",
        np.clip(score, -limit, limit).astype(np.float16),
    )
    return path.with_name(f"{path.name}.hdf5")


def fishyscapes(path: Path, score: FloatMap) -> Path:
    """Write ``{path}.npy``, float32, higher = more anomalous."""
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(score, np.float32), allow_pickle=False)
    target = path.with_name(f"{path.name}.npy")
    temporary = target.with_name(f"{target.name}.tmp")
    temporary.write_bytes(buffer.getvalue())
    temporary.replace(target)
    return target


FORMATS: dict[str, Callable[[Path, FloatMap], Path]] = {
    "fishyscapes": fishyscapes,
    "segment_me_if_you_can": segment_me_if_you_can,
}
"""Benchmark -> what writes one frame's ``(H, W)`` score to a path without ending."""


def submit(
    prediction: Prediction, score: str, benchmark: str, folder: Path, threads: int = 1
) -> Path:
    """Write the score of one frame for a benchmark.

    Parameters
    ----------
    prediction
        The frame; the file is named after its image id.
    score
        A key of :data:`meta_ood.scores.SCORES`.
    benchmark
        A key of :data:`FORMATS`.
    folder
        Where to write; it is made.

    Returns
    -------
    The file.
    """
    write = lookup("benchmark", FORMATS, benchmark)
    folder.mkdir(parents=True, exist_ok=True)
    values = scores.score_maps(prediction, [score], threads=threads)[score]
    return write(folder / prediction.image_id, values)
