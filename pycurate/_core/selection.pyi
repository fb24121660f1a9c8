from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

_Weights: TypeAlias = NDArray[np.float64] | None
_Allowed: TypeAlias = NDArray[np.bool_] | None
_Names: TypeAlias = NDArray[np.uint32] | None
_Progress: TypeAlias = Callable[[float], object] | None

# Of all: covered (n,) float32 and representative (n,) uint32 are what the chosen candidates have done for the rows, and
# change in greedy and cover; 0xffffffff is no candidate.

class Columns:
    """Candidates as columns of a sparse matrix, built from blocks of its rows in order: ``count`` all, ``place`` all.

    A block: ends (m,) of the edges of each row, columns and similarities (e,), selves (m,) the column that is the row
    itself and its self_similarities (m,); 0xffffffff is no column."""

    def __init__(self, count: int, rows: int) -> None: ...
    def count(
        self,
        ends: NDArray[np.uint64],
        columns: NDArray[np.uint32],
        similarities: NDArray[np.float32],
        selves: NDArray[np.uint32],
        self_similarities: NDArray[np.float32],
    ) -> None: ...
    def place(
        self,
        ends: NDArray[np.uint64],
        columns: NDArray[np.uint32],
        similarities: NDArray[np.float32],
        selves: NDArray[np.uint32],
        self_similarities: NDArray[np.float32],
    ) -> None: ...
    def gains(
        self,
        covered: NDArray[np.float32],
        representative: NDArray[np.uint32],
        weights: _Weights,
        allowed: _Allowed,
        threads: int,
    ) -> NDArray[np.float64]:
        """(count,) -1 where not allowed."""

    def greedy(
        self,
        covered: NDArray[np.float32],
        representative: NDArray[np.uint32],
        weights: _Weights,
        start: NDArray[np.float64],
        names: _Names,
        k: int,
        progress: _Progress,
    ) -> tuple[NDArray[np.uint32], NDArray[np.float64], int]:
        """At most k candidates in the order picked, their gains, and how many gains were computed anew. ``start``: of
        ``gains``, changed."""

    def cover(
        self,
        chosen: NDArray[np.uint32],
        names: _Names,
        covered: NDArray[np.float32],
        representative: NDArray[np.uint32],
    ) -> None: ...
    def count_better(self, chosen: NDArray[np.uint32], covered: NDArray[np.float32]) -> NDArray[np.int32]:
        """(n,) how many of the chosen are more similar than ``covered``."""

def add_gains(
    ends: NDArray[np.uint64],
    columns: NDArray[np.uint32],
    similarities: NDArray[np.float32],
    selves: NDArray[np.uint32],
    self_similarities: NDArray[np.float32],
    first_row: int,
    covered: NDArray[np.float32],
    weights: _Weights,
    gains: NDArray[np.float64],
) -> None:
    """``gains`` (count,) grow by those of a block's entries: of all blocks in order, the bits of ``Columns.gains``."""

def dense_gains(
    similarities: NDArray[np.float32],
    covered: NDArray[np.float32],
    representative: NDArray[np.uint32],
    weights: _Weights,
    allowed: _Allowed,
    negative: bool,
    threads: int,
) -> tuple[NDArray[np.float64], int]:
    """Of candidates (count, n), and the lowest with a similarity that is not finite or, unless ``negative``, below 0;
    -1 without one."""

def dense_greedy(
    similarities: NDArray[np.float32],
    covered: NDArray[np.float32],
    representative: NDArray[np.uint32],
    weights: _Weights,
    start: NDArray[np.float64],
    names: _Names,
    k: int,
    progress: _Progress,
) -> tuple[NDArray[np.uint32], NDArray[np.float64], int]: ...
def dense_cover(
    similarities: NDArray[np.float32],
    chosen: NDArray[np.uint32],
    names: _Names,
    covered: NDArray[np.float32],
    representative: NDArray[np.uint32],
) -> None: ...
def objective(covered: NDArray[np.float32], representative: NDArray[np.uint32], weights: _Weights) -> float: ...
