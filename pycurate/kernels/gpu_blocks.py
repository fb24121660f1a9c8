"""Fused similarity on several GPUs, and on one of rows that do not fit in its memory: pair of blocks by pair.

The functions have the names and arguments of ``_core_cuda`` and give the same answers, which those about pairs of
blocks (``gpu_grid``) are put together to.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pycurate.kernels.device import cuda_kernels
from pycurate.kernels.gpu_grid import Grid, Matrix, Operand, Progress, Task, asked
from pycurate.kernels.partial_answers import MostSimilar, SpanningEdges, decoded, joined_columns

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]

__all__ = [
    "Matrix",
    "Operand",
    "count_above",
    "forest_above",
    "log_sum_exp",
    "max_earlier",
    "pairs_above",
    "spanning_forest_above",
    "top_k",
]


def _right_of(task: Task) -> slice:
    """The columns of a task's pairs."""
    return task.left if task.right is None else task.right


def pairs_above(
    a: Operand, b: Operand | None, threshold: float, max_pairs: int, threads: int, progress: Progress
) -> tuple[Integers, Integers, Floats] | None:
    """Sorted by (row, col); None where there are more than ``max_pairs``."""

    def question(grid: Grid) -> tuple[Integers, Integers, Floats] | None:
        found: list[tuple[Integers, Integers, Floats]] = []
        too_many, count = False, 0

        def take(task: Task, answer: tuple[Integers, Integers, Floats] | None) -> bool:
            nonlocal too_many, count
            too_many = answer is None or (count := count + len(answer[0])) > max_pairs
            if answer is not None:
                rows, cols, similarities = answer
                found.append((a.rows[task.left][rows], (b or a).rows[_right_of(task)][cols], similarities))
            return too_many

        def ask(x: Any, y: Any, task: Task, poll: Progress) -> Any:
            return cuda_kernels().pairs_above(x, y, threshold, max_pairs, threads, poll)

        grid.each(ask, take)
        return None if too_many else joined_columns(found)

    answer = asked(a, b, 0, progress, question)
    if answer is None:
        return None
    rows, cols, similarities = answer
    order = np.lexsort((cols, rows))
    return rows[order], cols[order], similarities[order]


def spanning_forest_above(
    a: Operand, b: Operand | None, floor: float, threads: int, progress: Progress
) -> tuple[Integers, Integers, Floats]:
    """The heaviest spanning forest, heaviest edge first."""

    def ask(x: Any, y: Any, task: Task, poll: Progress) -> Any:
        return cuda_kernels().spanning_forest_above(x, y, floor, threads, poll)

    return _spanned(a, b, progress, ask)


def forest_above(
    a: Operand, b: Operand | None, threshold: float, threads: int, progress: Progress
) -> tuple[Integers, Integers]:
    """Edges that span the components of the pairs."""

    def ask(x: Any, y: Any, task: Task, poll: Progress) -> Any:
        rows, cols = cuda_kernels().forest_above(x, y, threshold, threads, poll)
        return rows, cols, np.zeros(len(rows), np.float32)

    return _spanned(a, b, progress, ask)[:2]


def _spanned(a: Operand, b: Operand | None, progress: Progress, ask: Any) -> tuple[Integers, Integers, Floats]:
    """The forest of the edges of all tasks; a *node* is an index of a row of a, or behind them of b."""
    offset = 0 if b is None else a.n

    def question(grid: Grid) -> tuple[Integers, Integers, Floats]:
        forest = SpanningEdges(offset + (b or a).n)

        def take(task: Task, answer: tuple[Integers, Integers, Floats]) -> None:
            rows, cols, similarities = answer
            forest.add(rows + task.left.start, cols + offset + _right_of(task).start, similarities)

        grid.each(ask, take)
        return forest.edges()

    rows, cols, similarities = asked(a, b, 8, progress, question)
    return a.rows[rows], (b or a).rows[cols - offset], similarities


def count_above(
    a: Operand,
    b: Operand | None,
    threshold: float,
    weights_a: Integers | None,
    weights_b: Integers | None,
    threads: int,
    progress: Progress,
) -> tuple[Integers, Integers | None]:
    """Summed weights of the rows that each row reaches."""
    of_right = weights_a if b is None else weights_b

    def ask(x: Any, y: Any, task: Task, poll: Progress) -> Any:
        left = None if weights_a is None else weights_a[task.left]
        right = None if of_right is None or task.right is None else of_right[task.right]
        return cuda_kernels().count_above(x, y, threshold, left, right, threads, poll)

    def question(grid: Grid) -> tuple[Integers, Integers | None]:
        counts_a = np.zeros(a.n, np.int64)
        counts_b = counts_a if b is None else np.zeros(b.n, np.int64)

        def take(task: Task, answer: tuple[Integers, Integers | None]) -> None:
            counts_a[task.left] += answer[0]
            if answer[1] is not None:
                counts_b[_right_of(task)] += answer[1]

        grid.each(ask, take)
        return counts_a, None if b is None else counts_b

    return asked(a, b, 16, progress, question)


def max_earlier(
    a: Operand,
    b: Operand | None,
    rank_a: Integers,
    rank_b: Integers | None,
    floor: float,
    threads: int,
    progress: Progress,
) -> tuple[Integers, Floats, Integers | None, Floats | None]:
    """Rank and similarity of the most similar row of lower rank, -1 and NaN where there is none."""
    of_right = rank_a if b is None else rank_b
    if of_right is None:
        raise ValueError("rank_b: expected ranks of the rows of b, got None")

    def ask(x: Any, y: Any, task: Task, poll: Progress) -> Any:
        right = None if task.right is None else of_right[task.right]
        return cuda_kernels().max_earlier(x, y, rank_a[task.left], right, floor, threads, poll)

    def question(grid: Grid) -> tuple[Integers, Floats, Integers | None, Floats | None]:
        best_a = MostSimilar(a.n)
        best_b = best_a if b is None else MostSimilar(b.n)

        def take(task: Task, answer: Any) -> None:
            best_a.add(task.left, answer[0], answer[1])
            if answer[2] is not None:
                best_b.add(_right_of(task), answer[2], answer[3])

        grid.each(ask, take)
        return *best_a.answer(), *((None, None) if b is None else best_b.answer())

    return asked(a, b, 16, progress, question)


def top_k(
    a: Operand, b: Operand | None, k: int, both: bool, threads: int, progress: Progress
) -> tuple[Integers, Floats, Integers | None, Floats | None]:
    """The k nearest rows of each, and their similarities."""
    if b is None or not both:
        return *_nearest_of(a, b, k, threads, progress), None, None
    halves = [None if progress is None else _half_of(progress, begin) for begin in (0.0, 0.5)]
    return *_nearest_of(a, b, k, threads, halves[0]), *_nearest_of(b, a, k, threads, halves[1])


def _nearest_of(a: Operand, b: Operand | None, k: int, threads: int, progress: Progress) -> tuple[Integers, Floats]:
    """Of each row of a. One GPU meets all blocks of b with a block of a: lists that are full reject most rows."""

    def question(grid: Grid) -> NDArray[np.uint64]:
        lists = np.zeros((a.n, k), np.uint64)

        def ask(x: Any, y: Any, task: Task, poll: Progress) -> None:
            cuda_kernels().add_nearest(x, y, _right_of(task).start, lists[task.left], threads, poll)

        grid.each(ask, lambda task, answer: False)
        return lists

    rows, similarities = decoded(asked(a, b, 8 * k, progress, question, by_row=True))
    return np.append((b or a).rows, -1)[rows], similarities


def _half_of(progress: Callable[[float], object], begin: float) -> Callable[[float], object]:
    return lambda fraction: progress(begin + fraction / 2)


def log_sum_exp(
    a: Operand, b: Operand, scale: float, threads: int, progress: Progress
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sums over the blocks, added in their order."""

    def ask(x: Any, y: Any, task: Task, poll: Progress) -> Any:
        return cuda_kernels().log_sum_exp(x, y, scale, threads, poll)

    def question(grid: Grid) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        rows, cols = np.full(a.n, -np.inf), np.full(b.n, -np.inf)

        def take(task: Task, answer: tuple[NDArray[np.float64], NDArray[np.float64]]) -> None:
            for total, part, more in ((rows, task.left, answer[0]), (cols, _right_of(task), answer[1])):
                total[part] = np.logaddexp(total[part], more)

        grid.each(ask, take)
        return rows, cols

    return asked(a, b, 64, progress, question)
