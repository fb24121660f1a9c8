"""A problem of fused similarity: one or two matrices with checked arguments, ready for the kernels."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, TypeAlias

from numpy.typing import NDArray

from pycurate import _core
from pycurate.errors import InputError
from pycurate.kernels.arrays import matrix_of, require_option, thread_count_of
from pycurate.kernels.distinct import DistinctRows, Floats, Indices, self_similarities
from pycurate.kernels.rowwise import Metric
from pycurate.kernels.screening import screening_of

Precision: TypeAlias = Literal["exact", "float32"]
Unjudged: TypeAlias = Literal["skip", "raise"]


class Side(NamedTuple):
    """One matrix of a problem."""

    array: NDArray[Any]
    element: Any
    distinct: DistinctRows

    def self_similarities(self, metric: Metric) -> Floats:
        return self_similarities(self.array, self.element, metric, self.distinct.rows)


class Join(NamedTuple):
    """Two matrices to compare, or one with itself."""

    left: Side
    right: Side | None
    metric: Metric
    precision: Precision
    threads: int

    def operands(
        self, *, limit: float | None = None, neighbors: int | None = None
    ) -> tuple[_core.fused_similarity.Operand, _core.fused_similarity.Operand | None]:
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
    ) -> tuple[_core.fused_similarity.Operand, _core.fused_similarity.Operand | None]:
        """Some rows of each side as the kernels take them; they share what screening them needs."""
        sides = [(side.array, side.element, rows) for side, rows in ((left,) if right is None else (left, right))]
        asked = limit is not None or neighbors is not None
        screening = None
        if asked and self.metric == "cosine" and self.precision == "exact":
            screening = screening_of(sides, limit, neighbors, self.threads)

        def operand(side: Side, rows: Indices) -> _core.fused_similarity.Operand:
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
    *,
    collapse: bool = True,
) -> Join:
    """Check the arguments of a public function, find the rows that can be judged and, to ``collapse``, the copies."""
    require_option("metric", metric, Metric)
    require_option("precision", precision, Precision)
    require_option("unjudged", unjudged, Unjudged)
    count = thread_count_of(threads)
    matrices = [("x", *matrix_of("x", x, dtype))]
    if y is not None:
        matrices.append(("y", *matrix_of("y", y, dtype)))
        (_, a, element), (_, b, element_y) = matrices
        if element_y != element:
            raise TypeError(f"y: expected {element} to match x, got {element_y}; convert one of them on purpose")
        if a.shape[1] != b.shape[1]:
            raise ValueError(f"y: expected shape (m, {a.shape[1]}) to match x, got {b.shape}")
    sides = []
    for name, array, element in matrices:
        distinct = DistinctRows.of(array, element, metric, count, collapse=collapse)
        if unjudged == "raise" and len(distinct.unjudged):
            _raise_unjudged(name, distinct.unjudged, metric)
        sides.append(Side(array, element, distinct))
    return Join(sides[0], sides[1] if y is not None else None, metric, precision, count)


def _raise_unjudged(name: str, rows: Indices, metric: Metric) -> None:
    shown = ", ".join(str(row) for row in rows[:5]) + (", ..." if len(rows) > 5 else "")
    why = "not finite or zero" if metric == "cosine" else "not finite"
    raise InputError(
        f"{name}: expected rows that can be judged, but the squared norm of {len(rows):,} of them is {why}: rows "
        f"{shown}; mend or drop them, or pass unjudged='skip' to leave them out"
    )
