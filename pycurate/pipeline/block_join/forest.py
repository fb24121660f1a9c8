"""The heaviest spanning forest: every task replaces the forest of all pairs so far by that of its own and these."""

from __future__ import annotations

import functools
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from pycurate.kernels.distinct import Floats, Indices
from pycurate.kernels.spanning_forest import heaviest_forest
from pycurate.pipeline.block_join.blocks import Grid
from pycurate.pipeline.block_join.source import open_array
from pycurate.pipeline.block_join.sweep import How, Task, run_tasks
from pycurate.pipeline.block_join.task_folder import TaskFolder

FOREST_DTYPE = np.dtype([("row", "<i8"), ("col", "<i8"), ("similarity", "<f4")])
_NAME = "forest.npy"


def sweep_forest(grid: Grid, folder: TaskFolder, floor: float, how: How) -> tuple[Indices, Indices, Floats]:
    """Run the tasks that are not done.

    The disk holds one forest, of fewer edges than there are rows, and while a task ends two.

    Returns
    -------
    rows, cols, similarities
        Edges between places in ``grid.left.rows``, heaviest first.
    """
    n = len(grid.left.rows)
    finished = _finished(grid, folder)
    last = finished[-1] if finished else None
    forest = np.empty(0, FOREST_DTYPE)
    if last is not None:
        forest = np.array(open_array(folder.task_path(*last, _NAME)))

    def work(task: Task) -> None:
        nonlocal forest, last
        rows, cols, similarities = task.pair.spanning_forest_above(floor, task.progress)
        rows, cols = rows + grid.left.span(task.i).start, cols + grid.left.span(task.j).start
        forest = _joined(
            *heaviest_forest(
                n,
                np.concatenate([forest["row"], rows]),
                np.concatenate([forest["col"], cols]),
                np.concatenate([forest["similarity"], similarities]),
            )
        )
        path = folder.task_path(task.i, task.j, _NAME)
        folder.write_file(path, forest.nbytes, functools.partial(_write_array, forest))
        folder.finish(task.i, task.j, [path])
        if last is not None:
            folder.task_path(*last, _NAME).unlink(missing_ok=True)
        last = task.i, task.j

    run_tasks(grid, how, lambda i, j: (i, j) in finished, work)
    return forest["row"].copy(), forest["col"].copy(), forest["similarity"].copy()


def _finished(grid: Grid, folder: TaskFolder) -> list[tuple[int, int]]:
    """The tasks up to the first that is not done; none where the forest that the last should have left is not there."""
    finished = []
    for i, j in grid.tasks():
        if not folder.has_marker(i, j):
            break
        finished.append((i, j))
    return finished if finished and folder.is_whole(*finished[-1], _NAME) else []


def _joined(rows: Indices, cols: Indices, similarities: Floats) -> NDArray[Any]:
    forest = np.empty(len(rows), FOREST_DTYPE)
    forest["row"], forest["col"], forest["similarity"] = rows, cols, similarities
    return forest


def _write_array(array: NDArray[Any], file: BinaryIO) -> None:
    np.lib.format.write_array(file, array, allow_pickle=False)
