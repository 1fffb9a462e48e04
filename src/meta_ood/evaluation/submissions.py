"""Score maps in the file formats that benchmark servers take."""

import io
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from meta_ood.data import files, hdf5
from meta_ood.data.predictions import Prediction
from meta_ood.data.registry import lookup
from meta_ood.scores import find_score, pixel_maps

FORMATS = {"fishyscapes": ".npy", "segment_me_if_you_can": ".hdf5"}
"""Benchmark -> ending of its files."""


def submit(prediction: Prediction, number: int, score: str, benchmark: str, folder: Path) -> Path:
    """Write the score map of one frame for a benchmark and return its file.

    - ``fishyscapes``: ``<number>_anomaly.npy`` (float32) and ``<number>_segmentation.npy`` (train ids). The benchmark's
      reader pairs files with labels by the text before the first underscore, as an integer.
    - ``segment_me_if_you_can``: ``<image_id>.hdf5`` with one float16 array ``value``. Scores beyond float16 are clipped
      to its range; scores that differ by less than a thousandth of their size become equal.

    `number` is that of :func:`frame_numbers`, `score` as in :func:`meta_ood.scores.find_score`; the folder is made.

    Raises:
        ValueError: Unknown benchmark or score; the known ones are listed.
    """
    lookup("benchmark", FORMATS, benchmark)
    formula = find_score(score)
    maps = pixel_maps(prediction, {*formula.needs, "arg_max"})
    values = formula(maps)
    if benchmark == "fishyscapes":
        _write_npy(folder / f"{number:04d}_segmentation.npy", maps.arg_max)
        return _write_npy(folder / f"{number:04d}_anomaly.npy", values)
    path = folder / f"{prediction.image_id}.hdf5"
    limit = float(np.finfo(np.float16).max)
    with hdf5.replacing(path) as file:
        file["value"] = np.clip(values, -limit, limit).astype(np.float16)
    return path


def _write_npy(path: Path, array: npt.NDArray[np.generic]) -> Path:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    files.write_bytes(path, buffer.getvalue())
    return path


def frame_numbers(image_ids: Sequence[str]) -> list[int]:
    """Return the number of each frame of a dataset: that in its name, or else its place.

    Examples:
        >>> frame_numbers(["0003_04_Maurener_Weg", "0012_15_Rechbergstr"])
        [3, 12]
        >>> frame_numbers(["04_Maurener_Weg_000010", "04_Maurener_Weg_000020"])
        [0, 1]
    """
    numbers = [int(match[1]) for name in image_ids if (match := re.match(r"(\d+)(?:_|$)", name))]
    return numbers if len(set(numbers)) == len(image_ids) else list(range(len(image_ids)))
