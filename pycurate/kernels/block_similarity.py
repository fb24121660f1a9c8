"""Fused similarity of two blocks of a matrix that is larger than memory: what a task of ``pipeline.block_join`` asks.

The rows of a block are judged and no two of all blocks have the same bits; who cuts the blocks has seen to both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pycurate import _core
from pycurate.kernels.distinct import DistinctRows, Floats, Indices
from pycurate.kernels.join import Join, Precision, Side
from pycurate.kernels.rowwise import Metric

Progress: TypeAlias = Callable[[float], object] | None

OPERAND_ROW_BYTES = 576
"""Bytes a row that a prepared block takes beside one for each of its elements: 101 to 389 measured, d 16 to 1,024."""

__all__ = ["OPERAND_ROW_BYTES", "BlockPair", "lowest_of_component"]


class BlockPair(NamedTuple):
    """Two blocks to compare, or one with itself. Row numbers in answers are those within the blocks."""

    left: NDArray[Any]  # (a, d) elements of a row adjacent; bfloat16 as uint16
    right: NDArray[Any] | None  # (b, d); None: left with itself
    element: str
    metric: Metric
    precision: Precision
    threads: int

    def pairs_above(self, limit: float, max_pairs: int, progress: Progress) -> tuple[Indices, Indices, Floats] | None:
        """Rows, columns and similarities, sorted by (row, col); None where there are more than ``max_pairs``."""
        return _core.fused_similarity.pairs_above(
            *self._join().operands(limit=limit), limit, max_pairs, self.threads, progress
        )

    def forest_above(self, limit: float, progress: Progress) -> tuple[Indices, Indices]:
        """Edges (row, col) that span the components of the pairs at or above ``limit``."""
        return _core.fused_similarity.forest_above(*self._join().operands(limit=limit), limit, self.threads, progress)

    def count_above(
        self, limit: float, weights: tuple[Indices | None, Indices | None], progress: Progress
    ) -> tuple[Indices, Indices | None]:
        """Summed weights of the rows that each row of the left reaches, and of the right."""
        of_left, of_right = weights
        return _core.fused_similarity.count_above(
            *self._join().operands(limit=limit), limit, of_left, of_right, self.threads, progress
        )

    def max_earlier(
        self, ranks: tuple[Indices, Indices | None], floor: float, progress: Progress
    ) -> tuple[Indices, Floats, Indices | None, Floats | None]:
        """Rank and similarity of the most similar row of lower rank, for each row of the left, and of the right."""
        of_left, of_right = ranks
        return _core.fused_similarity.max_earlier(
            *self._join().operands(limit=floor), of_left, of_right, floor, self.threads, progress
        )

    def top_k(self, k: int, progress: Progress, *, both: bool) -> tuple[Indices, Floats, Indices | None, Floats | None]:
        """(a, k) the nearest rows of the right and their similarities; ``both``: and (b, k) those of the left."""
        return _core.fused_similarity.top_k(*self._join().operands(neighbors=k), k, both, self.threads, progress)

    def _join(self) -> Join:
        right = None if self.right is None else self._side(self.right)
        return Join(self._side(self.left), right, self.metric, self.precision, self.threads)

    def _side(self, rows: NDArray[Any]) -> Side:
        return Side(rows, self.element, DistinctRows(np.full(len(rows), -1, np.int64), np.empty(0, np.int64)))


def lowest_of_component(n: int, rows: Indices, cols: Indices) -> Indices:
    """(n,) lowest row of each row's connected component under the edges (rows[e], cols[e])."""
    return _core.fused_similarity.components(n, rows, cols)
