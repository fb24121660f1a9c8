"""`ClusteredJoin`: near-duplicates of a matrix larger than memory, without comparing every two rows."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pycurate.errors import RecallError
from pycurate.index.duplicate_certificate import DuplicateCertificate, proven
from pycurate.kernels.arrays import float32_of, ranks_of
from pycurate.kernels.block_similarity import lowest_of_component
from pycurate.kernels.device import device_of
from pycurate.kernels.distinct import Floats, Indices, expand_earlier, first_and_later, linked_copies
from pycurate.kernels.fused_similarity import MostSimilarEarlier, Pairs
from pycurate.kernels.spanning_forest import SpanningForest
from pycurate.pipeline.block_join.blocks import BlockPlan, plan_blocks
from pycurate.pipeline.block_join.join_folder import JoinFolder, answer_of
from pycurate.pipeline.block_join.pair_limit import checked_max_pairs
from pycurate.pipeline.block_join.source import RowSource
from pycurate.pipeline.block_join.sweep import How, Progress, part_of, rising
from pycurate.pipeline.block_join.task_folder import TaskFolder
from pycurate.pipeline.cluster_join.batches import Batches
from pycurate.pipeline.cluster_join.centroids import Borders, Clustering, ClusterRule
from pycurate.pipeline.cluster_join.greedy import MetInClusters
from pycurate.pipeline.cluster_join.questions import (
    merge_pairs,
    sweep_components,
    sweep_earlier,
    sweep_forest,
    sweep_pairs,
)
from pycurate.pipeline.cluster_join.segments import Segments, open_segments
from pycurate.pipeline.cluster_join.visits import ProbesNeeded, Visits, open_visits
from pycurate.pipeline.duplicate_sample import DEFAULT_TARGET, MOST_SIMILARITIES, DuplicateSample, share_of

DEEPEST = 64
"""Probes that a certificate looks at: near so many clusters brute force is seldom dearer."""
_ASSIGNED, _VISITED = 0.2, 0.4  # of a question's progress


@dataclass(frozen=True, slots=True)
class ClusteredWork:
    """What a question at one threshold takes."""

    clusters: int
    largest_cluster: int  # rows
    probes: int | None  # None: exact
    visits: int  # copies of rows that are compared in another cluster than their own
    similarities: int  # pairs of rows that are compared
    share: float  # of all pairs of distinct rows; above 1 where brute force is cheaper


class ClusteredJoin:
    """Near-duplicates within clusters and across their borders; made by `clustered_join`.

    Distinct rows go to the nearest of k centroids, and are compared with the rows of their cluster. A row also visits
    the clusters that a near-duplicate of it may be in (`pycurate.pipeline.cluster_join.centroids` proves which): all of
    them with ``probes="exact"``, else only those among the ``probes`` nearest. An answer is that of the method of the
    same name of `SimilarityJoin` on the pairs that were compared. It depends on the rows and their order, and on the
    `Clustering`; not on the cap, threads, the device, where shards are cut, or how often a run was stopped.

    Attributes
    ----------
    n
        Rows of the source.
    """

    def __init__(
        self,
        source: RowSource,
        out: Path,
        clustering: Clustering,
        min_recall: float | None,
        memory_bytes: int,
        threads: int,
        progress: Progress,
        rank: Indices | None = None,
        device: str | None = None,
    ) -> None:
        """As `clustered_join`; ``rank`` (n,), such as the place by uid, takes the place of the order of the rows."""
        self._source, self._memory_bytes, self._threads, self._progress = source, memory_bytes, threads, progress
        self._device, self._place = device, device_of(device)
        self._probes = None if clustering.probes == "exact" else clustering.probes
        self._min_recall, self._seed = min_recall, clustering.seed
        self._folder = JoinFolder(out, (source,), "cosine")
        self._plan(0)  # refuses a cap that is too small before any work
        with self._folder.locked():
            self._distinct = self._folder.distinct_rows(threads)[0]
        self._rule = ClusterRule.of(len(self._distinct.rows), clustering)
        self._facts, self._order = self._rule.facts(), None
        if rank is not None:
            self._order = np.argsort(first_and_later(self._distinct, rank)[0])
            self._facts["order"] = hashlib.sha256(rank.tobytes()).hexdigest()[:32]

    @property
    def n(self) -> int:
        """Rows of the source."""
        return len(self._source)

    @property
    def unjudged(self) -> Indices:
        """(u,) rising rows that cannot be judged."""
        return self._distinct.unjudged

    @property
    def copy_of(self) -> Indices:
        """(n,) the first row with the same bits, -1 where the row itself is the first."""
        return self._distinct.copy_of

    @property
    def centroids(self) -> Floats:
        """(k, d) of the clusters; trained when first asked for."""
        with self._folder.locked():
            return self._segments().centroids

    def most_similar_earlier(self, order: NDArray[np.integer[Any]], floor: float) -> MostSimilarEarlier:
        """For every row the most similar row of higher priority that it was compared with, as `SimilarityJoin`'s.

        Raises
        ------
        ValueError
            ``order`` is no permutation of the rows, or ``floor`` is NaN.
        RecallError
            ``min_recall`` is not reached, or cannot be shown to be.
        """
        limit = float32_of("floor", floor)
        rank = ranks_of(order, self.n)
        ranked = hashlib.sha256(rank.tobytes()).hexdigest()[:32]
        with self._question("most_similar_earlier", limit, order=ranked) as (folder, probes):
            if folder.answer() is None:
                distinct = self._distinct
                first, later = first_and_later(distinct, rank)
                batches = self._batches(folder, limit, probes, self._plan(64))
                ranks, best = sweep_earlier(batches, folder, first, limit, self._told(_VISITED, 1))
                ranks, best = expand_earlier(ranks, best, first, later, limit, distinct, self._own())
                row_of_rank = np.append(np.asarray(order, np.int64), -1)  # the last for rank -1, none
                folder.write_answer({"indices": row_of_rank[ranks], "similarities": best})
            found = answer_of(folder)
        return MostSimilarEarlier(found["indices"], found["similarities"], self.unjudged)

    def components_above(self, threshold: float) -> Indices:
        """(n,) the lowest row of each row's group, by the pairs that were compared, as `SimilarityJoin`'s.

        Raises
        ------
        ValueError
            ``threshold`` is NaN.
        RecallError
            ``min_recall`` is not reached, or cannot be shown to be.
        """
        limit = float32_of("threshold", threshold)
        with self._question("components_above", limit) as (folder, probes):
            if folder.answer() is None:
                distinct = self._distinct
                batches = self._batches(folder, limit, probes, self._plan(0))
                lowest = sweep_components(batches, folder, len(distinct.rows), limit, self._told(_VISITED, 1))
                cols = np.flatnonzero(lowest != np.arange(len(lowest)))
                rows, cols = distinct.rows[lowest[cols]], distinct.rows[cols]
                if distinct.has_copies:
                    copies = linked_copies(distinct, rows, cols, self._own() >= limit)
                    rows = np.concatenate([rows, distinct.copy_of[copies]])
                    cols = np.concatenate([cols, copies])
                folder.write_answer({"components": lowest_of_component(self.n, rows, cols)})
            return answer_of(folder)["components"]

    def spanning_forest_above(self, floor: float) -> SpanningForest:
        """The components of every threshold from a floor upwards by compared pairs, as `SimilarityJoin`'s.

        Of equally similar pairs that close a circle another may be left out than there.

        Raises
        ------
        ValueError
            ``floor`` is NaN.
        RecallError
            ``min_recall`` is not reached, or cannot be shown to be.
        """
        limit = float32_of("floor", floor)
        with self._question("spanning_forest_above", limit) as (folder, probes):
            if folder.answer() is None:
                batches = self._batches(folder, limit, probes, self._plan(240))
                place = self._distinct.rows
                rows, cols, similarities = sweep_forest(batches, folder, len(place), limit, self._told(_VISITED, 1))
                folder.write_answer({"rows": place[rows], "cols": place[cols], "similarities": similarities})
            found = answer_of(folder)
        return SpanningForest(found["rows"], found["cols"], found["similarities"], self.copy_of, self.unjudged)

    def pairs_above(self, threshold: float, *, max_pairs: int | None = None) -> Pairs:
        """The pairs of distinct rows at or above a threshold that were compared, as `SimilarityJoin`'s.

        Parameters, results and errors are those; besides:

        Raises
        ------
        RecallError
            ``min_recall`` is not reached, or cannot be shown to be.
        """
        limit = float32_of("threshold", threshold)
        most = checked_max_pairs(max_pairs)
        with self._question("pairs_above", limit) as (folder, probes):
            if folder.answer() is None:
                plan = self._plan(0)
                batches = self._batches(folder, limit, probes, plan)
                rows = self._distinct.rows
                sweep_pairs(batches, folder, rows, limit, plan.most_pairs, most, self._told(_VISITED, 1))
                merge_pairs(batches, folder, self.n, limit, plan.most_pairs, most)
            found = answer_of(folder)
        return Pairs(found["rows"], found["cols"], found["similarities"], self.copy_of, None, self.unjudged, None)

    @contextmanager
    def meetings(
        self, threshold: float, limit: float, order: Indices, how: How
    ) -> Iterator[Callable[[BlockPlan], MetInClusters]]:
        """How rows that a threshold brings together are compared, for `pycurate.pipeline.greedy_blocks`.

        Parameters
        ----------
        limit
            The least similarity that counts, at or above the threshold.
        order
            (g,) one row of every group of rows with the same bits, the earliest first.
        """
        place_of = np.empty(len(order), np.int64)
        place_of[self._distinct.group[order]] = np.arange(len(order))
        with self._folder.locked():
            at = float32_of("threshold", threshold)
            segments = self._segments()
            visits = self._visits(segments, at, self._probes_for(at))
            yield lambda plan: MetInClusters(
                Batches(segments, visits, plan.block_rows, self._threads, self._place), place_of, limit, how
            )

    def work(self, threshold: float) -> ClusteredWork:
        """What a question at a threshold takes; finds clusters and visits, and compares nothing."""
        limit = float32_of("threshold", threshold)
        with self._folder.locked():
            probes = self._probes_for(limit)
            segments = self._segments()
            visits = self._visits(segments, limit, probes)
        rows = len(self._distinct.rows)
        similarities = int(Batches(segments, visits, 1, self._threads).similarities.sum())
        return ClusteredWork(
            len(segments.centroids),
            int(segments.sizes.max(initial=0)),
            probes,
            int(visits.sizes.sum()),
            similarities,
            similarities / max(1, rows * (rows - 1) // 2),
        )

    def certificate(
        self, threshold: float, *, target: float | None = None, most_similarities: int = MOST_SIMILARITIES
    ) -> DuplicateCertificate:
        """How many rows with a near-duplicate at or above a threshold keep one, on a sample against brute force.

        Parameters
        ----------
        target
            The sample grows, from 1,000 rows on by doubling, until a recall of so much can be told; default
            ``min_recall``, or 0.99.
        most_similarities
            The sample ends before its rows times all rows are more than this; it has at least 1,000 rows.
        """
        limit = float32_of("threshold", threshold)
        wanted = (self._min_recall or DEFAULT_TARGET) if target is None else share_of("target", target)
        with self._folder.locked():
            return self._certified(limit, wanted, most_similarities, may_raise=self._min_recall is not None)[1]

    # -- probing -----------------------------------------------------------------------------------------------------

    def _probes_for(self, limit: float) -> int | None:
        """As given, or as many as ``min_recall`` takes."""
        if self._min_recall is None or self._probes is None:
            return self._probes
        probes, certificate = self._certified(limit, self._min_recall, MOST_SIMILARITIES, may_raise=True)
        if certificate.verdict in ("proven", "holds"):
            return probes
        raise RecallError(
            f"min_recall: expected a recall of at least {self._min_recall:g}, got {certificate.sentence()}; pass "
            "probes='exact', fewer clusters or a lower min_recall"
        )

    def _certified(
        self, limit: float, target: float, most: int, *, may_raise: bool
    ) -> tuple[int | None, DuplicateCertificate]:
        """The certificate, and with how many probes; ``may_raise`` them until it holds."""
        rows, clusters = len(self._distinct.rows), self._rule.clusters
        if self._probes is None or self._probes >= clusters - 1:
            return self._probes, proven(self._method(None), limit, target, rows, self._seed)
        depth = min(clusters - 1, max(self._probes, DEEPEST)) if may_raise else self._probes
        tried = [self._probes]
        while tried[-1] < depth:
            tried.append(min(depth, max(1, 2 * tried[-1])))
        borders = Borders(self._segments().centroids, limit)
        sample = DuplicateSample(
            self._folder,
            self._source,
            self._distinct.rows,
            limit,
            [self._method(probes) for probes in tried],
            ProbesNeeded(self._source, borders, tried, self._threads, self._device),
            self._plan(0),
            How("cosine", "exact", self._threads, None, self._place),
            self._seed,
            self._facts,
            self._order,
        )
        number, certificate = sample.certify(target, most)
        return tried[number], certificate

    def _method(self, probes: int | None) -> str:
        clusters = f"{self._rule.clusters:,} cluster" + "s" * (self._rule.clusters != 1)
        if probes is None:
            return f"{clusters}, every border"
        return f"{clusters}, {probes} probe" + "s" * (probes != 1)

    # -- preparation -------------------------------------------------------------------------------------------------

    @contextmanager
    def _question(self, name: str, limit: float, **facts: Any) -> Iterator[tuple[TaskFolder, int | None]]:
        with self._folder.locked():
            probes = self._probes_for(limit)
            facts = {**self._facts, "probes": probes, "limit": limit, **facts}
            folder = self._folder.task_folder(f"clustered_{name}", **facts)
            yield folder, probes

    def _plan(self, state_bytes: int) -> BlockPlan:
        source, on_gpu = self._source, self._place is not None
        return plan_blocks(self._memory_bytes, self.n, source.d, source.row_bytes, state_bytes, on_gpu=on_gpu)

    def _segments(self) -> Segments:
        left = self._memory_bytes - 128 * self.n
        told = self._told(0, _ASSIGNED)
        return open_segments(
            self._folder, self._source, self._distinct.rows, self._order, self._rule, self._facts, left,
            self._threads, self._device, told,
        )  # fmt: skip

    def _visits(self, segments: Segments, limit: float, probes: int | None) -> Visits:
        cuts = segments.starts[:, 0].tolist()
        folder = self._folder.task_folder("visits", **self._facts, limit=limit, probes=probes, segments=cuts)
        told = self._told(_ASSIGNED, _VISITED)
        borders = Borders(segments.centroids, limit)
        return open_visits(folder, segments, borders, probes, self._threads, self._device, told)

    def _batches(self, folder: TaskFolder, limit: float, probes: int | None, plan: BlockPlan) -> Batches:
        segments = self._segments()
        folder.open_tasks(1)
        visits = self._visits(segments, limit, probes)
        return Batches(segments, visits, plan.block_rows, self._threads, self._place)

    def _told(self, begin: float, end: float) -> Progress:
        return part_of(rising(self._progress), begin, end - begin)

    def _own(self) -> Floats:
        """(g,) cosine of the rows of each group with each other."""
        return np.ones(len(self._distinct.rows), np.float32)
