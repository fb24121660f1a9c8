from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

_Starts: TypeAlias = NDArray[np.uint64]
_Indices: TypeAlias = NDArray[np.unsignedinteger[Any]]  # uint32 or uint64
_Floats: TypeAlias = NDArray[np.float32]
_Doubles: TypeAlias = NDArray[np.float64]

block_rows: int  # rows whose change is one number
width_step: int  # columns of dense values are a multiple of it

# Rows are compressed; of indptr only differences count. `indices` are checked nowhere but in first_misplaced.

def first_misplaced(indptr: _Starts, indices: _Indices) -> int | None:
    """The first row of a whole graph that has a falling indptr or an index that is no row."""

def prepared(
    indptr: _Starts, indices: _Indices, values: _Floats, first_row: int, both_ways: bool, threads: int
) -> tuple[_Starts, _Indices, _Floats] | int:
    """Edges of each row in rising order, loops left out; both ways, for all rows: W + its transpose. A row that names a
    neighbour twice, counted from the first, where there is one."""

def transposed(indptr: _Starts, indices: _Indices, values: _Floats) -> tuple[_Starts, _Indices, _Floats]: ...
def row_sums(indptr: _Starts, indices: _Indices, values: _Floats, threads: int) -> _Doubles: ...
def add_column_sums(indptr: _Starts, indices: _Indices, values: _Floats, sums: _Doubles) -> None: ...
def scaled_float(
    indptr: _Starts, indices: _Indices, values: _Floats, left: _Doubles, right: _Doubles, threads: int
) -> _Floats:
    """values[e] left[row] right[index], the product in float64."""

def scaled_double(
    indptr: _Starts, indices: _Indices, values: _Floats, left: _Doubles, right: _Doubles, threads: int
) -> _Doubles: ...
def sweep_dense(
    indptr: _Starts,
    indices: _Indices,
    values: NDArray[Any],
    first_row: int,
    seeds: _Starts | None,
    seed_labels: NDArray[np.uint32] | None,
    seed_values: NDArray[Any] | None,
    clamped: NDArray[np.uint8] | None,
    state: NDArray[Any],
    previous: NDArray[Any] | None,
    out: NDArray[Any],
    alpha: float,
    omega: float,
    threads: int,
) -> _Doubles:
    """float32 or float64 throughout. (blocks,) sums of |alpha W state + seeds - state|."""

def sweep_top(
    indptr: _Starts,
    indices: _Indices,
    values: _Floats,
    first_row: int,
    seeds: _Starts | None,
    seed_labels: NDArray[np.uint32] | None,
    seed_values: _Floats | None,
    clamped: NDArray[np.uint8] | None,
    state: NDArray[np.void],
    out: NDArray[np.void],
    labels: int,
    alpha: float,
    threads: int,
) -> _Doubles: ...
def cg_product(
    indptr: _Starts,
    indices: _Indices,
    values: _Floats,
    clamped: NDArray[np.uint8] | None,
    direction: _Floats,
    product: _Floats,
    alpha: float,
    threads: int,
) -> _Doubles:
    """(width,) direction . product of each column."""

def cg_step(
    x: _Floats, residual: _Floats, direction: _Floats, product: _Floats, step: _Floats, threads: int
) -> tuple[_Doubles, _Doubles]:
    """(width,) squares of the residuals, and (blocks,) sums of their sizes."""

def cg_turn(residual: _Floats, ratio: _Floats, direction: _Floats, threads: int) -> None: ...
