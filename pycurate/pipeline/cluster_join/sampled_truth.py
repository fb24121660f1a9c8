"""Brute force for sampled rows: their near-duplicates, and how many probes a join needs to meet each of them.

The clusters that a row visits with p probes are among those that it visits with more. So each true pair has a number of
probes that is enough to find it: 0 where both rows are in one cluster, else the place of the other's cluster among
those near to the row that visits, the smaller of both. One comparison with all rows then tells the recall of every
number of probes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pycurate.index.rows import Rows
from pycurate.index.sampling import drawn_rows
from pycurate.kernels.distinct import Indices
from pycurate.pipeline.block_join.blocks import BlockPlan, Blocks, Grid
from pycurate.pipeline.block_join.pair_runs import runs_of
from pycurate.pipeline.block_join.source import RowSource
from pycurate.pipeline.block_join.sweep import How, Task, run_tasks
from pycurate.pipeline.cluster_join.centroids import Borders, nearest_clusters

SAMPLE_STREAM = 4
"""Not that of k-means: centroids suit the rows they were trained on best."""
_PAIRS_AT_ONCE = 1 << 13


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """The positive rows of a sample.

    ``needs[i, j]``: how many near-duplicates of the i-th are found with ``first + j`` probes, not with fewer where j >
    0; in the last column those that are not found with any number looked at.
    """

    needs: NDArray[np.int64]
    first: int

    @property
    def pairs(self) -> Indices:
        """(positives,) near-duplicates of each."""
        pairs: Indices = self.needs.sum(axis=1)
        return pairs

    def found(self, probes: int) -> Indices:
        """(positives,) how many of them are found with so many probes."""
        found: Indices = self.needs[:, : probes - self.first + 1].sum(axis=1)
        return found


@dataclass(frozen=True, slots=True, eq=False)
class Sampler:
    """Compares sampled rows with all of them."""

    source: RowSource
    rows: Indices  # the distinct ones
    borders: Borders
    first: int  # probes
    depth: int  # the most probes that are looked at
    plan: BlockPlan
    how: How
    seed: int

    def drawn(self, begin: int, end: int) -> Indices:
        """Rising rows of the source: those from ``begin`` to ``end`` in a seeded order."""
        places = drawn_rows(len(self.rows), end, self.seed, SAMPLE_STREAM)[begin:]
        return self.rows[np.sort(places)]

    def needs(self, sampled: Indices) -> NDArray[np.int64]:
        """(positives, depth - first + 2) as in `Truth`, in rising order of the rows."""
        counts = np.zeros((len(sampled), self.depth - self.first + 2), np.int64)
        block_rows = self.plan.block_rows
        left, right = Blocks(self.source, sampled, block_rows), Blocks(self.source, self.rows, block_rows)

        def work(task: Task) -> None:
            rows, cols = sampled[left.span(task.i)], self.rows[right.span(task.j)]
            for run in runs_of(task.pair, rows, cols, self.borders.limit, self.plan.most_pairs, task.progress):
                for pairs in self._parts(run):
                    place = np.searchsorted(sampled, pairs["row"])
                    np.add.at(counts, (place, self._needed(pairs) - self.first), 1)

        run_tasks(Grid(left, right), self.how, lambda i, j: False, work)
        return counts[counts.any(axis=1)]

    def _parts(self, run: NDArray[Any]) -> Iterator[NDArray[Any]]:
        """Without the sampled rows themselves, and rows that are near-duplicates of several side by side."""
        run = run[run["row"] != run["col"]]
        run = run[np.argsort(run["col"], kind="stable")]
        for begin in range(0, len(run), _PAIRS_AT_ONCE):
            yield run[begin : begin + _PAIRS_AT_ONCE]

    def _needed(self, pairs: NDArray[Any]) -> Indices:
        needed = self._rank(pairs["row"], self._cluster_of(pairs["col"]))
        left = np.flatnonzero(needed > self.first)
        if len(left):
            part = pairs[left]
            needed[left] = np.minimum(needed[left], self._rank(part["col"], self._cluster_of(part["row"])))
        return np.maximum(needed, self.first)

    def _cluster_of(self, rows: Indices) -> Indices:
        distinct, place = np.unique(rows, return_inverse=True)
        near, _ = nearest_clusters(self._widened(distinct), self.borders.centroids, 1, self.how.threads)
        clusters: Indices = near[place, 0]
        return clusters

    def _rank(self, rows: Indices, clusters: Indices) -> Indices:
        """Which cluster near to a row another one is, 0 its own; one more than ``depth`` where it is not visited."""
        distinct, place = np.unique(rows, return_inverse=True)
        near, similarities = nearest_clusters(
            self._widened(distinct), self.borders.centroids, self.depth + 1, self.how.threads
        )
        reached = self.borders.visited(near, similarities)
        reached[:, 0] = True
        hit = (near[place] == clusters[:, None]) & reached[place]
        return np.where(hit.any(axis=1), hit.argmax(axis=1), self.depth + 1)

    def _widened(self, rows: Indices) -> NDArray[np.float32]:
        return Rows(self.source.take(rows), self.source.element).widened(self.how.threads or None)
