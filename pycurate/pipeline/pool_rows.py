"""Numbers for the rows of a whole pool, in the order of its shards: where each shard begins, and who comes first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pycurate.pipeline.record_sort import RecordSort
from pycurate.pipeline.step import FitView
from pycurate.types import UID_DTYPE, UidArray


def shard_starts(view: FitView) -> tuple[dict[str, int], int]:
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
    ranks = np.memmap(view.scratch / f"{name}.bin", np.int64, "w+", shape=(max(rows, 1),))[:rows]
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
            order = np.argsort(places)  # pages are written once a range
            ranks[places[order]] = done + order
            done += len(part)
    return ranks


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
