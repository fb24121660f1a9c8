"""The most similar earlier row of rows that come after others: only the new ones are compared, with all."""

from __future__ import annotations

import numpy as np

from pycurate.kernels.distinct import DistinctRows, Floats, Indices, expand_earlier, first_and_later
from pycurate.pipeline.block_join.blocks import Blocks, Grid, plan_blocks
from pycurate.pipeline.block_join.row_states import Earlier, final_states, sweep_states
from pycurate.pipeline.block_join.source import RowSource
from pycurate.pipeline.block_join.sweep import How, part_of
from pycurate.pipeline.block_join.task_folder import TaskFolder


def most_similar_earlier_of_new(
    source: RowSource,
    distinct: DistinctRows,
    rank: Indices,
    known: tuple[Indices, Floats],
    limit: float,
    folders: tuple[TaskFolder, TaskFolder],
    how: How,
    memory_bytes: int,
) -> tuple[Indices, Floats]:
    """(n,) most similar earlier row and similarity of every row, as `SimilarityJoin.most_similar_earlier`, by cosine.

    Parameters
    ----------
    source, distinct
        All rows, those that are known first.
    rank
        (n,) of the rows; those of known rows are the lowest.
    known
        (m,) each: the most similar earlier row of the first m rows, -1 where there is none, and its similarity.
    limit
        The floor, a float32.
    folders
        Of the comparisons with known rows, and of new rows with each other; both go on where they stopped.
    how, memory_bytes
        As a similarity join is told.
    """
    decided = len(known[0])
    row_of_rank = np.empty(len(rank), np.int64)
    row_of_rank[rank] = np.arange(len(rank))
    first, later = first_and_later(distinct, rank)
    is_new = distinct.rows >= decided
    on_gpu = how.device is not None
    plan = plan_blocks(memory_bytes, len(source), source.d, source.row_bytes, 64, on_gpu=on_gpu)
    sizes = [folder.open_tasks(plan.block_rows, plan.fitting_rows) for folder in folders]
    new_rows, known_rows = distinct.rows[is_new], distinct.rows[~is_new]
    cross = Grid(Blocks(source, new_rows, sizes[0]), Blocks(source, known_rows, sizes[0]))
    own = Grid(Blocks(source, new_rows, sizes[1]), None)
    share = len(known_rows) / max(1.0, len(known_rows) + len(new_rows) / 2)
    told = (part_of(how.progress, 0, share), part_of(how.progress, share, 1 - share))
    hows = [How(how.metric, how.precision, how.threads, progress, how.device) for progress in told]
    sweep_states(cross, folders[0], Earlier(cross, limit, first[is_new], first[~is_new]), hows[0])
    sweep_states(own, folders[1], Earlier(own, limit, first[is_new], None), hows[1])

    group_ranks, group_best = np.full(len(first), -1), np.full(len(first), np.nan, np.float32)
    of_known = row_of_rank[first[~is_new]]
    group_ranks[~is_new] = np.append(rank, -1)[known[0][of_known]]
    group_best[~is_new] = known[1][of_known]
    group_ranks[is_new], group_best[is_new] = _better(_collected(cross, folders[0]), _collected(own, folders[1]))
    ones = np.ones(len(first), np.float32)
    ranks, best = expand_earlier(group_ranks, group_best, first, later, limit, distinct, ones)
    return np.append(row_of_rank, -1)[ranks], best


def _collected(grid: Grid, folder: TaskFolder) -> tuple[Indices, Floats]:
    ranks, best = np.full(len(grid.left.rows), -1), np.full(len(grid.left.rows), np.nan, np.float32)
    for span, state in final_states(grid, folder):
        ranks[span], best[span] = state["rank"], state["similarity"]
    return ranks, best


def _better(a: tuple[Indices, Floats], b: tuple[Indices, Floats]) -> tuple[Indices, Floats]:
    """Of two found rows the more similar one, of equally similar ones the earlier."""
    take = (b[1] > a[1]) | ((b[1] == a[1]) & (b[0] < a[0])) | ((a[0] < 0) & (b[0] >= 0))
    return np.where(take, b[0], a[0]), np.where(take, b[1], a[1])
