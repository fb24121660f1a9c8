from typing import Any

import numpy as np
from numpy.typing import NDArray

def summarise(
    pred_probs: NDArray[Any], labels: NDArray[np.int64], bounds: NDArray[np.float64], threads: int
) -> tuple[
    NDArray[np.float64],
    NDArray[np.float64],
    NDArray[np.int32],
    NDArray[np.int32],
    NDArray[np.float64],
    NDArray[np.float64],
]: ...
def entropies(pred_probs: NDArray[Any], threads: int) -> NDArray[np.float64]: ...
def self_probabilities(pred_probs: NDArray[Any], labels: NDArray[np.int64], threads: int) -> NDArray[np.float64]: ...
def add_class_sums(
    self: NDArray[np.float64],
    labels: NDArray[np.int64],
    sums: NDArray[np.float64],
    rests: NDArray[np.float64],
    counts: NDArray[np.int64],
) -> None: ...

class MarginCandidates:
    def __init__(self, offsets: NDArray[np.int64], columns: NDArray[np.int32], wanted: NDArray[np.int64]) -> None: ...
    def add(self, pred_probs: NDArray[Any], labels: NDArray[np.int64], first: int, threads: int) -> None: ...
    def rows(self) -> NDArray[np.int64]: ...
