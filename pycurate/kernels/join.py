"""A problem of fused similarity: one or two matrices with checked arguments, ready for the kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pycurate import _core
from pycurate.errors import InputError
from pycurate.kernels import gpu_blocks, gpu_grid
from pycurate.kernels.arrays import matrix_of, require_option, thread_count_of
from pycurate.kernels.device import Place, cuda_kernels, device_of, lies_on_gpu, on_device
from pycurate.kernels.distinct import DistinctRows, Floats, Indices, self_similarities
from pycurate.kernels.host_matrix import HostMatrix
from pycurate.kernels.rowwise import Metric
from pycurate.kernels.screening import cuda_screening_of, screening_of

if TYPE_CHECKING:
    from pycurate import _core_cuda

Precision: TypeAlias = Literal["exact", "float32"]
Unjudged: TypeAlias = Literal["skip", "raise"]
Operand: TypeAlias = Any  # of any twin
Progress: TypeAlias = Callable[[float], object] | None


class JoinKernels(Protocol):
    """The functions of one twin that take its operands; those of all twins are called alike."""

    Operand: Any

    def pairs_above(
        self, a: Operand, b: Operand | None, threshold: float, max_pairs: int, threads: int, progress: Progress
    ) -> tuple[Indices, Indices, Floats] | None: ...
    def forest_above(
        self, a: Operand, b: Operand | None, threshold: float, threads: int, progress: Progress
    ) -> tuple[Indices, Indices]: ...
    def spanning_forest_above(
        self, a: Operand, b: Operand | None, floor: float, threads: int, progress: Progress
    ) -> tuple[Indices, Indices, Floats]: ...
    def count_above(
        self,
        a: Operand,
        b: Operand | None,
        threshold: float,
        weights_a: Indices | None,
        weights_b: Indices | None,
        threads: int,
        progress: Progress,
    ) -> tuple[Indices, Indices | None]: ...
    def max_earlier(
        self,
        a: Operand,
        b: Operand | None,
        rank_a: Indices,
        rank_b: Indices | None,
        floor: float,
        threads: int,
        progress: Progress,
    ) -> tuple[Indices, Floats, Indices | None, Floats | None]: ...
    def top_k(
        self, a: Operand, b: Operand | None, k: int, both: bool, threads: int, progress: Progress
    ) -> tuple[Indices, Floats, Indices | None, Floats | None]: ...
    def log_sum_exp(
        self, a: Operand, b: Operand, scale: float, threads: int, progress: Progress
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]: ...


def kernels_on(device: Place, *, in_blocks: bool = False) -> JoinKernels:
    """Of the CPU, or of GPUs: of several, or ``in_blocks``, those of ``gpu_blocks``."""
    module: JoinKernels = _core.fused_similarity
    if device is not None:
        module = gpu_blocks if in_blocks or len(device) > 1 else cuda_kernels()
    return module


class Side(NamedTuple):
    """One matrix of a problem, in the CPU's memory, for GPUs or not, or in that of a GPU."""

    array: NDArray[Any] | _core_cuda.Matrix | HostMatrix
    element: Any
    distinct: DistinctRows

    def self_similarities(self, metric: Metric) -> Floats:
        if isinstance(self.array, np.ndarray):
            return self_similarities(self.array, self.element, metric, self.distinct.rows)
        if metric != "inner_product":
            return np.full(len(self.distinct.rows), 1 if metric == "cosine" else 0, np.float32)
        return self.array.self_products()[self.distinct.rows].astype(np.float32)


class Join(NamedTuple):
    """Two matrices to compare, or one with itself."""

    left: Side
    right: Side | None
    metric: Metric
    precision: Precision
    threads: int
    device: Place

    @property
    def kernels(self) -> JoinKernels:
        """The functions that take its operands."""
        return kernels_on(self.device, in_blocks=isinstance(self.left.array, gpu_blocks.Matrix))

    def operands(self, *, limit: float | None = None, neighbors: int | None = None) -> tuple[Operand, Operand | None]:
        """The two sides as the kernels take them.

        ``limit``, below which pairs do not matter, or how many ``neighbors`` a row asks for decide what is prepared to
        screen them with; never a result.
        """
        right = None if self.right is None else (self.right, self.right.distinct.rows)
        return self.operands_of((self.left, self.left.distinct.rows), right, limit=limit, neighbors=neighbors)

    def operands_of(
        self,
        left: tuple[Side, Indices],
        right: tuple[Side, Indices] | None,
        *,
        limit: float | None = None,
        neighbors: int | None = None,
    ) -> tuple[Operand, Operand | None]:
        """Some rows of each side as the kernels take them; they share what screening them needs."""
        both = (left,) if right is None else (left, right)
        asked = limit is not None or neighbors is not None
        asked = asked and self.metric == "cosine" and self.precision == "exact"
        if self.device is not None:
            matrices = [
                (side.array, side.element, rows) for side, rows in both if not isinstance(side.array, np.ndarray)
            ]
            prefix = cuda_screening_of(matrices, limit, neighbors) if asked else None
            made = [
                self.kernels.Operand(x, None if len(rows) == x.shape[0] else rows, self.metric, self.precision, prefix)
                for x, _, rows in matrices
            ]
            return made[0], None if right is None else made[1]
        sides = [(side.array, side.element, rows) for side, rows in both if isinstance(side.array, np.ndarray)]
        screening = screening_of(sides, limit, neighbors, self.threads) if asked else None

        def operand(side: Side, rows: Indices) -> Operand:
            assert isinstance(side.array, np.ndarray)
            part = None if len(rows) == len(side.array) else rows
            return _core.fused_similarity.Operand(
                side.array, side.element, part, self.metric, screening, self.precision, self.threads
            )

        return operand(*left), None if right is None else operand(*right)


def join_of(
    x: Any,
    y: Any,
    metric: Metric,
    precision: Precision,
    unjudged: Unjudged,
    threads: int | None,
    dtype: Literal["bfloat16"] | None,
    device: str | None = None,
    *,
    collapse: bool = True,
) -> Join:
    """Check the arguments of a public function, find the rows that can be judged and, to ``collapse``, the copies."""
    require_option("metric", metric, Metric)
    require_option("precision", precision, Precision)
    require_option("unjudged", unjudged, Unjudged)
    count = thread_count_of(threads)
    place = device_of(device, x, y)
    matrices = [("x", x), ("y", y)][: 1 if y is None else 2]
    in_blocks = place is not None and _needs_blocks(place, matrices, dtype)
    sides: list[Side] = []
    for name, given in matrices:
        array: NDArray[Any] | _core_cuda.Matrix | HostMatrix
        if place is not None and in_blocks:
            array = gpu_blocks.Matrix(*matrix_of(name, given, dtype), place)
            element = array.element
        elif place is not None:
            array = on_device(name, given, dtype, place[0])
            element = array.element
        else:
            array, element = matrix_of(name, given, dtype)
        if sides and element != sides[0].element:
            raise TypeError(f"y: expected {sides[0].element} to match x, got {element}; convert one of them on purpose")
        if sides and array.shape[1] != sides[0].array.shape[1]:
            raise ValueError(f"y: expected shape (m, {sides[0].array.shape[1]}) to match x, got {array.shape}")
        if isinstance(array, np.ndarray | gpu_blocks.Matrix):
            rows = array if isinstance(array, np.ndarray) else array.array
            distinct = DistinctRows.of(rows, element, metric, count, collapse=collapse)
        else:
            distinct = DistinctRows.on_device(array, metric, collapse=collapse)
        if unjudged == "raise" and len(distinct.unjudged):
            _raise_unjudged(name, distinct.unjudged, metric)
        sides.append(Side(array, element, distinct))
    return Join(sides[0], sides[1] if y is not None else None, metric, precision, count, place)


def _needs_blocks(gpus: tuple[int, ...], given: list[tuple[str, Any]], dtype: str | None) -> bool:
    """Whether rows are compared block by block: on several GPUs, or because they do not fit in the memory of one."""
    moved = [matrix_of(name, x, dtype)[0] for name, x in given if not lies_on_gpu(x)]
    return len(gpus) > 1 or not gpu_grid.fits(moved, gpus[0])


def _raise_unjudged(name: str, rows: Indices, metric: Metric) -> None:
    shown = ", ".join(str(row) for row in rows[:5]) + (", ..." if len(rows) > 5 else "")
    why = "not finite or zero" if metric == "cosine" else "not finite"
    raise InputError(
        f"{name}: expected rows that can be judged, but the squared norm of {len(rows):,} of them is {why}: rows "
        f"{shown}; mend or drop them, or pass unjudged='skip' to leave them out"
    )
