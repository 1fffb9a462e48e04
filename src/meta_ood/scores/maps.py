"""One pass over the logits of a frame: up-sampling and the statistics of each pixel's softmax."""

import functools
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from meta_ood.data.labels import LabelMap
from meta_ood.data.predictions import FloatMap, Prediction
from meta_ood.scores import _kernel

MAPS = ("entropy", "first", "second", "max_logit", "log_sum_exp", "generalised", "arg_max")
OF_LOGITS = ("max_logit", "log_sum_exp")  # maps that a given softmax does not have
Ints = npt.NDArray[np.int32]
_ABSENT: FloatMap = np.empty((0, 0), np.float32)


class Workspace:
    """Memory that one thread uses again from frame to frame.

    The array of a name shares its memory with every earlier array of that name: whoever needs two arrays at the same
    time asks for two names.
    """

    def __init__(self) -> None:
        self._memory: dict[str, npt.NDArray[np.uint8]] = {}

    def array(self, name: str, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Return uninitialised memory of this shape; it overwrites the last array of `name`."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        memory = self._memory.get(name)
        if memory is None or memory.size < size:
            memory = self._memory[name] = np.empty(size, np.uint8)
        return memory[:size].view(dtype).reshape(shape)

    def allocator(self, name: str) -> Callable[[tuple[int, ...], Any], npt.NDArray[Any]]:
        """Return a function from shape and dtype to the memory called `name`."""
        return functools.partial(self.array, name)


@dataclass(frozen=True)
class PixelMaps:
    """Statistics of each pixel's softmax p and logits l over C classes.

    Absent maps have the shape ``(0, 0)``: those not asked for, and those of logits if the softmax was given. The others
    are ``(H, W) float32``, the class map ``uint8``.
    """

    entropy: FloatMap = field(default_factory=lambda: _ABSENT)  # in [0, 1]: -sum p ln p / ln C, p normalised to sum 1
    first: FloatMap = field(default_factory=lambda: _ABSENT)  # largest probability, as given
    second: FloatMap = field(default_factory=lambda: _ABSENT)  # second largest probability, as given
    max_logit: FloatMap = field(default_factory=lambda: _ABSENT)  # max l
    log_sum_exp: FloatMap = field(default_factory=lambda: _ABSENT)  # ln sum exp l
    generalised: FloatMap = field(default_factory=lambda: _ABSENT)  # mean over the classes of (p (1 - p))^0.1
    # class of the largest logit, the first one on ties
    arg_max: LabelMap = field(default_factory=lambda: np.empty((0, 0), np.uint8))
    # of the maps that were stored beside the logits those that were asked for, up-sampled: score -> (H, W) float32
    stored: Mapping[str, FloatMap] = field(default_factory=dict)

    def of(self, name: str) -> npt.NDArray[Any]:
        """Return the map of this name, a statistic or a stored map; shape ``(0, 0)`` if it is absent."""
        found: npt.NDArray[Any] = getattr(self, name) if name in MAPS else self.stored.get(name, _ABSENT)
        return found


def pixel_maps(
    prediction: Prediction, wanted: Iterable[str] = MAPS, workspace: Workspace | None = None, threads: int = 1
) -> PixelMaps:
    """Return the pixel maps of a prediction, computed in one pass over its logits.

    Args:
        prediction: One frame.
        wanted: Names of maps out of :data:`MAPS`, and of stored ones; those of logits are left out for a given softmax.
        workspace: Memory for the maps; the next call with it overwrites them.
        threads: How many threads share the rows.

    Raises:
        ValueError: If a value is NaN or infinite, or a stored map is not there; the frame is named.
    """
    workspace = workspace or Workspace()
    wanted = set(wanted)
    stored = {name: _up_sampled(prediction, name) for name in sorted(wanted - {*MAPS})}
    logits, classes = as_planes(prediction), prediction.logits.shape[0]
    if classes > 255:  # the class map is uint8
        raise ValueError(f"{prediction.image_id}: {classes} classes; at most 255 fit a class map")
    # 1. memory for each map that is wanted; None tells the kernel to leave a map out
    maps: dict[str, npt.NDArray[Any] | None] = dict.fromkeys(MAPS)
    for name in wanted & {*MAPS}:
        if not (prediction.is_softmax and name in OF_LOGITS):
            dtype = np.uint8 if name == "arg_max" else np.float32
            maps[name] = workspace.array(name, prediction.size, dtype)
    # 2. up-sampling, softmax and its statistics row by row; the kernel takes the maps in the order of MAPS
    scratch = _kernel.scratch_size(classes, prediction.size[1])
    finite = _kernel.reduce(
        logits,
        *grid(prediction),
        prediction.is_softmax,
        entropy_scale(classes),
        workspace.array("scratch", (threads, scratch), np.float32),
        *maps.values(),
    )
    # 3. a NaN or an infinity in the input shows in the entropy, which the kernel checks
    if not finite:
        what = "softmax" if prediction.is_softmax else "logits"
        raise ValueError(f"{prediction.image_id}: the {what} hold NaN or infinity")
    return PixelMaps(**{name: values for name, values in maps.items() if values is not None}, stored=stored)


def _up_sampled(prediction: Prediction, name: str) -> FloatMap:
    """Return a stored map at full size: its pixels are the largest "logits" of their only class."""
    if name not in prediction.stored:
        held = ", ".join(sorted(prediction.stored)) or "none"
        raise ValueError(
            f"{prediction.image_id}: no map of the score {name} is stored (stored: {held}); put it into infer.scores "
            "and run `infer` again"
        )
    alone = replace(prediction, logits=prediction.stored[name][None], is_softmax=False, stored={})
    return pixel_maps(alone, ["max_logit"]).max_logit


def as_planes(prediction: Prediction) -> npt.NDArray[np.float32]:
    """Return the logits as contiguous float32, copied only where they are not."""
    return np.ascontiguousarray(prediction.logits, np.float32)


def entropy_scale(classes: int) -> float:
    """Return 1 / ln C, which scales the entropy to [0, 1]; 0 for a single class."""
    return 1 / math.log(classes) if classes > 1 else 0.0


def grid(prediction: Prediction) -> tuple[Ints, Ints, FloatMap, Ints, Ints, FloatMap]:
    """Return the source pixels of each pixel for bilinear up-sampling, as torch computes them.

    Lower and upper source row ``(H,) int32`` and the weight of the upper one ``(H,) float32``; then the columns.
    """
    _, height, width = prediction.logits.shape
    rows = _positions(height, prediction.size[0], prediction.align_corners)
    return *rows, *_positions(width, prediction.size[1], prediction.align_corners)


def _positions(small: int, large: int, align_corners: bool) -> tuple[Ints, Ints, FloatMap]:
    """Return lower source index, upper one, and weight of the upper one for each of `large`."""
    # in float32 and in torch's order of operations: the same rounding gives the same weights
    index = np.arange(large, dtype=np.float32)
    if align_corners:
        scale = np.float32(small - 1) / np.float32(large - 1) if large > 1 else np.float32(0)
        position = scale * index
    else:
        scale = np.float32(small) / np.float32(large)
        half = np.float32(0.5)
        position = np.maximum(scale * (index + half) - half, np.float32(0))
    # beyond the last source row both neighbours are that row
    low = np.minimum(position.astype(np.int32), small - 1)
    weight = np.clip(position - low.astype(np.float32), 0, 1).astype(np.float32)
    return low.astype(np.int32), np.minimum(low + 1, small - 1).astype(np.int32), weight
