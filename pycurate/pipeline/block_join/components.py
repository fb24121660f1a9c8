"""Components by pairs above a threshold: every task leaves the edges that join components not joined before it."""

from __future__ import annotations

import functools
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from pycurate.kernels.block_similarity import lowest_of_component
from pycurate.pipeline.block_join.blocks import Grid
from pycurate.pipeline.block_join.source import Indices, open_array
from pycurate.pipeline.block_join.sweep import How, Task, run_tasks
from pycurate.pipeline.block_join.task_folder import TaskFolder


def sweep_components(grid: Grid, folder: TaskFolder, limit: float, how: How) -> Indices:
    """Run the tasks that are not done.

    All files together hold fewer edges than there are rows, however many pairs there are.

    Returns
    -------
    (g,) for each row of the grid's left the lowest of its component, both as places in ``grid.left.rows``.
    """
    rows = len(grid.left.rows)
    done = {(i, j) for i, j in grid.tasks() if folder.facts(i, j) is not None}
    edges = [open_array(folder.task_path(i, j, "edges.npy")) for i, j in grid.tasks() if (i, j) in done]
    known = np.concatenate([np.empty((2, 0), np.int64), *edges], axis=1)
    lowest = lowest_of_component(rows, np.ascontiguousarray(known[0]), np.ascontiguousarray(known[1]))

    def work(task: Task) -> None:
        nonlocal lowest
        found = task.pair.forest_above(limit, task.progress)
        a = lowest[found[0] + grid.left.span(task.i).start]
        b = lowest[found[1] + grid.left.span(task.j).start]
        joined = lowest_of_component(rows, a, b)
        ends = np.unique(np.concatenate([a, b]))
        ends = ends[joined[ends] != ends]
        lowest = joined[lowest]
        new = np.stack([joined[ends], ends])
        path = folder.task_path(task.i, task.j, "edges.npy")
        folder.write_file(path, new.nbytes, functools.partial(_write_array, new))
        folder.finish(task.i, task.j, [path])

    run_tasks(grid, how, lambda i, j: (i, j) in done, work)
    return lowest


def _write_array(array: NDArray[Any], file: BinaryIO) -> None:
    np.lib.format.write_array(file, array, allow_pickle=False)
