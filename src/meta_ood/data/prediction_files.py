"""Predictions as HDF5 files, one per frame. The format is described in docs/formats.md."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from meta_ood.data.hdf5 import opened, replacing, stored_array, stored_dataset
from meta_ood.data.predictions import Prediction

PREDICTION_VERSION = 1
_LOWEST, _STEPS = -32768, 65535  # the range of int16
_LARGEST_STEP = 2.0**-9  # half of it changes an entropy by less than 1e-3, whatever the logits
_MOST = 2**31  # values in one array: 1,000 classes at 1024 x 2048 are less
_STORED = "score_"  # the names of stored score maps begin with it
_LARGEST_HALF = 60_000.0  # a little below the largest half float


def write_prediction(
    path: Path, prediction: Prediction, *, class_names: Sequence[str], network: str, weights_sha256: str
) -> None:
    """Write one frame atomically.

    Logits are stored in 16 bits: integers times a scale plus an offset, chosen for each class, so that the error is at
    most range / 131070. Where the range of a class is so large (128) that the entropy could change by 1e-3, and for a
    given softmax, float32 is stored. Score maps are stored as half floats, see :func:`halves`. The C `class_names`, the
    name of the `network` and the hash of its weights file go with them.

    Raises:
        ValueError: NaN or infinity (the frame is named); a wrong number of class names.
    """
    logits = prediction.logits
    if len(class_names) != logits.shape[0]:
        raise ValueError(f"{prediction.image_id}: {len(class_names)} class names for {logits.shape[0]} classes")
    for what, values in {"prediction": logits, **prediction.stored}.items():
        if not np.isfinite(values).all():
            raise ValueError(f"{prediction.image_id}: NaN or infinity in the {what}")
    with replacing(path) as file:
        file.attrs.update(
            format="meta-ood prediction",
            version=PREDICTION_VERSION,
            image_id=prediction.image_id,
            scene=prediction.scene,
            size=np.asarray(prediction.size, np.int64),
            align_corners=bool(prediction.align_corners),
            is_softmax=bool(prediction.is_softmax),
            class_names=list(class_names),
            network=network,
            weights_sha256=weights_sha256,
        )
        planes = np.asarray(logits, np.float32)
        # a given softmax is kept to the bit, it may come from another program
        steps = None if prediction.is_softmax else _steps(planes)
        if steps is None:
            file.create_dataset("logits", data=planes)
        else:
            stored = file.create_dataset("logits", planes.shape, np.int16)
            for index, plane in enumerate(planes):
                stored[index] = _integers(plane, steps[0][index], steps[1][index])
            stored.attrs["scale"], stored.attrs["offset"] = steps
        for name, values in prediction.stored.items():
            numbers, scale, offset = halves(values)
            stored = file.create_dataset(f"{_STORED}{name}", data=numbers)
            stored.attrs["scale"], stored.attrs["offset"] = scale, offset
        for name, labels in (("target", prediction.target), ("label_ids", prediction.label_ids)):
            if labels is not None:
                # one chunk reads three times faster than HDF5's default chunks; with the fastest compression files grow
                # by less than 0.1 %, so well do label maps compress
                file.create_dataset(name, data=labels, chunks=labels.shape, compression="gzip", compression_opts=1)


def _steps(planes: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]] | None:
    """Return scale and offset of each plane, None where 16 bits are too coarse for one of them."""
    low = planes.min(axis=(1, 2)).astype(np.float64)
    scale = (planes.max(axis=(1, 2)) - low) / _STEPS
    if (scale > _LARGEST_STEP).any():
        return None
    scale[scale == 0] = 1  # a constant plane: all integers are the same, whatever the scale
    return scale, low - _LOWEST * scale


def _integers(plane: npt.NDArray[np.float32], scale: np.float64, offset: np.float64) -> npt.NDArray[np.int16]:
    return np.clip(np.rint((plane - offset) / scale), _LOWEST, _LOWEST + _STEPS).astype(np.int16)


def _restore(plane: npt.NDArray[np.int16], scale: np.float64, offset: np.float64, out: Any) -> None:
    np.copyto(out, plane)
    out *= np.float32(scale)
    out += np.float32(offset)


def halves(values: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float16], float, float]:
    """Return ``(h, w)`` half floats, a scale and an offset: each value is about half * scale + offset.

    The offset is the median and the scale the interquartile range. So half of the values lie where half floats are
    dense, and distances, whose largest values are far away, keep theirs to 1 / 2,000.
    """
    low, median, high = np.quantile(values.astype(np.float64), (0.25, 0.5, 0.75))
    farthest = float(np.abs(values - median).max())
    scale = max(float(high - low), farthest / _LARGEST_HALF) or 1.0  # a constant map: all are 0
    return ((values - median) / scale).astype(np.float16), scale, float(median)


def _from_halves(numbers: npt.NDArray[np.float16], scale: float, offset: float) -> npt.NDArray[np.float32]:
    return (numbers.astype(np.float64) * scale + offset).astype(np.float32)


def map_as_stored(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return a ``(h, w)`` score map as it would be read from a file: equal to the bit."""
    return _from_halves(*halves(values))


def as_stored(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return ``(C, h, w)`` logits as they would be read from a file: equal to the bit."""
    planes = np.asarray(logits, np.float32)
    steps = _steps(planes)
    if steps is None:
        return planes
    # the same arithmetic as writing and reading, plane by plane
    back = np.empty_like(planes)
    for out, plane, scale, offset in zip(back, planes, *steps, strict=True):
        _restore(_integers(plane, scale, offset), scale, offset, out)
    return back


def read_prediction(path: Path, allocate: Callable[..., npt.NDArray[np.float32]] = np.empty) -> Prediction:
    """Read one frame of :func:`write_prediction`; the logits lie in what ``allocate(shape, dtype)`` returns.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged or not a prediction of this version; the file is named.
    """
    with opened(path, "meta-ood prediction", PREDICTION_VERSION) as file:
        stored = stored_dataset(file, "logits", _MOST)
        if stored.ndim != 3 or stored.dtype not in (np.int16, np.float32):
            raise ValueError(f"logits: expected (C, h, w), got {stored.shape} {stored.dtype}")
        logits = allocate(stored.shape, np.dtype(np.float32))
        if stored.dtype == np.int16:
            scale, offset = stored.attrs["scale"], stored.attrs["offset"]
            plane = np.empty(stored.shape[1:], np.int16)
            for index in range(len(stored)):
                stored.read_direct(plane, np.s_[index])
                _restore(plane, scale[index], offset[index], logits[index])
        else:
            stored.read_direct(logits)
        height, width = (int(v) for v in file.attrs["size"])
        return Prediction(
            image_id=str(file.attrs["image_id"]),
            logits=logits,
            size=(height, width),
            align_corners=bool(file.attrs["align_corners"]),
            target=stored_array(file, "target", _MOST),
            scene=str(file.attrs["scene"]),
            is_softmax=bool(file.attrs["is_softmax"]),
            label_ids=stored_array(file, "label_ids", _MOST) if "label_ids" in file else None,
            stored={name.removeprefix(_STORED): _read_map(file, name) for name in file if name.startswith(_STORED)},
        )


def _read_map(file: h5py.File, name: str) -> npt.NDArray[np.float32]:
    values = stored_array(file, name, _MOST)
    if values.ndim != 2 or values.dtype != np.float16:
        raise ValueError(f"{name}: expected (h, w) float16, got {values.shape} {values.dtype}")
    return _from_halves(values, float(file[name].attrs["scale"]), float(file[name].attrs["offset"]))


@dataclass(frozen=True)
class PredictionFolder:
    """The predictions of a folder in file-name order, read one at a time, and what all of them have in common."""

    paths: tuple[Path, ...]
    class_names: tuple[str, ...]
    network: str
    weights_sha256: str

    def __len__(self) -> int:
        return len(self.paths)

    def __iter__(self) -> Iterator[Prediction]:
        return map(read_prediction, self.paths)


def open_predictions(folder: Path, frames: Collection[str] | None = None) -> PredictionFolder:
    """Open all ``<image_id>.h5`` of a folder; the image ids `frames`, if given, must be there, and no other.

    Raises:
        FileNotFoundError: If the folder is missing or holds no prediction.
        ValueError: If a frame is missing or unknown, if a file is damaged, of another version, or differs in class
            names, network or weights.
    """
    paths = tuple(sorted(folder.glob("*.h5")))
    if not paths:
        raise FileNotFoundError(f"{folder}: no predictions (*.h5); run `infer` first")
    if frames is not None:
        found = {path.stem for path in paths}
        missing, unknown = sorted({*frames} - found), sorted(found - {*frames})
        if missing or unknown:
            counts = f"{len(missing)} of {len(frames)} frames are missing, {len(unknown)} are unknown"
            example = (missing + unknown)[0]
            raise ValueError(f"{folder}: {counts} ({example}, ...); run `infer` again")
    origins = []
    for path in paths:
        with opened(path, "meta-ood prediction", PREDICTION_VERSION) as file:
            names = tuple(str(name) for name in file.attrs["class_names"])
            origins.append((names, str(file.attrs["network"]), str(file.attrs["weights_sha256"])))
        if origins[-1] != origins[0]:
            raise ValueError(f"{path}: class names, network or weights differ from {paths[0]}")
    return PredictionFolder(paths, *origins[0])
