"""What a run and its plan settle before anything is read: recipe, pool, workers and memory cap."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace

from pycurate.engine import default_memory_bytes, worker_count
from pycurate.errors import InputError
from pycurate.io.pool import Pool, open_pool
from pycurate.pipeline.scan import Scanner, ScanTask
from pycurate.recipes import Recipe

PROCESS_START_SECONDS = 2.0
"""Until new worker processes have loaded their libraries: 1.3 s of one processor each measured."""
SAMPLE_BLOCK_ROWS, SAMPLE_ROWS, SAMPLE_SECONDS = 1024, 8192, 0.3


@dataclass(frozen=True, slots=True)
class Settings:
    """A checked recipe over an open pool, and how it may be run."""

    recipe: Recipe
    pool: Pool
    memory_bytes: int
    workers: int
    processes: bool | None  # None: those of the scan, where it pays; see ``processes_pay``


def settle(
    recipe: Recipe | str | os.PathLike[str],
    pool: Pool | str | os.PathLike[str],
    memory_bytes: int | None,
    workers: int | None,
    processes: bool | None,
) -> Settings:
    """Open and check everything that was given, and choose what was not; see ``pycurate.run`` for the defaults."""
    opened = pool if isinstance(pool, Pool) else open_pool(pool)
    made = recipe if isinstance(recipe, Recipe) else Recipe.load(recipe)
    made.check(opened)
    if opened.rows == 0:
        raise InputError(f"pool: {opened.root} has no rows; expected at least one")
    count = worker_count(workers)
    return Settings(
        recipe=made,
        pool=opened,
        memory_bytes=default_memory_bytes() if memory_bytes is None else memory_bytes,
        workers=count,
        processes=processes if processes is not None else None if made.uses_processes and count > 1 else False,
    )


def processes_pay(scanner: Scanner, tasks: Sequence[ScanTask], workers: int) -> bool:
    """Whether worker processes save more than their start costs, measured on the first rows of the first task.

    A language model at 100 us a row pays from 40,000 rows on; a plain function of a caption only from many millions on.
    """
    if not tasks:
        return False
    rows, seconds = 0, 0.0
    with closing(replace(scanner, block_rows=SAMPLE_BLOCK_ROWS).scored_blocks(tasks[0])) as blocks:
        started = time.perf_counter()
        for number, scored in enumerate(blocks):
            took = time.perf_counter() - started
            if number == 1:
                rows, seconds = 0, 0.0  # the first block opened files and loaded models
            rows, seconds = rows + scored.block.rows, seconds + took
            if number and (seconds > SAMPLE_SECONDS or rows >= SAMPLE_ROWS):
                break
            started = time.perf_counter()
    total = sum(scanner.pool.shard(task.shard).rows for task in tasks)
    saved_seconds = total * seconds / max(rows, 1) * (1 - 1 / workers)
    return saved_seconds > PROCESS_START_SECONDS
