import numpy as np
import numpy.typing as npt

INSTRUCTION_SETS: tuple[str, ...]
BEST: int

def instruction_set() -> str: ...
def use_instruction_set(name: str | None = None) -> None: ...
def scratch_size(classes: int, columns: int) -> int: ...
def reduce(
    logits: npt.NDArray[np.float32],
    low: npt.NDArray[np.int32],
    high: npt.NDArray[np.int32],
    weight: npt.NDArray[np.float32],
    left: npt.NDArray[np.int32],
    right: npt.NDArray[np.int32],
    share: npt.NDArray[np.float32],
    is_softmax: bool,
    entropy_scale: float,
    scratch: npt.NDArray[np.float32],
    entropy: npt.NDArray[np.float32] | None,
    first: npt.NDArray[np.float32] | None,
    second: npt.NDArray[np.float32] | None,
    max_logit: npt.NDArray[np.float32] | None,
    log_sum_exp: npt.NDArray[np.float32] | None,
    generalised: npt.NDArray[np.float32] | None,
    arg_max: npt.NDArray[np.uint8] | None,
) -> bool: ...
