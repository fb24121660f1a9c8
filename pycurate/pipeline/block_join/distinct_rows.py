"""Rows that cannot be judged and rows with the same bits, found over all shards before any block is cut."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pycurate.kernels.distinct import DistinctRows, row_hashes
from pycurate.kernels.rowwise import Metric
from pycurate.pipeline.block_join.source import Indices, RowSource


def distinct_rows_of(source: RowSource, metric: Metric, threads: int) -> DistinctRows:
    """One pass over the rows, and a second over those whose 64-bit hash another row has, to compare their bytes.

    Holds about 40 bytes a row besides the result.
    """
    hashes = np.empty(len(source), np.uint64)
    unjudged = [np.empty(0, np.int64)]
    for start, piece in source.pieces():
        hashes[start : start + len(piece)] = row_hashes(piece, source.element, threads)
        unjudged.append(start + DistinctRows.unjudged_of(piece, source.element, metric, threads))
    return DistinctRows(_copies(source, hashes), np.concatenate(unjudged))


def _copies(source: RowSource, hashes: NDArray[np.uint64]) -> Indices:
    """(n,) the lowest row with the same bits, -1 for a row that is the first with its bits."""
    order = np.argsort(hashes, kind="stable")
    copy_of = np.full(len(hashes), -1, np.int64)
    is_start = np.ones(len(order), bool)
    is_start[1:] = hashes[order[1:]] != hashes[order[:-1]]
    starts = np.flatnonzero(is_start)
    lengths = np.diff(np.append(starts, len(order)))
    shared = lengths > 1
    first = np.repeat(order[starts[shared]], lengths[shared] - 1)
    later = order[~is_start]  # in the same order: every group's rows behind its first
    copy_of[later] = first
    later.sort()
    differing = [np.empty(0, np.int64)]
    for begin in range(0, len(later), source.piece_rows):
        rows = later[begin : begin + source.piece_rows]
        targets, place = np.unique(copy_of[rows], return_inverse=True)
        same = (_bits(source.take(rows)) == _bits(source.take(targets))[place]).all(axis=1)
        differing.append(copy_of[rows[~same]])
    for start in np.unique(np.concatenate(differing)):
        # Different rows of one hash, once in 2^64 / n^2 / 2 matrices: settled by the bytes themselves.
        group = np.append(start, np.flatnonzero(copy_of == start))
        found: dict[bytes, int] = {}
        lowest = np.array([found.setdefault(source.take(group[i : i + 1]).tobytes(), r) for i, r in enumerate(group)])
        copy_of[group] = np.where(lowest == group, -1, lowest)
    return copy_of


def _bits(rows: NDArray[Any]) -> NDArray[Any]:
    """As unsigned integers: a NaN equals itself, and 0 is not -0."""
    return rows.view(f"u{rows.itemsize}")
