"""Fused similarity of two blocks of a matrix that is larger than memory: what a task of ``pipeline.block_join`` asks.

The rows of a block are judged and no two of all blocks have the same bits; who cuts the blocks has seen to both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pycurate import _core
from pycurate.kernels import gpu_blocks, gpu_grid
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

UNKNOWN = object()

__all__ = ["OPERAND_ROW_BYTES", "SAMPLE_ROWS", "UNKNOWN", "BlockPair", "LeftBlock", "lowest_of_component"]


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
    screening: Any = UNKNOWN
    """How rows are screened, as another block of the same rows found out; unknown: found out at the first question."""
    _operand: Any = field(default=None, init=False)

    @property
    def kernels(self) -> JoinKernels:
        """The compiled functions that take its operands."""
        return kernels_on(self.device, in_blocks=self._in_blocks)

    @cached_property
    def _in_blocks(self) -> bool:
        """Whether several GPUs share the pairs, or one has no room for two such blocks."""
        gpus = self.device
        return gpus is not None and (len(gpus) > 1 or not gpu_grid.fits([self.rows, self.rows], gpus[0]))

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
            self.screening,
        )
        if self._operand is not None:
            part._operand = part.operand_of(part.rows)
        return part

    def operands(self, right: NDArray[Any] | None, limit: float | None, neighbors: int | None) -> tuple[Any, Any]:
        """This block and another as the kernels take them; ``limit`` or ``neighbors`` as in `screening_of`."""
        if self.screening is UNKNOWN:
            self.screening = self._screening_of(limit, neighbors)
        if self._operand is None:
            self._operand = self.operand_of(self.rows)
        return self._operand, None if right is None else self.operand_of(right)

    def _screening_of(self, limit: float | None, neighbors: int | None) -> Any:
        if self.metric != "cosine" or self.precision != "exact" or not len(self.rows) or not len(self.sample):
            return None
        places = np.arange(self.compared) * len(self.sample) // self.compared
        others = (self.sample, self.element, places)
        if self.device is not None:  # that of all rows, which the blocks of a join share
            return cuda_screening_of([others], limit, neighbors, self.threads)
        return screening_of(
            [(self.rows, self.element, np.arange(len(self.rows))), others], limit, neighbors, self.threads
        )

    def operand_of(self, rows: NDArray[Any]) -> Any:
        """Rows, prepared to be compared with this block."""
        if self.device is not None:
            there: Any
            if self._in_blocks:
                there = gpu_blocks.Matrix(rows, self.element, self.device)
            else:
                there = cuda_kernels().Matrix.upload(rows, self.element, self.device[0])
            return self.kernels.Operand(there, None, self.metric, self.precision, self.screening)
        return _core.fused_similarity.Operand(
            rows, self.element, None, self.metric, self.screening, self.precision, self.threads
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
