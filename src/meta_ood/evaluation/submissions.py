"""Score maps in the file formats that benchmark servers take."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np

from meta_ood.data import files, hdf5
from meta_ood.data.predictions import FloatMap, Prediction
from meta_ood.data.registry import lookup
from meta_ood.scores import SCORES


def segment_me_if_you_can(path: Path, score: FloatMap) -> Path:
    """Write ``{path}.hdf5`` with one float16 array ``value``, as road-anomaly-benchmark does.

    Scores beyond float16 are clipped to its range; scores that differ by less than a thousandth of
    their size become equal.
    """
    path = path.with_name(f"{path.name}.hdf5")
    limit = float(np.finfo(np.float16).max)
    hdf5.write_array(path, "value", np.clip(score, -limit, limit).astype(np.float16))
    return path


def fishyscapes(path: Path, score: FloatMap) -> Path:
    """Write ``{path}.npy``, float32, higher = more anomalous."""
    path = path.with_name(f"{path.name}.npy")
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(score, np.float32), allow_pickle=False)
    files.write_bytes(path, buffer.getvalue())
    return path


FORMATS: dict[str, Callable[[Path, FloatMap], Path]] = {
    "fishyscapes": fishyscapes,
    "segment_me_if_you_can": segment_me_if_you_can,
}
"""Benchmark -> what writes one frame's ``(H, W)`` score to a path without ending."""


def submit(prediction: Prediction, score: str, benchmark: str, folder: Path) -> Path:
    """Write the score map of one frame for a benchmark and return the file.

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
    """
    write = lookup("benchmark", FORMATS, benchmark)
    values = lookup("score", SCORES, score)(prediction)
    return write(folder / prediction.image_id, values)
