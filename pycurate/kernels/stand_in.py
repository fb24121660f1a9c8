"""The questions of ``_core_cuda`` on the CPU: what tests ask in place of a GPU where there is none."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pycurate import _core
from pycurate.kernels.host_matrix import HostMatrix
from pycurate.kernels.neighbor_limit import MOST_NEIGHBORS
from pycurate.kernels.partial_answers import keys_of

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]

most_neighbors = MOST_NEIGHBORS


class Matrix(HostMatrix):
    """Rows that do as if they lay on a GPU."""

    def __init__(self, array: NDArray[Any], element: Any, device: int) -> None:
        super().__init__(array, element)
        self.device = device

    @classmethod
    def upload(cls, x: NDArray[Any], element: Any, device: int, rows: Integers | None = None) -> Matrix:
        """A copy, as a GPU has one."""
        return cls(np.array(x if rows is None else x[rows], order="C"), element, device)


class Operand:
    """As that of the CPU, of all rows or some."""

    def __init__(self, x: Matrix, rows: Integers | None, metric: Any, precision: Any, screening: None) -> None:
        self.x = x
        self.of_cpu = _core.fused_similarity.Operand(x.array, x.element, rows, metric, screening, precision, 0)


def free_bytes(device: int) -> int:
    """As many as there may be."""
    return 1 << 62


def measure_rows(x: Matrix, weights: Floats | None, bias: Floats | None) -> Any:
    """As the kernel of ``_core.rowwise``."""
    return _core.rowwise.measure_rows(x.array, x.element, weights, bias, 0)


def score_pairs(a: Matrix, b: Matrix, metric: str, *heads: Floats | None) -> Any:
    """As the kernel of ``_core.rowwise``."""
    of_a, of_b = heads[:2], heads[2:]
    return _core.rowwise.score_pairs(a.array, b.array, a.element, metric, True, of_a[0], of_a[1], of_b[0], of_b[1], 0)


def _both(a: Operand, b: Operand | None) -> tuple[Any, Any]:
    if b is not None and a.x.device != b.x.device:
        raise ValueError("b: expected an operand on the device of a")
    return a.of_cpu, None if b is None else b.of_cpu


def pairs_above(a: Operand, b: Operand | None, *how: Any) -> Any:
    """As that of ``_core.fused_similarity``."""
    return _core.fused_similarity.pairs_above(*_both(a, b), *how)


def forest_above(a: Operand, b: Operand | None, *how: Any) -> Any:
    """As that of ``_core.fused_similarity``."""
    return _core.fused_similarity.forest_above(*_both(a, b), *how)


def spanning_forest_above(a: Operand, b: Operand | None, *how: Any) -> Any:
    """As that of ``_core.fused_similarity``."""
    return _core.fused_similarity.spanning_forest_above(*_both(a, b), *how)


def count_above(a: Operand, b: Operand | None, *how: Any) -> Any:
    """As that of ``_core.fused_similarity``."""
    return _core.fused_similarity.count_above(*_both(a, b), *how)


def max_earlier(a: Operand, b: Operand | None, *how: Any) -> Any:
    """As that of ``_core.fused_similarity``."""
    return _core.fused_similarity.max_earlier(*_both(a, b), *how)


def log_sum_exp(a: Operand, b: Operand, *how: Any) -> Any:
    """As that of ``_core.fused_similarity``."""
    return _core.fused_similarity.log_sum_exp(*_both(a, b), *how)


def top_k(a: Operand, b: Operand | None, k: int, *how: Any) -> Any:
    """As that of ``_core.fused_similarity``, of as many as a GPU keeps."""
    if not 1 <= k <= most_neighbors:
        raise ValueError(f"k: expected 1 to {most_neighbors} on a GPU, got {k}")
    return _core.fused_similarity.top_k(*_both(a, b), k, *how)


def add_nearest(
    a: Operand, b: Operand | None, first_b: int, lists: NDArray[np.uint64], threads: int, progress: Any
) -> None:
    """As that of ``_core_cuda``: changes ``lists``, (n, k) of ``partial_answers.keys_of``, in place."""
    k = lists.shape[1]
    rows, similarities = top_k(a, b, k, False, threads, progress)[:2]
    merged = np.concatenate([lists, keys_of(np.where(rows < 0, -1, rows + first_b), similarities)], axis=1)
    merged.sort(axis=1)
    lists[:] = merged[:, : -k - 1 : -1]
