"""Fused similarity of two blocks of a matrix that is larger than memory: what a task of ``pipeline.block_join`` asks.

The rows of a block are judged and no two of all blocks have the same bits; who cuts the blocks has seen to both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pycurate import _core
from pycurate.kernels import gpu_blocks
from pycurate.kernels.device import Place, cuda_kernels
from pycurate.kernels.distinct import Floats, Indices
from pycurate.kernels.join import JoinKernels, Precision, kernels_on
from pycurate.kernels.rowwise import Metric
from pycurate.kernels.screening import cuda_screening_of, screening_of

Progress: TypeAlias = Callable[[float], object] | None

OPERAND_ROW_BYTES = 576
"""Bytes a row that a prepared block takes beside one for each of its elements: 101 to 389 measured, d 16 to 1,024."""
SAMPLE_ROWS = 2048
"""As many rows stand for all that a block is compared with where it is decided how to screen them."""

__all__ = ["OPERAND_ROW_BYTES", "SAMPLE_ROWS", "BlockPair", "LeftBlock", "lowest_of_component"]


@dataclass(eq=False)
class LeftBlock:
    """A block that one question compares with others, prepared at the first and for all of them."""

    rows: NDArray[Any]  # (a, d) elements of a row adjacent; bfloat16 as uint16
    element: Any
    metric: Metric
    precision: Precision
    threads: int
    sample: NDArray[Any]  # (s, d) some of all rows that it is compared with
    compared: int  # how many these are
    device: Place = None
    _screening: Any = field(default=None, init=False)
    _operand: Any = field(default=None, init=False)

    @property
    def kernels(self) -> JoinKernels:
        """The compiled functions that take its operands."""
        return kernels_on(self.device)

    def part(self, rows: slice) -> LeftBlock:
        """Some of the rows, to be prepared on their own but screened alike."""
        part = LeftBlock(
            self.rows[rows],
            self.element,
            self.metric,
            self.precision,
            self.threads,
            self.sample,
            self.compared,
            self.device,
        )
        part._screening = self._screening
        if self._operand is not None:
            part._operand = part.operand_of(part.rows)
        return part

    def operands(self, right: NDArray[Any] | None, limit: float | None, neighbors: int | None) -> tuple[Any, Any]:
        """This block and another as the kernels take them; ``limit`` or ``neighbors`` as in `screening_of`."""
        if self._operand is None:
            if self.metric == "cosine" and self.precision == "exact" and len(self.rows) and len(self.sample):
                places = np.arange(self.compared) * len(self.sample) // self.compared
                sides = [(self.rows, self.element, np.arange(len(self.rows))), (self.sample, self.element, places)]
                prepare = screening_of if self.device is None else cuda_screening_of
                self._screening = prepare(sides, limit, neighbors, self.threads)
            self._operand = self.operand_of(self.rows)
        return self._operand, None if right is None else self.operand_of(right)

    def operand_of(self, rows: NDArray[Any]) -> Any:
        """Rows, prepared to be compared with this block."""
        if self.device is not None:
            there: Any
            if len(self.device) > 1:
                there = gpu_blocks.Matrix(rows, self.element, self.device)
            else:
                there = cuda_kernels().Matrix.upload(rows, self.element, self.device[0])
            return self.kernels.Operand(there, None, self.metric, self.precision, self._screening)
        return _core.fused_similarity.Operand(
            rows, self.element, None, self.metric, self._screening, self.precision, self.threads
        )


@dataclass(frozen=True, eq=False)
class BlockPair:
    """Two blocks to compare, or one with itself. Row numbers in answers are those within the blocks."""

    left: LeftBlock
    right: NDArray[Any] | None  # (b, d); None: left with itself

    def pairs_above(self, limit: float, max_pairs: int, progress: Progress) -> tuple[Indices, Indices, Floats] | None:
        """Rows, columns and similarities, sorted by (row, col); None where there are more than ``max_pairs``."""
        operands = self.left.operands(self.right, limit, None)
        return self.left.kernels.pairs_above(*operands, limit, max_pairs, self.left.threads, progress)

    def forest_above(self, limit: float, progress: Progress) -> tuple[Indices, Indices]:
        """Edges (row, col) that span the components of the pairs at or above ``limit``."""
        operands = self.left.operands(self.right, limit, None)
        return self.left.kernels.forest_above(*operands, limit, self.left.threads, progress)

    def spanning_forest_above(self, floor: float, progress: Progress) -> tuple[Indices, Indices, Floats]:
        """The heaviest spanning forest of the pairs: edges (row, col) and their similarities, heaviest first."""
        operands = self.left.operands(self.right, floor, None)
        return self.left.kernels.spanning_forest_above(*operands, floor, self.left.threads, progress)

    def count_above(
        self, limit: float, weights: tuple[Indices | None, Indices | None], progress: Progress
    ) -> tuple[Indices, Indices | None]:
        """Summed weights of the rows that each row of the left reaches, and of the right."""
        operands = self.left.operands(self.right, limit, None)
        return self.left.kernels.count_above(*operands, limit, *weights, self.left.threads, progress)

    def max_earlier(
        self, ranks: tuple[Indices, Indices | None], floor: float, progress: Progress
    ) -> tuple[Indices, Floats, Indices | None, Floats | None]:
        """Rank and similarity of the most similar row of lower rank, for each row of the left, and of the right."""
        operands = self.left.operands(self.right, floor, None)
        return self.left.kernels.max_earlier(*operands, *ranks, floor, self.left.threads, progress)

    def top_k(self, k: int, progress: Progress, *, both: bool) -> tuple[Indices, Floats, Indices | None, Floats | None]:
        """(a, k) the nearest rows of the right and their similarities; ``both``: and (b, k) those of the left."""
        operands = self.left.operands(self.right, None, k)
        return self.left.kernels.top_k(*operands, k, both, self.left.threads, progress)


def lowest_of_component(n: int, rows: Indices, cols: Indices) -> Indices:
    """(n,) lowest row of each row's connected component under the edges (rows[e], cols[e])."""
    return _core.fused_similarity.components(n, rows, cols)
