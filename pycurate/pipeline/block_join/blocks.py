"""How rows are cut into blocks under a memory cap, and the order in which pairs of blocks are compared."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pycurate.errors import MemoryCapError
from pycurate.kernels.block_similarity import OPERAND_ROW_BYTES, SAMPLE_ROWS
from pycurate.pipeline.block_join.source import READ_BYTES, Indices, RowSource

ROW_BYTES = 128
"""Held for every row of the matrix, whatever the question: hashes, copies, groups, ranks, the answer."""
LEAST_BLOCK_ROWS = 64
MOST_BLOCK_ROWS = 1 << 18
"""A task of so many rows a side takes minutes, which is what a killed run loses; preparing them is 5 to 10 % of it."""
MOST_BLOCK_ROWS_ON_GPU = 1 << 20
"""Half a second on an H100, about what it takes to read them."""
_LEAST_PAIR_BYTES = 8 << 20
_PAIR_BYTES = 80
"""A pair takes 20 bytes; in the kernel twice that while it is sorted, and as much again on its way to the disk."""


@dataclass(frozen=True, slots=True)
class BlockPlan:
    """What fits under a cap."""

    block_rows: int
    most_pairs: int  # of one call of a kernel, and of one step of a merge
    fitting_rows: int = 0  # of a block, where an earlier run chose more than ``block_rows``


def plan_blocks(
    memory_bytes: int, rows: int, d: int, row_bytes: int, state_bytes: int, *, on_gpu: bool = False
) -> BlockPlan:
    """Two blocks, prepared, and the pairs of one call fit in ``memory_bytes``, beside what is held for every row.

    memory = 128 rows + samples + 16 MiB + pairs + 2 block_rows (row_bytes + d + 576 + state_bytes). The samples decide
    how to screen: 12 d (1,024 + 16 sqrt(block_rows)) and 2,048 row_bytes. 16 MiB are for a piece that is being read,
    and pairs have an eighth of what these leave, at least 8 MiB. For a GPU nothing is prepared here, but a third block
    is read while two are compared: block_rows (3 row_bytes + 2 state_bytes).

    Parameters
    ----------
    memory_bytes
        What the join may allocate.
    rows
        Of both matrices.
    row_bytes
        Of a row as it is stored.
    state_bytes
        What the question holds for each row of a block.

    Raises
    ------
    MemoryCapError
        Less than 64 rows a block fit; says the least that is enough.
    """
    most_rows = MOST_BLOCK_ROWS_ON_GPU if on_gpu else MOST_BLOCK_ROWS
    sampled_rows = 1024 + 16 * math.isqrt(min(rows, most_rows))
    fixed = rows * ROW_BYTES + 12 * d * sampled_rows + SAMPLE_ROWS * row_bytes + READ_BYTES
    per_row = 2 * state_bytes + (3 * row_bytes if on_gpu else 2 * (row_bytes + d + OPERAND_ROW_BYTES))
    left = memory_bytes - fixed
    pair_bytes = max(_LEAST_PAIR_BYTES, left // 8)
    block_rows = (left - pair_bytes) // per_row
    if block_rows < LEAST_BLOCK_ROWS:
        least = fixed + _LEAST_PAIR_BYTES + LEAST_BLOCK_ROWS * per_row
        raise MemoryCapError(
            f"memory_bytes: expected enough for two blocks of {LEAST_BLOCK_ROWS} rows beside {ROW_BYTES} bytes for "
            f"each of {rows:,} rows, got too little; give {-(-(least - memory_bytes) >> 20):,} MiB more"
        )
    return BlockPlan(min(block_rows, most_rows), pair_bytes // _PAIR_BYTES, block_rows)


@dataclass(frozen=True, slots=True, eq=False)
class Blocks:
    """Some rows of a source, cut."""

    source: RowSource
    rows: Indices  # rising
    block_rows: int

    def __len__(self) -> int:
        return -(-len(self.rows) // self.block_rows)

    def span(self, block: int) -> slice:
        """Which of ``rows`` a block has."""
        return slice(block * self.block_rows, min((block + 1) * self.block_rows, len(self.rows)))

    def size(self, block: int) -> int:
        """Rows of a block."""
        span = self.span(block)
        return int(span.stop - span.start)

    def sample(self, count: int) -> NDArray[Any]:
        """At most ``count`` rows, evenly spaced."""
        places = np.linspace(0, len(self.rows) - 1, min(count, len(self.rows))).astype(np.int64)
        return self.source.take(self.rows[places])

    def read(self, block: int) -> NDArray[Any]:
        """The rows of a block, in memory."""
        return self.source.take(self.rows[self.span(block)])


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """Pairs of blocks: every left one with every right one, or without right every two of the left and each with
    itself. Row by row, so that the left block of a row is read once."""

    left: Blocks
    right: Blocks | None

    def tasks(self) -> Iterator[tuple[int, int]]:
        """(i, j) in order; i <= j where there is no right."""
        for i in range(len(self.left)):
            for j in range(i if self.right is None else 0, self.columns):
                yield i, j

    @property
    def columns(self) -> int:
        """Blocks of the right."""
        return len(self.left if self.right is None else self.right)

    def similarities(self, i: int, j: int) -> int:
        """How many pairs of rows a task compares."""
        if self.right is None and i == j:
            return self.left.size(i) * (self.left.size(i) - 1) // 2
        return self.left.size(i) * (self.right or self.left).size(j)

    def read_right(self, i: int, j: int) -> NDArray[Any] | None:
        """The rows of the right block; None where a block is compared with itself."""
        if self.right is None:
            return None if i == j else self.left.read(j)
        return self.right.read(j)
