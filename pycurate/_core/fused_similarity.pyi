from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

_Metric: TypeAlias = Literal["cosine", "inner_product", "l2"]
_Element: TypeAlias = Literal["float32", "float16", "bfloat16", "int8"]
_Precision: TypeAlias = Literal["exact", "float32"]
_Progress: TypeAlias = Callable[[float], object] | None

class Screening:
    """What every operand of one problem shares so that their quantised rows can be compared: the metric, and where it
    pays principal-prefix stages and cluster centroids to order rows by. Decides speed only, never a result."""

    def __init__(
        self,
        projection: NDArray[np.float32],  # (p, d) rows orthonormal but for rounding; p = 0: no prefix stage
        stages: list[int],  # rising powers of two from 16 to p; may be empty
        norms: list[float],  # per stage the typical norm of a unit row's first coordinates, in (0, 1]
        centroids: NDArray[np.float32],  # (c, at most p) in the first coordinates; c = 0: rows keep their order
    ) -> None: ...

class Operand:
    """Rows, quantised and packed. Keeps a reference to ``x`` (read again to re-score) and copies nothing of it.

    ``rows``: rising row numbers of ``x`` that take part (None: all). Every one must be judged: finite squared norm, and
    for cosine not zero."""

    def __init__(
        self,
        x: NDArray[Any],  # (n, d), elements adjacent; bfloat16 as uint16
        element: _Element,
        rows: NDArray[np.int64] | None,
        metric: _Metric,
        screening: Screening | None,
        precision: _Precision,
        threads: int,
    ) -> None: ...
    @property
    def n(self) -> int: ...  # rows that take part
    @property
    def d(self) -> int: ...
    @property
    def nbytes(self) -> int: ...  # memory beyond x

def row_hashes(x: NDArray[Any], element: _Element, threads: int) -> NDArray[np.uint64]:
    """(n,) 64 bits that follow from the bytes of each row alone."""

def copies(x: NDArray[Any], element: _Element, threads: int) -> NDArray[np.int64]:
    """(n,) lowest row with the same bits, -1 for a row that is the first with its bits."""

# In all that follows b = None means a against itself: pairs i != j. Row numbers in results are rows of x, per-row
# results are in the order of `rows`.

def pairs_above(
    a: Operand, b: Operand | None, threshold: float, max_pairs: int, threads: int, progress: _Progress
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]] | None:
    """Pairs of canonical similarity >= threshold, sorted by (row, col), row < col in a self-join. None: more than
    max_pairs."""

def forest_above(
    a: Operand, b: Operand | None, threshold: float, threads: int, progress: _Progress
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Edges (row of a, row of b) that span the components of the pairs at or above the threshold; at most n - 1. Which
    edges is not defined, the components are."""

def spanning_forest_above(
    a: Operand, b: Operand | None, floor: float, threads: int, progress: _Progress
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Rows, columns and similarities of the heaviest spanning forest, heaviest first. Rows of b are other nodes."""

def heaviest_forest(
    n: int, rows: NDArray[np.int64], cols: NDArray[np.int64], similarities: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Those of the edges between n nodes that belong to their heaviest spanning forest, heaviest first, row < col."""

def count_above(
    a: Operand,
    b: Operand | None,
    threshold: float,
    weights_a: NDArray[np.int64] | None,  # (n,) what a row counts for; None: 1
    weights_b: NDArray[np.int64] | None,
    threads: int,
    progress: _Progress,
) -> tuple[NDArray[np.int64], NDArray[np.int64] | None]:
    """Per row of a, the summed weights of the rows it reaches; per row of b likewise (None in a self-join)."""

def max_earlier(
    a: Operand,
    b: Operand | None,
    rank_a: NDArray[np.int64],  # (n,) distinct over a and b, in [0, 2^32): lower is earlier
    rank_b: NDArray[np.int64] | None,
    floor: float,
    threads: int,
    progress: _Progress,
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64] | None, NDArray[np.float32] | None]:
    """Per row, the rank of the most similar row of lower rank with similarity >= floor (ties: the lowest rank) and
    the similarity; -1 and NaN where there is none. Of a, then of b (None in a self-join)."""

def top_k(
    a: Operand, b: Operand | None, k: int, both: bool, threads: int, progress: _Progress
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64] | None, NDArray[np.float32] | None]:
    """(n, k) row numbers and similarities, nearest first, ties to the lower row number; -1 and NaN beyond the last.
    ``both``: of the rows of b among those of a, too."""

def log_sum_exp(
    a: Operand, b: Operand, scale: float, threads: int, progress: _Progress
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """log of the sum of exp(scale * similarity) over each row, and over each column."""

def components(n: int, rows: NDArray[np.int64], cols: NDArray[np.int64]) -> NDArray[np.int64]:
    """(n,) lowest row of each row's connected component under the edges."""

def products(a: NDArray[np.float32], b: NDArray[np.float32], threads: int) -> NDArray[np.float32]:
    """(m, n) canonical sums of products of the rows of a (m, d) and of b (n, d)."""

def orthonormalise(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """(c, d) Gram-Schmidt basis of c <= d rows, computed in float64; rows in the span of those before are replaced."""

def last_work() -> dict[str, float]:
    """Of the last call in this process: tiles met, skipped and computed at each stage, operations on bytes (a
    multiply-add is two), pairs and tiles scored, processor seconds of preparing the operands."""

def peak_rate(kind: Literal["int8", "float32"], seconds: float) -> float:
    """Operations a second (a multiply-add is two) that one thread can do at most with the active instruction set; 0 for
    scalar."""
