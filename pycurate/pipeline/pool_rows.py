"""Numbers for the rows of a whole pool, in the order of its shards: where each shard begins, and who comes first."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from pycurate.io.atomic import naming_a_full_disk
from pycurate.pipeline.record_sort import RecordSort
from pycurate.pipeline.step import FitView
from pycurate.types import UID_DTYPE, UidArray


class Shards(Protocol):
    """What has shards of known length, as a ``FitView`` and a ``Decider`` have."""

    @property
    def shards(self) -> Sequence[str]: ...

    def rows(self, shard: str) -> int: ...


def shard_starts(view: Shards) -> tuple[dict[str, int], int]:
    """The row of the pool at which each shard begins, and the rows of the pool."""
    starts, rows = {}, 0
    for shard in view.shards:
        starts[shard] = rows
        rows += view.rows(shard)
    return starts, rows


def pool_ranks(view: FitView, keys: Callable[[str], NDArray[np.uint64]], name: str = "ranks") -> NDArray[np.int64]:
    """The place of every row of the pool in the order of (key, uid, row): out of core, 32 bytes a row on disk.

    Parameters
    ----------
    keys
        Of a shard, (n,) uint64: lower comes first (``ops.dedup.priority.priority_keys``).
    name
        Of the files in ``view.scratch``.

    Returns
    -------
    (rows of the pool,) int64, memory-mapped in ``view.scratch``: 0 for the first. Rows with the same uid are told
    apart by their place, so that ranks are a permutation.
    """
    starts, rows = shard_starts(view)
    ranks = new_array(view.scratch / f"{name}.bin", np.int64, (rows,))
    with RecordSort(view.scratch / f"{name}.records", columns=4, key_columns=4) as records:

        def append(shard: str) -> None:
            uids = view.uids(shard)
            first = starts[shard]
            numbers = np.arange(first, first + len(uids), dtype=np.uint64)
            records.append(np.stack([keys(shard), uids["f0"], uids["f1"], numbers], axis=1))

        for _ in view.map(append):
            pass
        done = 0
        for part in records.ranges(view.memory_bytes):
            places = part[:, 3].astype(np.int64)
            scatter(ranks, places, np.arange(done, done + len(part)), view.memory_bytes)
            done += len(part)
    return ranks


def new_array(path: Path, dtype: DTypeLike, shape: tuple[int, ...]) -> NDArray[Any]:
    """Zeros of ``shape``, memory-mapped in a new file whose space on the disk is taken.

    Without that, a disk that fills up later would end the process by a signal where the array is written.
    """
    dtype = np.dtype(dtype)
    if 0 in shape:
        return np.empty(shape, dtype)
    with path.open("w+b") as file, naming_a_full_disk(path):
        os.posix_fallocate(file.fileno(), 0, math.prod(shape) * dtype.itemsize)
    return np.memmap(path, dtype, "r+", shape=shape)


def scatter(array: NDArray[Any], rows: NDArray[np.int64], values: Any, memory_bytes: int) -> None:
    """``array[rows] = values`` for an array of `new_array` that may be larger than memory.

    Rows are written in rising order, so that a page is touched once; the pages of each stretch of a quarter of
    ``memory_bytes`` are given to the disk before the next, as pages that wait to be written count as memory in use. An
    array that is no larger is left to the system.
    """
    order = np.argsort(rows)
    rows = rows[order]
    values = values if np.ndim(values) == 0 else np.asarray(values)[order]
    if array.nbytes <= memory_bytes // 4:
        array[rows] = values
        return
    stretch = max(1, memory_bytes // 4 // array.itemsize)
    edges = np.searchsorted(rows, np.arange(0, len(array) + stretch, stretch)).tolist()
    for begin, end in pairwise(edges):
        if end > begin:
            array[rows[begin:end]] = values if np.ndim(values) == 0 else values[begin:end]
            let_go(array)


def let_go(array: NDArray[Any]) -> None:
    """Give the written pages of an array of `new_array` to the disk."""
    if isinstance(array, np.memmap):
        array.flush()


def pool_uids(view: FitView, rows: NDArray[np.int64], starts: Mapping[str, int]) -> UidArray:
    """(m,) uids of these rows of the pool."""
    first = np.fromiter((starts[shard] for shard in view.shards), np.int64, len(view.shards))
    holders = np.searchsorted(first, rows, side="right") - 1
    found = np.empty(len(rows), UID_DTYPE)
    for holder in np.unique(holders).tolist():
        mine = holders == holder
        found[mine] = view.uids(view.shards[holder])[rows[mine] - first[holder]]
    return found


def row_place(shards: Sequence[str], starts: Mapping[str, int], row: int) -> tuple[str, int]:
    """The shard of a row of the pool, and its row there."""
    first = np.fromiter((starts[shard] for shard in shards), np.int64, len(shards))
    holder = int(np.searchsorted(first, row, side="right")) - 1
    return shards[holder], row - int(first[holder])
