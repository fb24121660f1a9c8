from typing import Any

import numpy as np
from numpy.typing import NDArray

def score_pairs(
    a: NDArray[Any],
    b: NDArray[Any],
    element: str,
    metric: str,
    with_norms: bool,
    weights_a: NDArray[np.float32] | None,
    bias_a: NDArray[np.float32] | None,
    weights_b: NDArray[np.float32] | None,
    bias_b: NDArray[np.float32] | None,
    threads: int,
) -> tuple[Any, ...]: ...
def measure_rows(
    x: NDArray[Any],
    element: str,
    weights: NDArray[np.float32] | None,
    bias: NDArray[np.float32] | None,
    threads: int,
) -> tuple[Any, ...]: ...
def sum_by_cluster(
    x: NDArray[np.float32],
    lengths: NDArray[np.float64] | None,
    cluster: NDArray[np.int64],
    clusters: int,
    block_rows: int,
    threads: int,
) -> NDArray[np.float64]: ...
def convert_rows(x: NDArray[Any], element: str, to: str, threads: int) -> NDArray[Any]: ...
