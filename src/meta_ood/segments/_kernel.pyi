import numpy as np
import numpy.typing as npt

def label(
    mask: npt.NDArray[np.uint8], labels: npt.NDArray[np.int32], parent: npt.NDArray[np.int32]
) -> int: ...
def accumulate(
    labels: npt.NDArray[np.int32],
    pixels: npt.NDArray[np.int64],
    maps: npt.NDArray[np.float32],
    probabilities: npt.NDArray[np.float32],
    sums: npt.NDArray[np.float64],
    inner_sums: npt.NDArray[np.float64],
    class_sums: npt.NDArray[np.float64],
    box: npt.NDArray[np.int32],
) -> None: ...
def neighbours(
    labels: npt.NDArray[np.int32],
    pixels: npt.NDArray[np.int64],
    arg_max: npt.NDArray[np.uint8],
    counts: npt.NDArray[np.int64],
) -> None: ...
def contacts(
    labels: npt.NDArray[np.int32],
    pixels: npt.NDArray[np.int64],
    others: npt.NDArray[np.int32],
    pairs: npt.NDArray[np.int64],
) -> int: ...
