"""Going through the pairs of blocks: skip what is done, read, ask, leave files, mark."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from pycurate.kernels.block_similarity import SAMPLE_ROWS, BlockPair, LeftBlock
from pycurate.kernels.device import Place
from pycurate.kernels.join import Precision
from pycurate.kernels.rowwise import Metric
from pycurate.pipeline.block_join.blocks import Grid

Progress: TypeAlias = Callable[[float], object] | None


@dataclass(frozen=True, slots=True)
class How:
    """What every task is told; of these only the metric changes an answer."""

    metric: Metric
    precision: Precision
    threads: int
    progress: Progress
    device: Place = None


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """A pair of blocks, read."""

    i: int
    j: int
    pair: BlockPair
    progress: Progress  # of this task, from 0 to 1


def run_tasks(grid: Grid, how: How, is_done: Callable[[int, int], bool], work: Callable[[Task], None]) -> None:
    """Read and hand to ``work`` the tasks that are not done, in order."""
    total = max(1, sum(grid.similarities(i, j) for i, j in grid.tasks()))
    searched = grid.right or grid.left
    sample = searched.sample(SAMPLE_ROWS)
    before, row = 0, -1
    left: LeftBlock | None = None
    for i, j in grid.tasks():
        size = grid.similarities(i, j)
        if not is_done(i, j):
            if row != i or left is None:
                left = None  # before the next is read: two blocks fit, not three
                rows, row = grid.left.read(i), i
                element = grid.left.source.element
                compared = len(searched.rows)
                left = LeftBlock(rows, element, how.metric, how.precision, how.threads, sample, compared, how.device)
                del rows
            pair = BlockPair(left, grid.read_right(i, j))
            work(Task(i, j, pair, part_of(how.progress, before / total, size / total)))
            del pair
        before += size
        if how.progress is not None:
            how.progress(before / total)


def part_of(progress: Progress, begin: float, share: float) -> Progress:
    """Progress of a part, told as progress of the whole."""
    return None if progress is None else lambda fraction: progress(begin + share * fraction)


def rising(progress: Progress) -> Progress:
    """Where a task is halved its parts begin anew: what a caller hears never falls within a sweep."""
    if progress is None:
        return None
    told = 0.0

    def tell(fraction: float) -> None:
        nonlocal told
        if fraction >= told:
            told = fraction
            progress(fraction)

    return tell
