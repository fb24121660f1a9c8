"""Going through the clusters: what a task compares, and how a question is asked of it.

A task is some consecutive clusters, as many as take about a second, or one large one. Of each cluster every two members
are compared, and every member with every visitor, in blocks of which two fit under the memory cap. Tasks follow from
the sizes of clusters alone, so a run with another cap goes on with those that lack.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from pycurate.kernels.block_similarity import SAMPLE_ROWS, BlockPair, LeftBlock
from pycurate.kernels.device import Place
from pycurate.kernels.distinct import Indices
from pycurate.pipeline.block_join.blocks import Blocks
from pycurate.pipeline.block_join.sweep import Progress, part_of
from pycurate.pipeline.cluster_join.segments import Segments
from pycurate.pipeline.cluster_join.visits import Visits

_TASK_SIMILARITIES = 1 << 31
_TASK_ROWS = 1 << 18

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True, eq=False)
class ClusterRows:
    """The rows that meet in a cluster, as positions and as places among the distinct rows.

    Places rise among the members and among the visitors, wherever segments were cut. Positions rise with them among the
    members; those of visitors, who come from different clusters, do not.
    """

    positions: Indices
    places: Indices
    visitors: Indices
    visitor_places: Indices


class _Unordered(Blocks):
    """Rows that do not rise in the source."""

    def read(self, block: int) -> NDArray[Any]:
        return self.source.take_any(self.rows[self.span(block)])


@dataclass(frozen=True, slots=True, eq=False)
class Meeting:
    """Two blocks of a cluster, read: members with later members or with visitors, or a block with itself."""

    pair: BlockPair
    left: slice  # of the members
    right: slice  # of the members, or of the visitors
    with_visitors: bool
    progress: Progress  # of this meeting, from 0 to 1


@dataclass(frozen=True, slots=True, eq=False)
class Batches:
    """The tasks of a join, in order."""

    segments: Segments
    visits: Visits
    block_rows: int
    threads: int
    device: Place = None

    @property
    def similarities(self) -> Indices:
        """(k,) pairs of rows that are compared in each cluster."""
        members, visitors = self.segments.sizes, self.visits.sizes
        return members * (members - 1) // 2 + members * visitors

    @property
    def workers(self) -> int:
        """Threads at most."""
        return self.threads or len(os.sched_getaffinity(0))

    def tasks(self) -> list[range]:
        """Clusters of each task."""
        work, rows = self.similarities, self.segments.sizes + self.visits.sizes
        found, begin = [], 0
        for cluster in range(len(work)):
            part = slice(begin, cluster + 1)
            if work[part].sum() >= _TASK_SIMILARITIES or rows[part].sum() >= _TASK_ROWS or cluster == len(work) - 1:
                found.append(range(begin, cluster + 1))
                begin = cluster + 1
        return found

    def run(
        self, is_done: Callable[[int], bool], work: Callable[[int, range, Progress], None], progress: Progress
    ) -> None:
        """Hand the tasks that are not done to ``work``, with their numbers, in order."""
        similarities = self.similarities
        total, before = max(1, int(similarities.sum())), 0
        for number, clusters in enumerate(self.tasks()):
            size = int(similarities[clusters.start : clusters.stop].sum())
            if not is_done(number):
                work(number, clusters, part_of(progress, before / total, size / total))
            before += size
            if progress is not None:
                progress(before / total)

    def each(
        self, clusters: range, ask: Callable[[ClusterRows, Iterator[Meeting]], Answer], progress: Progress
    ) -> list[Answer]:
        """What ``ask`` says of each cluster that has rows, in their order.

        A kernel has too little to do in a small cluster for more than one thread, so that small ones are asked at once,
        as many as fit together where a large one does, from threads; large ones one by one.
        """
        members, visitors, workers = self.segments.sizes, self.visits.sizes, self.workers
        filled = [cluster for cluster in clusters if members[cluster]]
        is_small = np.maximum(members, visitors) <= self.block_rows // workers
        answers: dict[int, Answer] = {}
        pool = ThreadPoolExecutor(workers)
        try:
            asked = {c: pool.submit(self._ask, c, ask, 1, self._gpu_of(c), None) for c in filled if is_small[c]}
            for done, cluster in enumerate(filled):
                share = part_of(progress, done / len(filled), 1 / len(filled))
                if cluster in asked:
                    answers[cluster] = asked[cluster].result()
                else:
                    wait(asked.values())
                    answers[cluster] = self._ask(cluster, ask, self.threads, self.device, share)
                if share is not None:
                    share(1.0)
        finally:
            pool.shutdown(cancel_futures=True)
        return [answers[cluster] for cluster in filled]

    def _ask(
        self,
        cluster: int,
        ask: Callable[[ClusterRows, Iterator[Meeting]], Answer],
        threads: int,
        device: Place,
        progress: Progress,
    ) -> Answer:
        rows = self.rows_of(cluster)
        return ask(rows, self._meetings(rows, threads, device, progress))

    def _gpu_of(self, cluster: int) -> Place:
        """For a cluster too small to share among GPUs: one of them."""
        return None if self.device is None else (self.device[cluster % len(self.device)],)

    def rows_of(self, cluster: int) -> ClusterRows:
        """Who meets in a cluster."""
        members, visitors = self.segments.members(cluster), self.visits.visitors(cluster)
        places = self.segments.place_of(visitors)
        order = np.argsort(places)
        return ClusterRows(members, self.segments.place_of(members), visitors[order], places[order])

    def _meetings(self, rows: ClusterRows, threads: int, device: Place, progress: Progress) -> Iterator[Meeting]:
        """All pairs of a cluster's members, and of members and visitors, each once."""
        source = self.segments.source
        members = Blocks(source, rows.positions, self.block_rows)
        visitors = _Unordered(source, rows.visitors, self.block_rows)
        compared = len(rows.positions) + len(rows.visitors)
        total, before = max(1, len(rows.positions) * compared), 0
        sample = Blocks(source, np.sort(np.concatenate([rows.positions, rows.visitors])), 1).sample(SAMPLE_ROWS)
        for i in range(len(members)):
            left = LeftBlock(members.read(i), source.element, "cosine", "exact", threads, sample, compared, device)
            others = [(members, j) for j in range(i, len(members))] + [(visitors, j) for j in range(len(visitors))]
            for blocks, j in others:
                own = blocks is members and i == j
                size = members.size(i) * blocks.size(j)
                pair = BlockPair(left, None if own else blocks.read(j))
                told = part_of(progress, before / total, size / total)
                yield Meeting(pair, members.span(i), blocks.span(j), blocks is visitors, told)
                del pair
                before += size
