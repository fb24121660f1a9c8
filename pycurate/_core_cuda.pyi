from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

_Floats = NDArray[np.float32]
_Integers = NDArray[np.int64]
_Progress = Callable[[float], object] | None

most_neighbors: int

class Matrix:
    @staticmethod
    def upload(x: NDArray[Any], element: str, device: int, rows: _Integers | None = None) -> Matrix: ...
    @staticmethod
    def lend(capsule: Any, name: str) -> Matrix: ...
    @staticmethod
    def lend_array(owner: Any, name: str) -> Matrix: ...
    @property
    def shape(self) -> tuple[int, int]: ...
    @property
    def element(self) -> str: ...
    @property
    def device(self) -> int: ...
    def copies(self) -> _Integers: ...
    def take(self, rows: _Integers) -> NDArray[Any]: ...
    def self_products(self) -> NDArray[np.float64]: ...

class Screening:
    def __init__(self, projection: _Floats, norm: float, centroids: _Floats) -> None: ...

class Operand:
    def __init__(
        self, x: object, rows: _Integers | None, metric: str, precision: str, screening: Screening | None
    ) -> None: ...
    @property
    def n(self) -> int: ...
    @property
    def d(self) -> int: ...
    @property
    def nbytes(self) -> int: ...

class GraphValues:
    def __init__(self, rows: int, columns: int, dtype: np.dtype[Any], device: int) -> None: ...
    def write(self, array: NDArray[Any], first: int) -> None: ...
    def read(self, array: NDArray[Any], first: int) -> None: ...

class GraphRows:
    def __init__(
        self,
        indptr: NDArray[np.uint64],
        indices: NDArray[Any],
        values: NDArray[Any],
        first_row: int,
        seeds: NDArray[np.uint64] | None,
        seed_labels: NDArray[np.uint32] | None,
        seed_values: NDArray[Any] | None,
        clamped: NDArray[np.uint8] | None,
        labels: int,
        device: int,
    ) -> None: ...
    def sweep_dense(
        self, state: GraphValues, previous: GraphValues | None, out: GraphValues, alpha: float, omega: float
    ) -> NDArray[np.float64]: ...
    def sweep_top(self, state: GraphValues, out: GraphValues, alpha: float) -> NDArray[np.float64]: ...
    def cg_product(self, direction: GraphValues, product: GraphValues, alpha: float) -> NDArray[np.float64]: ...
    def cg_step(
        self,
        x: GraphValues,
        residual: GraphValues,
        direction: GraphValues,
        product: GraphValues,
        step: _Floats,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]: ...
    def cg_turn(self, residual: GraphValues, ratio: _Floats, direction: GraphValues) -> None: ...

class Probabilities:
    @staticmethod
    def of_host(pred_probs: NDArray[Any], device: int) -> Probabilities: ...
    @staticmethod
    def lend(capsule: Any, name: str) -> Probabilities: ...
    def summarise(
        self, labels: _Integers, bounds: NDArray[np.float64]
    ) -> tuple[
        NDArray[np.float64],
        NDArray[np.float64],
        NDArray[np.int32],
        NDArray[np.int32],
        NDArray[np.float64],
        NDArray[np.float64],
    ]: ...
    def entropies(self) -> NDArray[np.float64]: ...
    def self_probabilities(self, labels: _Integers) -> NDArray[np.float64]: ...
    def host(self) -> NDArray[Any]: ...

def devices() -> list[Any]: ...
def free_bytes(device: int) -> int: ...
def device_of_pointer(at: int) -> int: ...
def versions() -> tuple[int, int]: ...
def score_pairs(
    a: Matrix,
    b: Matrix,
    metric: str,
    weights_a: _Floats | None,
    bias_a: _Floats | None,
    weights_b: _Floats | None,
    bias_b: _Floats | None,
) -> tuple[_Floats, _Floats, _Floats, NDArray[np.uint8], _Floats | None, _Floats | None]: ...
def measure_rows(
    x: Matrix, weights: _Floats | None, bias: _Floats | None
) -> tuple[_Floats, NDArray[np.uint8], _Floats | None]: ...
def pairs_above(
    a: Operand, b: Operand | None, threshold: float, max_pairs: int, threads: int, progress: _Progress
) -> tuple[_Integers, _Integers, _Floats] | None: ...
def forest_above(
    a: Operand, b: Operand | None, threshold: float, threads: int, progress: _Progress
) -> tuple[_Integers, _Integers]: ...
def spanning_forest_above(
    a: Operand, b: Operand | None, floor: float, threads: int, progress: _Progress
) -> tuple[_Integers, _Integers, _Floats]: ...
def count_above(
    a: Operand,
    b: Operand | None,
    threshold: float,
    weights_a: _Integers | None,
    weights_b: _Integers | None,
    threads: int,
    progress: _Progress,
) -> tuple[_Integers, _Integers | None]: ...
def max_earlier(
    a: Operand,
    b: Operand | None,
    rank_a: _Integers,
    rank_b: _Integers | None,
    floor: float,
    threads: int,
    progress: _Progress,
) -> tuple[_Integers, _Floats, _Integers | None, _Floats | None]: ...
def top_k(
    a: Operand, b: Operand | None, k: int, both: bool, threads: int, progress: _Progress
) -> tuple[_Integers, _Floats, _Integers | None, _Floats | None]: ...
def add_nearest(
    a: Operand, b: Operand | None, first_b: int, lists: NDArray[np.uint64], threads: int, progress: _Progress
) -> None: ...
def log_sum_exp(
    a: Operand, b: Operand, scale: float, threads: int, progress: _Progress
) -> tuple[NDArray[np.float64], NDArray[np.float64]]: ...
def last_work() -> dict[str, float]: ...
def screen_whole_rows(always: bool) -> None: ...
