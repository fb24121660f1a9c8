"""Facility location: gains, greedy picks and what they cover, over sparse columns or a dense matrix of similarities.

``pycurate.reference.selection`` is the definition. Gains are float64 sums in one fixed order, so that picks are the
same bits on every instruction set and for any number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pycurate import _core
from pycurate.errors import InputError

__all__ = ["NOBODY", "Candidates", "DenseCandidates", "EdgeBlock", "Progress", "RowState", "SparseCandidates"]

NOBODY = np.uint32(0xFFFFFFFF)
"""No candidate, no column."""

Progress: TypeAlias = Callable[[float], object] | None
Names: TypeAlias = NDArray[np.uint32] | None
Allowed: TypeAlias = NDArray[np.bool_] | None


@dataclass(frozen=True, slots=True, eq=False)
class RowState:
    """What chosen candidates have done for the rows; greedy picks change it.

    Attributes
    ----------
    covered
        (n,) float32: similarity to the most similar chosen candidate, 0 without one.
    representative
        (n,) uint32: the name of that candidate, the first of equally similar ones; ``NOBODY`` without one.
    weights
        (n,) float64, finite and at least 0; None: 1.
    """

    covered: NDArray[np.float32]
    representative: NDArray[np.uint32]
    weights: NDArray[np.float64] | None = None

    @classmethod
    def uncovered(cls, n: int, weights: NDArray[np.float64] | None = None) -> RowState:
        """Of n rows, none of which has a representative."""
        return cls(np.zeros(n, np.float32), np.full(n, NOBODY, np.uint32), weights)

    @property
    def objective(self) -> float:
        """Sum of weight * covered, in order of rows."""
        return _core.selection.objective(self.covered, self.representative, self.weights)


class EdgeBlock(NamedTuple):
    """Consecutive rows of a graph: which columns each is similar to."""

    ends: NDArray[np.uint64]  # (m,) one past the last edge of each row
    columns: NDArray[np.uint32]  # (e,) NOBODY: left out
    similarities: NDArray[np.float32]  # (e,) finite, at least 0
    selves: NDArray[np.uint32]  # (m,) the column that is the row itself, or NOBODY
    self_similarities: NDArray[np.float32]  # (m,) of such a column, whatever edges say


class Greedy(NamedTuple):
    """What the greedy algorithm picked."""

    candidates: NDArray[np.uint32]  # (at most k,) in order
    gains: NDArray[np.float64]  # of each when it was picked
    evaluations: int  # gains computed anew on the way


class Candidates(Protocol):
    """Those that rows can be represented by."""

    @property
    def count(self) -> int: ...

    def gains(self, rows: RowState, allowed: Allowed = None, threads: int = 0) -> NDArray[np.float64]:
        """(count,) what each would add to the objective now; -1 where it is not ``allowed``."""
        ...

    def greedy(
        self, rows: RowState, start: NDArray[np.float64], k: int, names: Names = None, progress: Progress = None
    ) -> Greedy:
        """Pick the candidate of largest gain k times, ties to the lower one. ``start``: of ``gains``; it is changed.
        ``names``: (count,) by which ``rows`` call them; by default their numbers."""
        ...

    def cover(self, chosen: NDArray[np.uint32], rows: RowState, names: Names = None) -> None:
        """Pick these, in order."""
        ...

    def count_better(self, chosen: NDArray[np.uint32], covered: NDArray[np.float32]) -> NDArray[np.int32]:
        """(n,) how many of the chosen are more similar to a row than ``covered`` (n,) says."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class SparseCandidates:
    """Columns of a sparse matrix; a gain is summed in rising order of rows. 8 bytes an entry."""

    count: int
    columns: _core.selection.Columns

    @classmethod
    def of(cls, count: int, rows: int, blocks: Callable[[], Iterator[EdgeBlock]]) -> SparseCandidates:
        """From the rows of a graph, in blocks that come in order, twice."""
        columns = _core.selection.Columns(count, rows)
        for block in blocks():
            columns.count(*block)
        for block in blocks():
            columns.place(*block)
        return cls(count, columns)

    def gains(self, rows: RowState, allowed: Allowed = None, threads: int = 0) -> NDArray[np.float64]:
        """As `Candidates` has it."""
        return self.columns.gains(rows.covered, rows.representative, rows.weights, allowed, threads)

    def greedy(
        self, rows: RowState, start: NDArray[np.float64], k: int, names: Names = None, progress: Progress = None
    ) -> Greedy:
        """As `Candidates` has it."""
        return Greedy(*self.columns.greedy(rows.covered, rows.representative, rows.weights, start, names, k, progress))

    def cover(self, chosen: NDArray[np.uint32], rows: RowState, names: Names = None) -> None:
        """As `Candidates` has it."""
        self.columns.cover(chosen, names, rows.covered, rows.representative)

    def count_better(self, chosen: NDArray[np.uint32], covered: NDArray[np.float32]) -> NDArray[np.int32]:
        """As `Candidates` has it."""
        return self.columns.count_better(chosen, covered)


@dataclass(frozen=True, slots=True, eq=False)
class DenseCandidates:
    """A matrix (candidates, n) float32 in C order; a gain is summed in 16 lanes.

    Raises
    ------
    InputError
        In ``gains``: a similarity is not finite, or below 0 and not ``negative_as_zero``.
    """

    similarities: NDArray[np.float32]
    negative_as_zero: bool = False
    count: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "count", len(self.similarities))

    def gains(self, rows: RowState, allowed: Allowed = None, threads: int = 0) -> NDArray[np.float64]:
        """As `Candidates` has it."""
        found, invalid = _core.selection.dense_gains(
            self.similarities, rows.covered, rows.representative, rows.weights, allowed, self.negative_as_zero, threads
        )
        if invalid >= 0:
            values = self.similarities[invalid]
            least = -np.inf if self.negative_as_zero else 0
            row = int(np.flatnonzero(~((values >= least) & np.isfinite(values)))[0])
            raise InputError(
                f"similarities: expected finite numbers of at least 0, got {values[row]} between candidate {invalid} "
                f"and row {row}; drop such rows, or pass negative='zero' where only negative ones are in the way"
            )
        return found

    def greedy(
        self, rows: RowState, start: NDArray[np.float64], k: int, names: Names = None, progress: Progress = None
    ) -> Greedy:
        """As `Candidates` has it."""
        return Greedy(
            *_core.selection.dense_greedy(
                self.similarities, rows.covered, rows.representative, rows.weights, start, names, k, progress
            )
        )

    def cover(self, chosen: NDArray[np.uint32], rows: RowState, names: Names = None) -> None:
        """As `Candidates` has it."""
        _core.selection.dense_cover(self.similarities, chosen, names, rows.covered, rows.representative)

    def count_better(self, chosen: NDArray[np.uint32], covered: NDArray[np.float32]) -> NDArray[np.int32]:
        """As `Candidates` has it."""
        counts = np.zeros(len(covered), np.int32)
        for candidate in chosen.tolist():
            counts += self.similarities[candidate] > covered
        return counts


def add_gains(block: EdgeBlock, first_row: int, rows: RowState, gains: NDArray[np.float64]) -> None:
    """``gains`` (columns,) grow by those of a block's entries: of all blocks in order, ``SparseCandidates.gains``."""
    _core.selection.add_gains(*block, first_row, rows.covered, rows.weights, gains)
