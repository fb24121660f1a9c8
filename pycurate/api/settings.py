"""What a run and its plan settle before anything is read: recipe, pool, workers and memory cap."""

from __future__ import annotations

import os
from dataclasses import dataclass

from pycurate.engine import default_memory_bytes, worker_count
from pycurate.errors import InputError
from pycurate.io.pool import Pool, open_pool
from pycurate.recipes import Recipe


@dataclass(frozen=True, slots=True)
class Settings:
    """A checked recipe over an open pool, and how it may be run."""

    recipe: Recipe
    pool: Pool
    memory_bytes: int
    workers: int
    processes: bool


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
        processes=made.uses_processes and count > 1 if processes is None else processes,
    )
