"""The rows of a neighbour graph as candidates of facility location, in blocks, whole or a part of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pycurate.errors import InputError
from pycurate.index.graph import KnnGraph
from pycurate.kernels.selection import NOBODY, EdgeBlock, RowState, SparseCandidates, add_gains

Negative: TypeAlias = Literal["error", "zero"]
Rows: TypeAlias = NDArray[np.int64]

EDGES_AT_ONCE = 1 << 22
"""Edges that are read from the graph at a time: about 100 MB with what checking them takes."""


@dataclass(frozen=True, slots=True, eq=False)
class GraphCandidates:
    """A graph whose row i is represented by its neighbours, as similar as the edges say, and by itself.

    Attributes
    ----------
    candidates
        Rising rows that may be chosen.
    self_similarities
        One for all rows, or (n,) float32.
    """

    graph: KnnGraph
    candidates: Rows
    self_similarities: float | NDArray[np.float32]
    negative: Negative

    def sparse(self, candidates: Rows, rows: Rows | None = None) -> SparseCandidates:
        """Some rows as columns over all rows, or over ``rows`` (rising), which are then called 0, 1, ..."""
        numbers = self._numbers(candidates)
        size = len(self.graph) if rows is None else len(rows)
        return SparseCandidates.of(len(candidates), size, lambda: self._blocks(numbers, rows))

    def gains(self, rows: RowState) -> NDArray[np.float64]:
        """(candidates,) what each of ``candidates`` would add now, in one pass over the graph and O(n) memory."""
        gains, first = np.zeros(len(self.candidates)), 0
        for block in self._blocks(self._numbers(self.candidates), None):
            add_gains(block, first, rows, gains)
            first += len(block.ends)
        return gains

    def _numbers(self, candidates: Rows) -> NDArray[np.uint32] | None:
        """(n,) the column of each row, NOBODY where it is none; None where each row is its own."""
        if len(candidates) == len(self.graph):
            return None
        numbers = np.full(len(self.graph), NOBODY, np.uint32)
        numbers[candidates] = np.arange(len(candidates), dtype=np.uint32)
        return numbers

    def _blocks(self, numbers: NDArray[np.uint32] | None, rows: Rows | None) -> Iterator[EdgeBlock]:
        indptr = self.graph.indptr
        for part, degrees, edges in _parts(indptr, rows):
            targets = self._checked_targets(self.graph.indices[edges])
            columns = targets.astype(np.uint32, copy=False) if numbers is None else numbers[targets]
            selves = part.astype(np.uint32) if numbers is None else numbers[part]
            own: Any = self.self_similarities
            own = np.full(len(part), own, np.float32) if isinstance(own, float) else own[part]
            yield EdgeBlock(
                np.cumsum(degrees, dtype=np.uint64), columns, self._checked(self.graph.weights[edges]), selves, own
            )

    def _checked_targets(self, targets: NDArray[Any]) -> NDArray[Any]:
        if len(targets) and int(targets.max()) >= len(self.graph):
            raise InputError(
                f"graph: expected indices below its {len(self.graph):,} rows, got {int(targets.max())}; build it again"
            )
        return targets

    def _checked(self, weights: NDArray[Any]) -> NDArray[np.float32]:
        similarities = np.ascontiguousarray(weights, np.float32)
        if not np.isfinite(similarities).all():
            worst = similarities[~np.isfinite(similarities)][0]
            raise InputError(f"graph: expected finite weights, got {worst}; drop such edges")
        lowest = float(similarities.min(initial=0))
        if lowest < 0 and self.negative == "error":
            raise InputError(
                f"graph: expected weights of at least 0, got {lowest:.6g}: facility location adds similarities up. "
                "Pass negative='zero' to count negative ones as none, or shift them on purpose"
            )
        return np.maximum(similarities, np.float32(0)) if lowest < 0 else similarities


def _parts(
    indptr: NDArray[np.uint64], rows: Rows | None
) -> Iterator[tuple[Rows, NDArray[np.uint64], slice | NDArray[np.int64]]]:
    """Rows in order, their degrees, and where their edges lie; at most ``EDGES_AT_ONCE`` and one row's at a time."""
    total = len(indptr) - 1 if rows is None else len(rows)
    first = 0
    while first < total:
        last = min(total, first + EDGES_AT_ONCE // 16 + 1)  # few enough rows to look at, whatever they have
        some = np.arange(first, last) if rows is None else rows[first:last]
        starts = indptr[some]
        degrees = indptr[some + 1] - starts
        fits = max(1, int(np.searchsorted(np.cumsum(degrees), EDGES_AT_ONCE, side="right")))
        some, starts, degrees = some[:fits], starts[:fits].astype(np.int64), degrees[:fits]
        if rows is None:
            begin = int(starts[0])
            yield some, degrees, slice(begin, begin + int(degrees.sum()))
        else:
            counts = degrees.astype(np.int64)
            before = np.cumsum(counts) - counts
            yield some, degrees, np.repeat(starts - before, counts) + np.arange(int(counts.sum()))
        first += len(some)
