"""A matrix of embeddings with the name of its element type: what the functions of this package hand to one another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pycurate.errors import InputError
from pycurate.kernels.arrays import matrix_of
from pycurate.kernels.rowwise import A_NOT_FINITE, A_ZERO, Metric, convert, row_statistics

METRICS = ("cosine", "inner_product", "l2")
BLOCK_BYTES = 32 << 20
"""Rows are widened and gathered in blocks of about this size, so that a matrix larger than memory can be read."""


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """(n, d) embeddings. bfloat16 is held as uint16 bits; ``element`` says which they are."""

    values: NDArray[Any]
    element: str

    @classmethod
    def of(cls, name: str, x: object, dtype: str | None = None) -> Rows:
        """``x`` after a check of type, dtype and shape (see `pycurate.kernels.arrays`); copies nothing.

        ``name`` is what errors call it.
        """
        return cls(*matrix_of(name, x, dtype))

    def __len__(self) -> int:
        return len(self.values)

    @property
    def dimension(self) -> int:
        """Elements of a row."""
        return int(self.values.shape[1])

    @property
    def dtype(self) -> Literal["bfloat16"] | None:
        """The argument ``dtype`` that kernels need to read ``values``."""
        return "bfloat16" if self.element == "bfloat16" else None

    def take(self, rows: NDArray[np.int64] | slice) -> Rows:
        """Some of the rows: a view for a slice, a copy for row numbers."""
        return Rows(self.values[rows], self.element)

    def prefix(self, dimension: int) -> Rows:
        """A view of the first coordinates of every row."""
        return Rows(self.values[:, :dimension], self.element)

    @property
    def block_rows(self) -> int:
        """Rows that are about ``BLOCK_BYTES`` as float32."""
        return max(1, BLOCK_BYTES // (4 * max(self.dimension, 1)))

    def blocks(self, times: int = 1) -> Iterator[tuple[int, Rows]]:
        """Consecutive rows, ``block_rows`` at a time or a multiple, with the row each block begins at."""
        step = times * self.block_rows
        for start in range(0, len(self), step):
            yield start, self.take(slice(start, start + step))

    def widened(self, threads: int | None = None) -> NDArray[np.float32]:
        """(n, d) float32, C order: a copy, which is exact, unless they are float32 already."""
        if self.element == "float32":
            return np.ascontiguousarray(self.values)
        if self.element == "int8":
            return self.values.astype(np.float32)
        return convert(self.values, "float32", threads=threads, dtype=self.dtype)

    def units(self, threads: int | None = None) -> NDArray[np.float32]:
        """(n, d) float32 copies divided by their canonical norms, which must be finite; zero rows stay zero."""
        norms = row_statistics(self.values, threads=threads, dtype=self.dtype).norms
        lengths = np.where(norms > 0, norms, np.float32(1)).astype(np.float32)
        scaled: NDArray[np.float32] = self.widened(threads) / lengths[:, None]
        return scaled

    def judged(self, metric: Metric, threads: int | None = None) -> NDArray[np.bool_]:
        """(n,) rows with a finite squared norm, and for cosine not of length 0: those that have similarities."""
        unjudged = A_NOT_FINITE | A_ZERO if metric == "cosine" else A_NOT_FINITE
        found = np.empty(len(self), np.bool_)
        for start, block in self.blocks():
            flags = row_statistics(block.values, threads=threads, dtype=self.dtype).flags
            found[start : start + len(block)] = (flags & unjudged) == 0
        return found


def same_element(a: Rows, b: Rows, threads: int | None = None) -> tuple[Rows, Rows]:
    """Both as one element type: float16 and bfloat16 next to another float type become float32, which is exact.

    Raises
    ------
    InputError
        One is int8 and the other is not: their scales are unrelated.
    """
    if a.element == b.element:
        return a, b
    if "int8" in (a.element, b.element):
        raise InputError(
            f"queries: expected {b.element} to match the rows searched, got {a.element}; int8 rows are compared with "
            "int8 only, so quantise or widen one side on purpose"
        )
    return Rows(a.widened(threads), "float32"), Rows(b.widened(threads), "float32")


def check_metric(metric: str) -> None:
    """InputError unless it is cosine, inner_product or l2."""
    if metric not in METRICS:
        raise InputError(f"metric: expected one of {', '.join(METRICS)}, got {metric!r}")


def check_count(name: str, value: int, least: int = 1) -> None:
    """InputError unless a whole number of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise InputError(f"{name}: expected a whole number of at least {least}, got {value!r}")
