"""Lists of nearest rows out of core: rows in order of uid in a file, compared by a `SimilarityJoin` under the cap."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pycurate.kernels.device import device_of
from pycurate.kernels.neighbor_limit import device_for_neighbors
from pycurate.kernels.rowwise import Metric
from pycurate.kernels.uid import sort_uids
from pycurate.kernels.votes import NeighborLists
from pycurate.pipeline.block_join import RowSource, SimilarityJoin
from pycurate.pipeline.block_join.distinct_rows import distinct_rows_of
from pycurate.pipeline.pool_rows import let_go, new_array
from pycurate.types import UidArray

HELD_ROW_BYTES = 200
"""Of each row, beside the join's 128: uids, places, nodes and their order, labels, and what is said of it."""


def places_by_uid(uids: UidArray) -> NDArray[np.int64]:
    """(n,) the place of each row in order of uid; of rows with the same uid the first comes first."""
    order = np.arange(len(uids), dtype=np.uint64)
    sort_uids(uids.copy(), order)
    places = np.empty(len(uids), np.int64)
    places[order.astype(np.int64)] = np.arange(len(uids))
    return places


def stored_rows(places: NDArray[np.int64], blocks: Iterable[NDArray[Any]], path: Path) -> NDArray[Any]:
    """Consecutive rows written to their places in a new file, which is memory-mapped."""
    stored: NDArray[Any] = np.empty((0, 1), np.float32)
    filled = 0
    for values in blocks:
        if not len(values):
            continue
        if not filled:
            stored = new_array(path, values.dtype, (len(places), values.shape[1]))
        stored[places[filled : filled + len(values)]] = values
        filled += len(values)
        let_go(stored)
    return stored


def joined_lists(
    rows: NDArray[Any],
    k: int,
    folder: Path,
    *,
    metric: Metric = "cosine",
    memory_bytes: int,
    threads: int = 0,
    device: str | None = None,
    progress: Callable[[float], object] | None = None,
) -> NeighborLists:
    """The k nearest other distinct rows of every distinct row, exactly, as `pycurate.kernels.votes.nearest_lists`.

    Parameters
    ----------
    rows
        (n, d), perhaps a memory map; bfloat16 as uint16.
    folder
        For files: 36 k bytes a row, and a copy of the distinct rows where some have the same bits.
    memory_bytes
        What this may take; `HELD_ROW_BYTES` a row are needed.
    device
        As in `pycurate.similarity_join`; more than 128 neighbours are found on the CPU.
    """
    dtype = "bfloat16" if rows.dtype == np.uint16 else None
    source = RowSource("rows", rows, "bfloat16" if dtype else None)
    distinct = distinct_rows_of(source, metric, threads)
    first = distinct.rows
    whole = len(first) == len(rows)
    node = None if whole else distinct.group
    width = max(1, min(k, len(first) - 1))
    if len(first) < 2:
        indices = np.full((len(first), width), -1, np.int64)
        similarities = np.full((len(first), width), np.nan, np.float32)
    else:
        if not whole:
            stored = new_array(folder / "distinct.bin", rows.dtype, (len(first), rows.shape[1]))
            for begin in range(0, len(first), source.piece_rows):
                part = first[begin : begin + source.piece_rows]
                stored[begin : begin + len(part)] = source.take(part)
                let_go(stored)
            source = RowSource("rows", stored, "bfloat16" if dtype else None)
        left = memory_bytes - HELD_ROW_BYTES * len(rows)
        place = device_of(device_for_neighbors(device, width))
        join = SimilarityJoin(source, None, folder / "join", metric, "exact", left, threads, progress, place)
        found = join.nearest(width)
        indices, similarities = found.indices, found.similarities

    def read(begin: int, end: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        return np.array(indices[begin:end]), np.array(similarities[begin:end])

    return NeighborLists(len(rows), len(first), width, read, node, distinct.unjudged)
