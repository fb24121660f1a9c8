"""`SimilarityJoin`: the questions of fused similarity on matrices larger than memory."""

from __future__ import annotations

import hashlib
import operator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from pycurate.kernels.arrays import float32_of, ranks_of
from pycurate.kernels.block_similarity import lowest_of_component
from pycurate.kernels.device import Place
from pycurate.kernels.distinct import (
    DistinctRows,
    Floats,
    Indices,
    expand_earlier,
    expanded_nearest,
    first_and_later,
    linked_copies,
    self_similarities,
)
from pycurate.kernels.fused_similarity import MostSimilarEarlier, Nearest, Pairs
from pycurate.kernels.join import Precision
from pycurate.kernels.rowwise import Metric
from pycurate.kernels.spanning_forest import SpanningForest
from pycurate.pipeline.block_join.blocks import BlockPlan, Blocks, Grid, plan_blocks
from pycurate.pipeline.block_join.components import sweep_components
from pycurate.pipeline.block_join.forest import sweep_forest
from pycurate.pipeline.block_join.join_folder import JoinFolder, answer_of
from pycurate.pipeline.block_join.pair_limit import checked_max_pairs
from pycurate.pipeline.block_join.pair_runs import merge_pairs, sweep_pairs
from pycurate.pipeline.block_join.row_states import Counts, Earlier, Neighbors, final_states, sweep_states
from pycurate.pipeline.block_join.source import RowSource, let_go
from pycurate.pipeline.block_join.sweep import How, Progress, part_of, rising
from pycurate.pipeline.block_join.task_folder import TaskFolder


class SimilarityJoin:
    """Pairs, components, counts and neighbours of rows that do not fit in memory; made by `similarity_join`.

    Rows are cut into blocks, two of which fit under the memory cap. What each pair of blocks gave is kept in the
    folder: the same question asked again after a kill or Ctrl-C goes on where it stopped, and a question that was
    answered is read back. Each answer is that of the function of the same name on the whole matrix in memory, bit for
    bit: it does not depend on the cap, the blocks, the shards, or on how often a run was stopped.

    Attributes
    ----------
    n, m
        Rows of the source, and of y; ``m`` is None without y.
    """

    def __init__(
        self,
        source: RowSource,
        other: RowSource | None,
        out: Path,
        metric: Metric,
        precision: Precision,
        memory_bytes: int,
        threads: int,
        progress: Progress,
        device: Place = None,
    ) -> None:
        self._device = device
        self._source, self._other, self._metric = source, other, metric
        self._memory_bytes = memory_bytes
        self._precision, self._threads, self._progress = precision, threads, progress
        self._folder = JoinFolder(out, (source,) if other is None else (source, other), metric)
        self._plan(0)  # refuses a cap that is too small before any work
        with self._folder.locked():
            found = self._folder.distinct_rows(threads)
        self._distinct, self._distinct_other = found[0], (found[1] if len(found) > 1 else None)

    @property
    def n(self) -> int:
        """Rows of the source."""
        return len(self._source)

    @property
    def m(self) -> int | None:
        """Rows of y, None without."""
        return None if self._other is None else len(self._other)

    @property
    def unjudged(self) -> Indices:
        """(u,) rising rows of the source that cannot be judged."""
        return self._distinct.unjudged

    @property
    def unjudged_y(self) -> Indices | None:
        """Likewise of y, None without."""
        return None if self._distinct_other is None else self._distinct_other.unjudged

    @property
    def copy_of(self) -> Indices:
        """(n,) the first row with the same bits, -1 where the row itself is the first."""
        return self._distinct.copy_of

    def pairs_above(self, threshold: float, *, max_pairs: int | None = None) -> Pairs:
        """All pairs of distinct rows at or above a threshold, as `pycurate.pairs_above`, sorted on disk.

        Parameters
        ----------
        threshold
            As there.
        max_pairs
            More pairs are an error. None: as many as the disk takes, at 40 bytes each until they are merged and 20
            after; that there is room is checked before anything is written.

        Returns
        -------
        Pairs
            ``rows``, ``cols`` and ``similarities`` are memory maps.

        Raises
        ------
        TooManyPairsError
            More than ``max_pairs`` pairs; an InputError.
        WorkspaceError
            The disk is too full, or the folder is in use by another process.
        """
        limit = float32_of("threshold", threshold)
        most = checked_max_pairs(max_pairs)
        with self._folder.question("pairs_above", threshold=limit) as folder:
            if folder.answer() is None:
                plan = self._plan(0)
                grid = self._grid(folder, plan)
                sweep_pairs(grid, folder, limit, plan.most_pairs, most, self._how())
                merge_pairs(grid, folder, plan.most_pairs)
            found = answer_of(folder)
        other = self._distinct_other
        return Pairs(
            found["rows"],
            found["cols"],
            found["similarities"],
            self.copy_of,
            None if other is None else other.copy_of,
            self.unjudged,
            None if other is None else other.unjudged,
        )

    def components_above(self, threshold: float) -> Indices:
        """(n,) the lowest row of each row's group, as `pycurate.components_above`. Keeps fewer edges than rows.

        Raises
        ------
        ValueError
            The join has a y, or ``threshold`` is NaN.
        """
        self._require_self_join("components_above")
        limit = float32_of("threshold", threshold)
        with self._folder.question("components_above", threshold=limit) as folder:
            if folder.answer() is None:
                grid = self._grid(folder, self._plan(0))
                lowest = sweep_components(grid, folder, limit, self._how())
                distinct = self._distinct
                cols = np.flatnonzero(lowest != np.arange(len(lowest)))
                rows, cols = distinct.rows[lowest[cols]], distinct.rows[cols]
                if distinct.has_copies:
                    copies = linked_copies(distinct, rows, cols, self._own() >= limit)
                    rows = np.concatenate([rows, distinct.copy_of[copies]])
                    cols = np.concatenate([cols, copies])
                folder.write_answer({"components": lowest_of_component(self.n, rows, cols)})
            return answer_of(folder)["components"]

    def spanning_forest_above(self, floor: float) -> SpanningForest:
        """The components of every threshold from a floor upwards, as `pycurate.spanning_forest_above`.

        Raises
        ------
        ValueError
            The join has a y, or ``floor`` is NaN.
        """
        self._require_self_join("spanning_forest_above")
        limit = float32_of("floor", floor)
        with self._folder.question("spanning_forest_above", floor=limit) as folder:
            if folder.answer() is None:
                grid = self._grid(folder, self._plan(240))  # two sets of levels, edges of every thread
                rows, cols, similarities = sweep_forest(grid, folder, limit, self._how())
                place = self._distinct.rows
                folder.write_answer({"rows": place[rows], "cols": place[cols], "similarities": similarities})
            found = answer_of(folder)
        return SpanningForest(found["rows"], found["cols"], found["similarities"], self.copy_of, self.unjudged)

    def count_above(self, threshold: float) -> Indices:
        """(n,) how many rows of y, or other rows, reach a threshold from each, as `pycurate.count_above`."""
        limit = float32_of("threshold", threshold)
        with self._folder.question("count_above", threshold=limit) as folder:
            if folder.answer() is None:
                grid = self._grid(folder, self._plan(24))
                distinct, counted = self._distinct, self._distinct_other or self._distinct
                sweep_states(grid, folder, Counts(grid, limit, counted.sizes), self._how())
                counts = np.zeros(len(distinct.rows), np.int64)
                for span, state in final_states(grid, folder):
                    counts[span] = state
                if self._other is None and distinct.has_copies:
                    counts += (distinct.sizes - 1) * (self._own() >= limit)
                folder.write_answer({"counts": distinct.spread(counts, -1)})
            return answer_of(folder)["counts"]

    def most_similar_earlier(self, order: NDArray[np.integer[Any]], floor: float) -> MostSimilarEarlier:
        """For every row the most similar row of higher priority, as `pycurate.most_similar_earlier`.

        Raises
        ------
        ValueError
            The join has a y, ``order`` is no permutation of the rows, or ``floor`` is NaN.
        """
        self._require_self_join("most_similar_earlier")
        limit = float32_of("floor", floor)
        rank = ranks_of(order, self.n)
        ranked = hashlib.sha256(rank.tobytes()).hexdigest()[:32]
        with self._folder.question("most_similar_earlier", floor=limit, order=ranked) as folder:
            if folder.answer() is None:
                ranks, best = self._most_similar_earlier(folder, rank, limit)
                row_of_rank = np.append(np.asarray(order, np.int64), -1)  # the last for rank -1, none
                folder.write_answer({"indices": row_of_rank[ranks], "similarities": best})
            found = answer_of(folder)
        return MostSimilarEarlier(found["indices"], found["similarities"], self.unjudged)

    def nearest(self, k: int) -> Nearest:
        """The k nearest rows of y, or other rows, of every row, as `pycurate.nearest`.

        Parameters
        ----------
        k
            At least 1. Takes 24 k bytes of disk a row until it is done, and 12 k after.

        Returns
        -------
        Nearest
            ``indices`` and ``similarities`` are memory maps, (n, k).
        """
        wanted = operator.index(k)
        if wanted < 1:
            raise ValueError(f"k: expected at least 1, got {k}")
        with self._folder.question("nearest", k=wanted) as folder:
            if folder.answer() is None:
                searched = self._distinct_other or self._distinct
                most = max(1, min(wanted, len(searched.rows) - (self._other is None)))
                grid = self._grid(folder, self._plan(64 + 40 * most))
                folder.require_disk(24 * wanted * self.n)
                sweep_states(grid, folder, Neighbors(grid, most), self._how())
                self._write_nearest(grid, folder, wanted, searched)
            found = answer_of(folder)
        other = self._distinct_other
        return Nearest(
            found["indices"], found["similarities"], self.unjudged, None if other is None else other.unjudged
        )

    # -- preparation -------------------------------------------------------------------------------------------------

    def _plan(self, state_bytes: int) -> BlockPlan:
        rows = self.n + (self.m or 0)
        source, on_gpu = self._source, self._device is not None
        return plan_blocks(self._memory_bytes, rows, source.d, source.row_bytes, state_bytes, on_gpu=on_gpu)

    def _grid(self, folder: TaskFolder, plan: BlockPlan) -> Grid:
        block_rows = folder.open_tasks(plan.block_rows, plan.fitting_rows)
        left = Blocks(self._source, self._distinct.rows, block_rows)
        if self._other is None or self._distinct_other is None:
            return Grid(left, None)
        return Grid(left, Blocks(self._other, self._distinct_other.rows, block_rows))

    def _how(self, begin: float = 0, share: float = 1) -> How:
        """What the tasks of one sweep are told, whose progress is this part of the whole."""
        progress = part_of(rising(self._progress), begin, share)
        return How(self._metric, self._precision, self._threads, progress, self._device)

    def _own(self) -> Floats:
        """(g,) similarity of the rows of each group with each other."""
        rows, step = self._distinct.rows, self._source.piece_rows
        parts = [np.empty(0, np.float32)]
        for begin in range(0, len(rows), step):
            part = rows[begin : begin + step]
            taken = self._source.take(part) if self._metric == "inner_product" else np.empty((0, 0), np.float32)
            parts.append(self_similarities(taken, self._source.element, self._metric, np.arange(len(part))))
        return np.concatenate(parts)

    def _require_self_join(self, question: str) -> None:
        if self._other is not None:
            raise ValueError(f"y: {question} is asked of one matrix, but this join has a y; make one without")

    # -- answers -----------------------------------------------------------------------------------------------------

    def _most_similar_earlier(self, folder: TaskFolder, rank: Indices, limit: float) -> tuple[Indices, Floats]:
        """(n,) ranks and similarities. As in memory, a group is represented by its row of lowest rank; see there."""
        distinct, plan = self._distinct, self._plan(64)
        grid = self._grid(folder, plan)
        first, later = first_and_later(distinct, rank)
        again = self._metric == "inner_product" and len(later) > 0
        share = 0.5 if again else 1.0
        sweep_states(
            grid,
            folder,
            Earlier(grid, limit, first, None),
            self._how(0, share),
        )
        group_ranks, group_best = _collected_earlier(grid, folder)
        if not again:
            return expand_earlier(group_ranks, group_best, first, later, limit, distinct, self._own())
        ranks, best = distinct.spread(group_ranks, -1), distinct.spread(group_best, np.nan)
        folder_of_later = TaskFolder(folder.root / "later", {"question": "of the other rows with the same bits"})
        folder_of_later.root.mkdir(exist_ok=True)
        block_rows = folder_of_later.open_tasks(plan.block_rows, plan.fitting_rows)
        cross = Grid(Blocks(self._source, later, block_rows), Blocks(self._source, distinct.rows, block_rows))
        sweep_states(
            cross,
            folder_of_later,
            Earlier(cross, limit, rank[later], first),
            self._how(share, 1 - share),
        )
        ranks[later], best[later] = _collected_earlier(cross, folder_of_later)
        return ranks, best

    def _write_nearest(self, grid: Grid, folder: TaskFolder, k: int, searched: DistinctRows) -> None:
        own = self._own() if self._other is None and searched.has_copies else None
        if self.n:
            indices = open_memmap(folder.answer_path("indices"), "w+", np.int64, (self.n, k))
            near = open_memmap(folder.answer_path("similarities"), "w+", np.float32, (self.n, k))
            without = self.unjudged if grid.columns else np.arange(self.n)
            indices[without], near[without] = -1, np.nan
            for span, state in final_states(grid, folder):
                expanded = expanded_nearest(
                    span.start,
                    np.ascontiguousarray(state["row"]),
                    np.ascontiguousarray(state["similarity"]),
                    k,
                    self._distinct,
                    searched,
                    None if own is None else own[span],
                )
                for rows, found, similarities in expanded:
                    indices[rows], near[rows] = found, similarities
                    let_go(indices)
                    let_go(near)
            indices.flush()
            near.flush()
            folder.declare_answer(["indices", "similarities"])
        else:
            folder.write_answer({"indices": np.empty((0, k), np.int64), "similarities": np.empty((0, k), np.float32)})


def _collected_earlier(grid: Grid, folder: TaskFolder) -> tuple[Indices, Floats]:
    rows = len(grid.left.rows)
    ranks, best = np.full(rows, -1), np.full(rows, np.nan, np.float32)
    for span, state in final_states(grid, folder):
        ranks[span], best[span] = state["rank"], state["similarity"]
    return ranks, best
