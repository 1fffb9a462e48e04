import numpy as np
import numpy.typing as npt

def order(
    bits: npt.NDArray[np.int32],
    target: npt.NDArray[np.uint8],
    role: npt.NDArray[np.uint8],
    negative: npt.NDArray[np.uint32],
    positive: npt.NDArray[np.uint32],
) -> tuple[int, int, int, int, int, int]: ...
def count(
    keys: npt.NDArray[np.uint32], start: npt.NDArray[np.int64], shift: npt.NDArray[np.uint8], row: npt.NDArray[np.int64]
) -> int: ...
def add_keys(
    listed: npt.NDArray[np.uint32],
    listed_counts: npt.NDArray[np.int64],
    keys: npt.NDArray[np.uint32],
    counts: npt.NDArray[np.int64],
    start: npt.NDArray[np.int64],
    shift: npt.NDArray[np.uint8],
    rows: npt.NDArray[np.int64],
    new_keys: npt.NDArray[np.uint32],
    new_counts: npt.NDArray[np.int64],
) -> int: ...
def add_rows(
    pages: npt.NDArray[np.int64],
    starts: npt.NDArray[np.int64],
    rows: npt.NDArray[np.int64],
    finer: npt.NDArray[np.uint8],
    start: npt.NDArray[np.int64],
    total: npt.NDArray[np.int64],
) -> None: ...
