import numpy as np
from numpy.typing import NDArray

def count_digit(
    values: NDArray[np.float32] | NDArray[np.float64], digit: int, prefix: int, mask: NDArray[np.bool_] | None
) -> NDArray[np.int64]: ...
def count_uid_digit(
    uids: NDArray[np.uint64], digit: int, prefix_high: int, prefix_low: int, mask: NDArray[np.bool_] | None
) -> NDArray[np.int64]: ...
