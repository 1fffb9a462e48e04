import numpy as np
import numpy.typing as npt

points: int

def find_runs(
    mask: npt.NDArray[np.uint8],
    row_first: npt.NDArray[np.int32],
    start: npt.NDArray[np.int32],
    end: npt.NDArray[np.int32],
) -> int: ...
def label_runs(
    row_first: npt.NDArray[np.int32],
    start: npt.NDArray[np.int32],
    end: npt.NDArray[np.int32],
    label: npt.NDArray[np.int32],
) -> int: ...
def paint_runs(
    row_first: npt.NDArray[np.int32],
    start: npt.NDArray[np.int32],
    end: npt.NDArray[np.int32],
    label: npt.NDArray[np.int32],
    labels: npt.NDArray[np.int32],
) -> None: ...
def contacts(
    row_first: npt.NDArray[np.int32],
    start: npt.NDArray[np.int32],
    end: npt.NDArray[np.int32],
    label: npt.NDArray[np.int32],
    other_row_first: npt.NDArray[np.int32],
    other_start: npt.NDArray[np.int32],
    other_end: npt.NDArray[np.int32],
    other_label: npt.NDArray[np.int32],
    reach: int,
    out: npt.NDArray[np.int64],
) -> int: ...
def accumulate(
    mask: npt.NDArray[np.uint8],
    row_first: npt.NDArray[np.int32],
    start: npt.NDArray[np.int32],
    end: npt.NDArray[np.int32],
    label: npt.NDArray[np.int32],
    logits: npt.NDArray[np.float32],
    low: npt.NDArray[np.int32],
    high: npt.NDArray[np.int32],
    weight: npt.NDArray[np.float32],
    left: npt.NDArray[np.int32],
    right: npt.NDArray[np.int32],
    share: npt.NDArray[np.float32],
    is_softmax: bool,
    entropy_scale: float,
    score: npt.NDArray[np.float32],
    arg_max: npt.NDArray[np.uint8],
    p: npt.NDArray[np.float32],
    heat: npt.NDArray[np.float32],
    sums: npt.NDArray[np.float64],
    class_sums: npt.NDArray[np.float64],
    neighbours: npt.NDArray[np.int64],
) -> None: ...
