"""Pairs above a threshold: every task leaves its pairs in sorted runs, which are merged in one pass in the end.

A run is sorted by (row, col). Where a pair of blocks has more pairs than memory takes, it is halved until it has not,
so a task may leave several runs, one behind the other in its file. The runs of one row of blocks are listed such that,
for any row of the matrix, the columns of a run all lie above those of the runs before it: a merge is then a stable sort
by row alone.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pycurate.io.atomic import atomic_write
from pycurate.kernels.block_similarity import BlockPair
from pycurate.pipeline.block_join.blocks import Grid
from pycurate.pipeline.block_join.pair_limit import require_at_most
from pycurate.pipeline.block_join.source import Indices
from pycurate.pipeline.block_join.sweep import How, Progress, Task, part_of, run_tasks
from pycurate.pipeline.block_join.task_folder import TaskFolder

PAIR_DTYPE = np.dtype([("row", "<i8"), ("col", "<i8"), ("similarity", "<f4")])
COLUMNS = {"rows": "row", "cols": "col", "similarities": "similarity"}


def sweep_pairs(
    grid: Grid, folder: TaskFolder, limit: float, most_in_memory: int, max_pairs: int | None, how: How
) -> None:
    """Run the tasks that are not done.

    Raises
    ------
    TooManyPairsError
        More than ``max_pairs`` in all; what was found stays, for a run that allows more.
    WorkspaceError
        The disk has no room for the pairs of a task and, later, for all of them a second time.
    """
    done = {(i, j): facts for i, j in grid.tasks() if (facts := folder.facts(i, j)) is not None}
    total = sum(sum(facts["runs"]) for facts in done.values())
    columns = grid.right or grid.left

    def work(task: Task) -> None:
        nonlocal total
        rows, cols = grid.left.rows[grid.left.span(task.i)], columns.rows[columns.span(task.j)]
        path = folder.task_path(task.i, task.j, "pairs")
        with atomic_write(path, "file") as file:
            runs = []
            for found in runs_of(task.pair, rows, cols, limit, most_in_memory, task.progress):
                total += len(found)
                require_at_most(max_pairs, total, limit)
                folder.require_disk((total + len(found)) * PAIR_DTYPE.itemsize)
                file.write(found.view(np.uint8).data)
                runs.append(len(found))
        folder.finish(task.i, task.j, [path], runs=runs)

    require_at_most(max_pairs, total, limit)
    run_tasks(grid, how, lambda i, j: (i, j) in done, work)


def merge_pairs(grid: Grid, folder: TaskFolder, most_in_memory: int) -> None:
    """Write all pairs, sorted by (row, col), as the answer ``rows``, ``cols`` and ``similarities``."""
    runs_of_row: dict[int, list[_Run]] = {}
    total = 0
    for i, j in grid.tasks():
        facts = folder.facts(i, j)
        assert facts is not None  # the lock is held since the sweep
        begin = 0
        for count in facts["runs"]:
            runs_of_row.setdefault(i, []).append(_Run(folder.task_path(i, j, "pairs"), begin, begin + count))
            begin += count
        total += begin
    folder.require_disk(total * PAIR_DTYPE.itemsize)
    with contextlib.ExitStack() as stack:
        files = {}
        for name, column in COLUMNS.items():
            files[column] = stack.enter_context(atomic_write(folder.answer_path(name), "file"))
            header = {"descr": PAIR_DTYPE[column].str, "fortran_order": False, "shape": (total,)}
            np.lib.format.write_array_header_1_0(files[column], header)
        for runs in runs_of_row.values():
            for pairs in merged(runs, most_in_memory):
                for column, file in files.items():
                    file.write(np.ascontiguousarray(pairs[column]).view(np.uint8).data)
    folder.declare_answer(list(COLUMNS))


def runs_of(
    pair: BlockPair, rows: Indices, cols: Indices, limit: float, most: int, progress: Progress
) -> Iterator[NDArray[Any]]:
    """The pairs of two blocks in runs of at most ``most``; ``rows`` and ``cols`` number the rows of the blocks."""
    found = pair.pairs_above(limit, most, progress)
    if found is not None:
        if len(found[0]):
            run = np.empty(len(found[0]), PAIR_DTYPE)
            run["row"], run["col"], run["similarity"] = rows[found[0]], cols[found[1]], found[2]
            del found
            yield run
        return
    left, right = pair.left, pair.right
    parts: list[tuple[slice, slice | None]]
    middle = max(len(left.rows), 0 if right is None else len(right)) // 2
    first, second = slice(0, middle), slice(middle, None)
    if right is None:
        parts = [(first, None), (first, second), (second, None)]
    elif len(left.rows) >= len(right):
        parts = [(first, slice(None)), (second, slice(None))]
    else:
        parts = [(slice(None), first), (slice(None), second)]
    for place, (a, b) in enumerate(parts):
        of_right = None if b is None else (left.rows if right is None else right)[b]
        smaller = BlockPair(left.part(a), of_right)
        told = part_of(progress, place / len(parts), 1 / len(parts))
        yield from runs_of(smaller, rows[a], cols[a if b is None else b], limit, most, told)


@dataclass(slots=True, eq=False)
class _Run:
    """Some of the pairs in a file, read bit by bit: a map of each would be an open file each."""

    path: Path
    position: int
    end: int
    buffer: NDArray[Any] = field(default_factory=functools.partial(np.empty, 0, PAIR_DTYPE))

    def fill(self, most: int) -> None:
        """Have pairs in ``buffer`` unless all were taken."""
        if not len(self.buffer) and self.position < self.end:
            count = min(most, self.end - self.position)
            self.buffer = np.fromfile(self.path, PAIR_DTYPE, count, offset=self.position * PAIR_DTYPE.itemsize)
            self.position += count

    def take(self, below: float) -> NDArray[Any]:
        """The buffered pairs of rows below, which may be infinite."""
        count = int(np.searchsorted(self.buffer["row"], below))
        taken, self.buffer = self.buffer[:count], self.buffer[count:]
        return taken


def merged(runs: list[_Run], most: int) -> Iterator[NDArray[Any]]:
    """The pairs of runs, listed as the module's description says, in order, at most about ``most`` at a time."""
    share = max(1, most // max(1, len(runs)))
    while True:
        for run in runs:
            run.fill(share)
        runs = [run for run in runs if len(run.buffer)]
        if not runs:
            return
        # Of the last row in a buffer more pairs may follow in the file: rows below all such are complete.
        complete = min((int(run.buffer["row"][-1]) for run in runs if run.position < run.end), default=np.inf)
        parts = [run.take(complete) for run in runs]
        pairs = np.concatenate(parts)
        if len(pairs):
            yield pairs[np.argsort(pairs["row"], kind="stable")]
            continue
        # One row fills a buffer. It is the lowest of all; its pairs lie in order of the runs.
        row = int(complete)
        for run in runs:
            run.fill(share)
            while len(run.buffer) and run.buffer["row"][0] == row:
                yield run.take(row + 1)
                run.fill(share)
