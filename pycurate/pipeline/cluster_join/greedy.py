"""Greedy removal without pairs among the rows that meet in clusters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pycurate.kernels.block_similarity import BlockPair
from pycurate.kernels.distinct import Indices
from pycurate.pipeline.block_join.source import RowSource
from pycurate.pipeline.block_join.sweep import How
from pycurate.pipeline.cluster_join.batches import Batches
from pycurate.pipeline.greedy_blocks import State, improve, left_block, nothing, state_of


@dataclass(frozen=True, eq=False)
class MetInClusters:
    """Rows meet where one of them is a member of a cluster and the other a member or a visitor.

    Each call goes through all clusters, so its blocks are better large.
    """

    batches: Batches
    place_of: Indices
    """(g,) the place in the order of each distinct row."""
    limit: float
    how: How

    def earlier(self, places: Indices, others: Indices) -> State:
        """As `pycurate.pipeline.greedy_blocks.Comparison`."""
        state, number = nothing(len(places)), self._numbers(places)
        is_other = np.zeros(len(self.place_of), bool)
        is_other[others] = True
        for (positions, of_rows), (of_visitors, visiting) in self._clusters() if len(others) else ():
            own, meets = of_rows[is_other[of_rows]], of_visitors[is_other[of_visitors]]
            at, at_visitors = positions[is_other[of_rows]], visiting[is_other[of_visitors]]
            both = np.concatenate([own, meets]), np.concatenate([at, at_visitors])
            for left, left_at, right, right_at in (
                (*_those(number, of_rows, positions), *both),
                (*_those(number, of_visitors, visiting), own, at),
            ):
                for mine, found in self._compared(left, left_at, right, right_at):
                    of_mine = state[number[mine]]
                    improve(of_mine, found)
                    state[number[mine]] = of_mine
        return state

    def pairs(self, places: Indices, most: int) -> tuple[Indices, Indices] | None:
        """Likewise; a pair that meets twice is there twice."""
        number = self._numbers(places)
        rows, cols, total = [np.empty(0, np.int64)], [np.empty(0, np.int64)], 0
        for (positions, of_rows), (of_visitors, visiting) in self._clusters():
            own, at = _those(number, of_rows, positions)
            visitors, at_visitors = _those(number, of_visitors, visiting)
            if len(own) + len(visitors) < 2 or not len(own):
                continue
            left = left_block(self._source.take_any(at), self._source.element, self.how)
            for right, right_at in ((own, None), (visitors, at_visitors)):
                if right_at is not None and not len(right):
                    continue
                pair = BlockPair(left, None if right_at is None else self._source.take_any(right_at))
                found = pair.pairs_above(self.limit, most - total, None)
                if found is None:
                    return None
                rows.append(number[own[found[0]]])
                cols.append(number[right[found[1]]])
                total += len(found[0])
        return np.concatenate(rows), np.concatenate(cols)

    @property
    def _source(self) -> RowSource:
        return self.batches.segments.source

    def _clusters(self) -> Iterator[tuple[tuple[Indices, Indices], tuple[Indices, Indices]]]:
        """Positions and places of each cluster's members; places and positions of its visitors."""
        for cluster in range(len(self.batches.segments.centroids)):
            rows = self.batches.rows_of(cluster)
            yield (rows.positions, self.place_of[rows.places]), (self.place_of[rows.visitor_places], rows.visitors)

    def _numbers(self, places: Indices) -> Indices:
        """(g,) which of ``places`` each place is, -1 where it is none."""
        number = np.full(len(self.place_of), -1)
        number[places] = np.arange(len(places))
        return number

    def _compared(
        self, left: Indices, left_at: Indices, right: Indices, right_at: Indices
    ) -> Iterator[tuple[Indices, State]]:
        """Blocks of the left, and of each row in them the most similar earlier row of the right."""
        step = self.batches.block_rows
        if not len(right):
            return
        for begin in range(0, len(left), step):
            mine = left[begin : begin + step]
            block = left_block(self._source.take_any(left_at[begin : begin + step]), self._source.element, self.how)
            state = nothing(len(mine))
            for start in range(0, len(right), step):
                other = right[start : start + step]
                pair = BlockPair(block, self._source.take_any(right_at[start : start + step]))
                ranks, best, _, _ = pair.max_earlier((mine, other), self.limit, None)
                improve(state, state_of(ranks, best))
            yield mine, state


def _those(number: Indices, places: Indices, positions: Indices) -> tuple[Indices, Indices]:
    """The places that have a number, and their positions."""
    has = number[places] >= 0
    return places[has], positions[has]
