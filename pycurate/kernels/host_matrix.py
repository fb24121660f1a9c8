"""Rows that stay in the CPU's memory though GPUs compare them, a block of them there at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pycurate import _core

Integers = NDArray[np.int64]

__all__ = ["HostMatrix"]

_GATHERED_BYTES = 1 << 26


class HostMatrix:
    """(n, d) rows with what ``_core_cuda.Matrix`` says of those in a GPU's memory."""

    def __init__(self, array: NDArray[Any], element: Any) -> None:
        self.array, self.element = array, element

    @property
    def shape(self) -> tuple[int, int]:
        return self.array.shape[0], self.array.shape[1]

    def copies(self) -> Integers:
        """(n,) the lowest row with the same bits, -1 of the first."""
        return _core.fused_similarity.copies(self.array, self.element, 0)

    def take(self, rows: Integers) -> NDArray[Any]:
        """Some rows, copied."""
        return self.array[rows]

    def self_products(self) -> NDArray[np.float64]:
        """(n,) canonical squared norms, NaN where they are not finite."""
        result = np.empty(len(self.array))
        step = self.rows_at_a_time()
        for begin in range(0, len(result), step):
            part = self.array[begin : begin + step]
            found = _core.rowwise.score_pairs(
                part, part, self.element, "inner_product", False, None, None, None, None, 0
            )
            result[begin : begin + step] = found[0]
        return result

    def rows_at_a_time(self) -> int:
        """As many as are gathered, twice, in 64 MiB."""
        return max(1, _GATHERED_BYTES // max(1, 2 * self.shape[1] * self.array.itemsize, 1024))
