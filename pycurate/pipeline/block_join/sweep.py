"""Going through the pairs of blocks: skip what is done, read, ask, leave files, mark."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Self, TypeAlias

from numpy.typing import NDArray

from pycurate.kernels.block_similarity import SAMPLE_ROWS, UNKNOWN, BlockPair, LeftBlock
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
    screening: Any = UNKNOWN
    with _RightBlocks(grid, how, is_done) as rights:
        for i, j in grid.tasks():
            size = grid.similarities(i, j)
            if not is_done(i, j):
                if row != i or left is None:
                    if left is not None and how.device is not None:
                        screening = left.screening  # takes about as long as a GPU compares two blocks
                    left = None  # before the next is read: two blocks fit, not three
                    rows, row = grid.left.read(i), i
                    element, compared = grid.left.source.element, len(searched.rows)
                    settings = (how.metric, how.precision, how.threads, sample, compared, how.device)
                    left = LeftBlock(rows, element, *settings, screening)
                    del rows
                pair = BlockPair(left, rights.read(i, j))
                work(Task(i, j, pair, part_of(how.progress, before / total, size / total)))
                del pair
            before += size
            if how.progress is not None:
                how.progress(before / total)


class _RightBlocks:
    """Right blocks of tasks; where a GPU compares, that of the next task of the same left block is read meanwhile."""

    def __init__(self, grid: Grid, how: How, is_done: Callable[[int, int], bool]) -> None:
        self._grid, self._is_done = grid, is_done
        self._ahead = None if how.device is None else ThreadPoolExecutor(1)
        self._coming: tuple[tuple[int, int], Future[NDArray[Any] | None]] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._ahead is not None:
            self._ahead.shutdown(cancel_futures=True)

    def read(self, i: int, j: int) -> NDArray[Any] | None:
        """The rows of task (i, j)'s right block; None where a block is compared with itself."""
        coming, self._coming = self._coming, None
        rows = coming[1].result() if coming is not None and coming[0] == (i, j) else self._grid.read_right(i, j)
        following = next((k for k in range(j + 1, self._grid.columns) if not self._is_done(i, k)), None)
        if self._ahead is not None and following is not None:
            self._coming = (i, following), self._ahead.submit(self._grid.read_right, i, following)
        return rows


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
