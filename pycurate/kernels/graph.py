"""Sweeps of label propagation and what makes a graph's weights their matrix: compressed rows, dense or few labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pycurate._core import graph as _graph
from pycurate.kernels.arrays import thread_count_of

__all__ = [
    "BLOCK_ROWS",
    "LABELLED",
    "NO_LABEL",
    "WIDTH_STEP",
    "SeedRows",
    "SparseRows",
    "cg_product",
    "cg_step",
    "cg_turn",
    "is_symmetric",
    "seed_arrays",
    "sweep_dense",
    "sweep_top",
]

BLOCK_ROWS: int = _graph.block_rows
"""Rows whose change is one number of a sweep's answer: parts of a matrix begin at a multiple of it."""
WIDTH_STEP: int = _graph.width_step
"""Dense states have a multiple of this many columns."""
LABELLED = np.dtype([("label", "<u4"), ("value", "<f4")])
"""One label of a node and its value."""
NO_LABEL = np.uint32(0xFFFFFFFF)
"""The label of a place that holds none."""

Doubles = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class SparseRows:
    """Consecutive rows of a square matrix, or all of them.

    Attributes
    ----------
    indptr
        (rows + 1,) uint64, rising; only differences count, so that a slice of a longer one will do.
    indices
        (e,) uint32 or uint64, C order, each the number of a row of the whole.
    values
        (e,) float32 or float64.
    first_row
        Number of the first row among all.
    """

    indptr: NDArray[np.uint64]
    indices: NDArray[np.unsignedinteger[Any]]
    values: NDArray[Any]
    first_row: int = 0

    @classmethod
    def whole(
        cls, indptr: NDArray[np.uint64], indices: NDArray[np.unsignedinteger[Any]], values: NDArray[Any]
    ) -> SparseRows:
        """All rows, after a look at every index.

        Raises
        ------
        ValueError
            Names a row with an index that is no row, or where ``indptr`` falls.
        """
        if indptr.dtype != np.uint64 or indptr.ndim != 1 or len(indptr) < 1:
            raise ValueError(f"indptr: expected (rows + 1,) uint64, got {indptr.ndim}-D {indptr.dtype}")
        if int(indptr[0]) != 0 or int(indptr[-1]) != len(indices) or len(indices) != len(values):
            raise ValueError(
                f"indptr: expected 0 to the number of edges, got {indptr[0]} to {indptr[-1]} for {len(indices)} "
                f"indices and {len(values)} values"
            )
        row = _graph.first_misplaced(np.ascontiguousarray(indptr), np.ascontiguousarray(indices))
        if row is not None:
            raise ValueError(
                f"indices: row {row} names a row that is not there, or indptr falls at it; expected 0 to "
                f"{len(indptr) - 2}"
            )
        return cls(np.ascontiguousarray(indptr), np.ascontiguousarray(indices), np.ascontiguousarray(values))

    def __len__(self) -> int:
        return len(self.indptr) - 1

    @property
    def _arrays(self) -> tuple[NDArray[np.uint64], NDArray[np.unsignedinteger[Any]], NDArray[Any]]:
        return self.indptr, self.indices, self.values

    def without_loops(self, *, both_ways: bool = False, threads: int | None = None) -> SparseRows:
        """Each row's float32 edges in rising order, loops left out; ``both_ways``, for all rows: W + Wᵀ.

        Raises
        ------
        ValueError
            A row names a neighbour twice.
        """
        made = _graph.prepared(*self._arrays, self.first_row, both_ways, thread_count_of(threads))
        if isinstance(made, int):
            raise ValueError(f"indices: row {self.first_row + made} names a neighbour twice; add up such edges first")
        return SparseRows(*made, self.first_row)

    def row_sums(self, threads: int | None = None) -> Doubles:
        """(rows,) float64 sums of each row's float32 values, in order."""
        return _graph.row_sums(*self._arrays, thread_count_of(threads))

    def add_column_sums(self, sums: Doubles) -> None:
        """Add each float32 value to the sum of its index, row after row; parts in order give what the whole gives."""
        _graph.add_column_sums(*self._arrays, sums)

    def scaled(self, left: Doubles, right: Doubles, dtype: str = "float32", threads: int | None = None) -> SparseRows:
        """diag(left) W diag(right): products of float64, rounded once.

        Parameters
        ----------
        left, right
            (rows,) and (all rows,) float64.
        dtype
            ``"float32"`` or ``"float64"``.
        """
        scale = _graph.scaled_double if dtype == "float64" else _graph.scaled_float
        values = scale(*self._arrays, left, right, thread_count_of(threads))
        return SparseRows(self.indptr, self.indices, values, self.first_row)


def is_symmetric(matrix: SparseRows) -> bool:
    """Whether a matrix of float32 values, all rows with rising indices, equals its transpose."""
    back = _graph.transposed(matrix.indptr, matrix.indices, matrix.values)
    return (
        np.array_equal(back[0], matrix.indptr)
        and np.array_equal(back[1], matrix.indices)
        and np.array_equal(back[2], matrix.values)
    )


@dataclass(frozen=True, slots=True, eq=False)
class SeedRows:
    """What a sweep adds to rows: a few labels and their values each.

    Attributes
    ----------
    indptr
        (rows + 1,) uint64; only differences count.
    labels
        (s,) uint32, each once in its row.
    values
        (s,) of the dtype of the state.
    clamped
        None, or (rows,) uint8: rows that are what is added, whatever their neighbours are.
    """

    indptr: NDArray[np.uint64]
    labels: NDArray[np.uint32]
    values: NDArray[Any]
    clamped: NDArray[np.uint8] | None = None

    def part(self, first: int, last: int) -> SeedRows:
        """Some consecutive rows: views."""
        begin, end = int(self.indptr[first]), int(self.indptr[last])
        clamped = None if self.clamped is None else self.clamped[first:last]
        return SeedRows(self.indptr[first : last + 1], self.labels[begin:end], self.values[begin:end], clamped)


def sweep_dense(
    matrix: SparseRows,
    seeds: SeedRows | None,
    state: NDArray[Any],
    out: NDArray[Any],
    *,
    alpha: float,
    omega: float = 1.0,
    previous: NDArray[Any] | None = None,
    threads: int | None = None,
) -> Doubles:
    """One sweep: out = omega (alpha W state + seeds - previous) + previous, or what is in brackets without previous.

    Parameters
    ----------
    matrix, seeds
        Of the rows that are made, of the dtype of ``state``.
    state
        (all rows, width) float32 or float64, C order, width a multiple of ``WIDTH_STEP``.
    out, previous
        (rows, width); may be one array.

    Returns
    -------
    (blocks,) float64
        For each ``BLOCK_ROWS`` rows the sum of \\|alpha W state + seeds - state\\|.

    Raises
    ------
    TypeError, ValueError
        A dtype or shape is not as above.
    KeyboardInterrupt
        Ctrl-C; ``out`` is then partly written.
    """
    return _graph.sweep_dense(
        *matrix._arrays,
        matrix.first_row,
        *seed_arrays(seeds),
        state,
        previous,
        out,
        alpha,
        omega,
        thread_count_of(threads),
    )


def sweep_top(
    matrix: SparseRows,
    seeds: SeedRows | None,
    state: NDArray[np.void],
    out: NDArray[np.void],
    *,
    labels: int,
    alpha: float,
    threads: int | None = None,
) -> Doubles:
    """One sweep with the largest few values of each row: out = the largest of alpha W state + seeds.

    Parameters
    ----------
    state, out
        (all rows, L) and (rows, L) of ``LABELLED``: positive values, larger first, ties to the lower label, then
        ``NO_LABEL`` and 0.
    labels
        Labels are less than this; each thread holds 12 bytes of each.

    Returns, Raises
        As :func:`sweep_dense`.
    """
    return _graph.sweep_top(
        *matrix._arrays, matrix.first_row, *seed_arrays(seeds), state, out, labels, alpha, thread_count_of(threads)
    )


def cg_product(
    matrix: SparseRows,
    clamped: NDArray[np.uint8] | None,
    direction: NDArray[np.float32],
    product: NDArray[np.float32],
    alpha: float,
    threads: int | None = None,
) -> Doubles:
    """product = direction - alpha W direction, 0 in clamped rows; (width,) dot products of both, column by column."""
    return _graph.cg_product(*matrix._arrays, clamped, direction, product, alpha, thread_count_of(threads))


def cg_step(
    x: NDArray[np.float32],
    residual: NDArray[np.float32],
    direction: NDArray[np.float32],
    product: NDArray[np.float32],
    step: NDArray[np.float32],
    threads: int | None = None,
) -> tuple[Doubles, Doubles]:
    """x += step direction and residual -= step product, ``step`` (width,); squares by column, sizes by block."""
    return _graph.cg_step(x, residual, direction, product, step, thread_count_of(threads))


def cg_turn(
    residual: NDArray[np.float32],
    ratio: NDArray[np.float32],
    direction: NDArray[np.float32],
    threads: int | None = None,
) -> None:
    """direction = residual + ratio direction, ``ratio`` (width,)."""
    _graph.cg_turn(residual, ratio, direction, thread_count_of(threads))


def seed_arrays(seeds: SeedRows | None) -> tuple[Any, Any, Any, Any]:
    """``indptr``, ``labels``, ``values`` and ``clamped``, or None for each."""
    return (None, None, None, None) if seeds is None else (seeds.indptr, seeds.labels, seeds.values, seeds.clamped)
