"""Where the segments of a set lie: thinned label maps of all its frames as runs, in one small file, for the report."""

from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt

from meta_ood.config import SegmentsParams
from meta_ood.data.hdf5 import opened, replacing
from meta_ood.data.predictions import Prediction
from meta_ood.scores import PixelMaps, find_score, pixel_maps
from meta_ood.segments import label_map, predicted_ood

LabelMap = npt.NDArray[np.int32]  # (H, W): 0 outside, k in segment k = 1 .. S
Runs = npt.NDArray[np.int32]  # (R, 3): first pixel in raster order, length, and k of each run of equal labels

WIDTH = 512
"""Most columns of a thinned map [px]: as wide as the report shows a frame."""

_KIND, _VERSION = "meta-ood masks", 1


def thinned_size(size: tuple[int, int]) -> tuple[int, int]:
    """Return rows and columns of the thinned map of a frame of ``(H, W)`` pixels."""
    step = -(-size[1] // WIDTH)
    return -(-size[0] // step), -(-size[1] // step)


def segment_runs(prediction: Prediction, settings: SegmentsParams, maps: PixelMaps | None = None) -> Runs:
    """Find the segments of a frame as the stage `segments` does, and return the runs of their thinned map.

    Args:
        prediction: One frame.
        settings: Score and threshold.
        maps: Pixel maps of the prediction that are there already.
    """
    score = find_score(settings.score)
    values = score(maps or pixel_maps(prediction, set(score.needs)))
    return runs_of(label_map(predicted_ood(values, settings.threshold, prediction.target)))


def runs_of(labels: LabelMap) -> Runs:
    """Return the runs of the thinned map; a pixel of it has the highest label of the block that it stands for."""
    # 1. blocks of step x step pixels; those at the lower and right border are filled up with zeros
    (height, width), (rows, columns) = labels.shape, thinned_size((labels.shape[0], labels.shape[1]))
    step = -(-width // WIDTH)
    filled = np.pad(labels, ((0, rows * step - height), (0, columns * step - width)))
    flat = filled.reshape(rows, step, columns, step).max(axis=(1, 3)).ravel()
    # 2. runs begin where the label changes, also across the end of a row
    starts = np.flatnonzero(np.diff(flat, prepend=flat[0] - 1))
    runs = np.stack([starts, np.diff(starts, append=flat.size), flat[starts]], axis=1)
    return np.asarray(runs[runs[:, 2] > 0], np.int32)


def write_masks(path: Path, frames: Mapping[str, Runs]) -> None:
    """Write the runs of all frames, by image id, atomically."""
    names = sorted(frames)
    with replacing(path) as file:
        file.attrs["format"], file.attrs["version"] = _KIND, _VERSION
        file.create_dataset("image_ids", data=names, dtype=h5py.string_dtype())
        file.create_dataset("first", data=np.cumsum([0, *(len(frames[name]) for name in names)]))
        runs = np.concatenate([np.zeros((0, 3), np.int32), *(frames[name] for name in names)])
        file.create_dataset("runs", data=runs, compression="gzip" if len(runs) else None)


def read_masks(path: Path) -> dict[str, Runs]:
    """Read what :func:`write_masks` wrote: image id -> runs.

    FileNotFoundError, or ValueError if the file, which is named, is damaged or of another kind.
    """
    with opened(path, _KIND, _VERSION) as file:
        names, first, runs = file["image_ids"].asstr()[()], file["first"][()], file["runs"][()]
        if first.shape != (len(names) + 1,) or first[0] != 0 or first[-1] != len(runs) or (np.diff(first) < 0).any():
            raise ValueError("the numbers of runs do not fit together")
        return {str(name): runs[first[i] : first[i + 1]] for i, name in enumerate(names)}
