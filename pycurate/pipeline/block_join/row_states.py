"""Questions whose answer is something for each row: a count, the most similar earlier row, the nearest rows.

What is known of the rows of a block is one file, its *state*. A task replaces the states of its two blocks: it reads
what the last task on a block left, merges what it found and writes a file of its own. So the disk holds one state of
each block, and a killed task has changed nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from pycurate.pipeline.block_join.blocks import Grid
from pycurate.pipeline.block_join.source import Indices, open_array
from pycurate.pipeline.block_join.sweep import How, Task, run_tasks
from pycurate.pipeline.block_join.task_folder import TaskFolder

State = NDArray[Any]
_MERGED_AT_ONCE = 1 << 20  # elements

EARLIER_DTYPE = np.dtype([("rank", "<i8"), ("similarity", "<f4")])
NEAREST_DTYPE = np.dtype([("row", "<i8"), ("similarity", "<f4")])


class RowQuestion(Protocol):
    """What is asked of two blocks, and how two answers for the same rows become one."""

    def ask(self, task: Task) -> tuple[State, State | None]:
        """Of the rows of the left, and of the right where they are another block and asked, too."""
        ...

    def merge(self, into: State, other: State) -> None:
        """``into`` becomes the answer of both."""
        ...


def sweep_states(grid: Grid, folder: TaskFolder, question: RowQuestion, how: How) -> None:
    """Run the tasks that are not done."""
    finished = _finished(grid, folder)

    def work(task: Task) -> None:
        found_left, found_right = question.ask(task)
        states = [(task.i, found_left)] if found_right is None else [(task.i, found_left), (task.j, found_right)]
        written, replaced = [], []
        for block, state in states:
            earlier = _task_before(grid, task.i, task.j, block)
            if earlier is not None:
                before = folder.task_path(*earlier, _state_name(block))
                question.merge(state, open_array(before))
                replaced.append(before)
            path = folder.task_path(task.i, task.j, _state_name(block))
            folder.write_file(path, state.nbytes, functools.partial(_write_array, state))
            written.append(path)
        folder.finish(task.i, task.j, written)
        for path in replaced:
            path.unlink()

    run_tasks(grid, how, lambda i, j: (i, j) in finished, work)


def final_states(grid: Grid, folder: TaskFolder) -> Iterator[tuple[slice, State]]:
    """What is known of each block of the left in the end, and which of its rows they are; nothing without a right."""
    last = grid.columns - 1
    if last < 0:
        return
    for block in range(len(grid.left)):
        yield grid.left.span(block), open_array(folder.task_path(block, last, _state_name(block)))


def _finished(grid: Grid, folder: TaskFolder) -> set[tuple[int, int]]:
    """The tasks up to the first that is not done; none where a state that they should have left is not there."""
    finished: set[tuple[int, int]] = set()
    last: dict[int, tuple[int, int]] = {}
    for i, j in grid.tasks():
        if not folder.has_marker(i, j):
            break
        finished.add((i, j))
        last[i] = (i, j)
        if grid.right is None:
            last[j] = (i, j)
    if all(folder.is_whole(*task, _state_name(block)) for block, task in last.items()):
        return finished
    return set()


def _task_before(grid: Grid, i: int, j: int, block: int) -> tuple[int, int] | None:
    """The task that last wrote the state of one of the blocks of task (i, j)."""
    if grid.right is not None:
        return (i, j - 1) if j else None
    if block == i and j > i:
        return i, j - 1
    return (i - 1, block) if i else None


def _state_name(block: int) -> str:
    return f"rows-{block:05d}.npy"


def _write_array(array: NDArray[Any], file: BinaryIO) -> None:
    np.lib.format.write_array(file, array, allow_pickle=False)


class Counts:
    """How many rows reach the threshold: (rows,) int64."""

    def __init__(self, grid: Grid, limit: float, weights: Indices) -> None:
        self._grid, self._limit = grid, limit
        self._weights = weights  # of the rows of the right; of the left where there is no right

    def ask(self, task: Task) -> tuple[State, State | None]:
        counted = self._grid.right or self._grid.left
        of_right = self._weights[counted.span(task.j)]
        of_left = self._weights[counted.span(task.i)] if self._grid.right is None else None
        if task.pair.right is None:
            return task.pair.count_above(self._limit, (of_right, None), task.progress)
        left, right = task.pair.count_above(self._limit, (of_left, of_right), task.progress)
        return left, (right if self._grid.right is None else None)

    def merge(self, into: State, other: State) -> None:
        into += other


class Earlier:
    """The most similar row of lower rank: (rows,) EARLIER_DTYPE, -1 and NaN where there is none."""

    def __init__(self, grid: Grid, floor: float, rank: Indices, rank_right: Indices | None) -> None:
        self._grid, self._floor, self._rank, self._rank_right = grid, floor, rank, rank_right

    def ask(self, task: Task) -> tuple[State, State | None]:
        left = self._rank[self._grid.left.span(task.i)]
        if task.pair.right is None:
            found = task.pair.max_earlier((left, None), self._floor, task.progress)
            return _joined(found[0], found[1], EARLIER_DTYPE), None
        if self._grid.right is None or self._rank_right is None:
            right = self._rank[self._grid.left.span(task.j)]
        else:
            right = self._rank_right[self._grid.right.span(task.j)]
        found = task.pair.max_earlier((left, right), self._floor, task.progress)
        both = self._grid.right is None and found[2] is not None and found[3] is not None
        return _joined(found[0], found[1], EARLIER_DTYPE), (
            _joined(found[2], found[3], EARLIER_DTYPE) if both else None  # type: ignore[arg-type]
        )

    def merge(self, into: State, other: State) -> None:
        nearer = other["similarity"] > into["similarity"]
        as_near = (other["similarity"] == into["similarity"]) & (other["rank"] < into["rank"])
        better = nearer | as_near | ((into["rank"] < 0) & (other["rank"] >= 0))
        into[better] = other[better]


class Neighbors:
    """The nearest rows: (rows, k) NEAREST_DTYPE, nearest first, ties to the lower row, -1 and NaN beyond the last.

    Rows are numbered as the source numbers them.
    """

    def __init__(self, grid: Grid, k: int) -> None:
        self._grid, self._k = grid, k

    def ask(self, task: Task) -> tuple[State, State | None]:
        both = self._grid.right is None and task.pair.right is not None
        indices, near, indices_right, near_right = task.pair.top_k(self._k, task.progress, both=both)
        searched = self._grid.right or self._grid.left
        left = _joined(_numbered(indices, searched.rows[searched.span(task.j)]), near, NEAREST_DTYPE)
        if indices_right is None or near_right is None:
            return left, None
        rows = self._grid.left.rows[self._grid.left.span(task.i)]
        return left, _joined(_numbered(indices_right, rows), near_right, NEAREST_DTYPE)

    def merge(self, into: State, other: State) -> None:
        step = max(1, _MERGED_AT_ONCE // max(1, self._k))
        for begin in range(0, len(into), step):
            both = np.concatenate([into[begin : begin + step], other[begin : begin + step]], axis=1)
            missing = both["row"] < 0
            order = np.lexsort((both["row"], np.where(missing, np.float32(np.inf), -both["similarity"])), axis=1)
            into[begin : begin + step] = np.take_along_axis(both, order[:, : self._k], axis=1)


def _joined(numbers: Indices, similarities: NDArray[np.float32], dtype: np.dtype[Any]) -> State:
    state = np.empty(numbers.shape, dtype)
    assert dtype.names is not None
    state[dtype.names[0]], state[dtype.names[1]] = numbers, similarities
    return state


def _numbered(places: Indices, rows: Indices) -> Indices:
    """Row numbers of places in a block, in place; -1 stays."""
    np.copyto(places, rows[np.maximum(places, 0)], where=places >= 0)
    return places
