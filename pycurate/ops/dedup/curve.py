"""How many rows each semantics keeps at each of many thresholds, from what it needs for one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pycurate.kernels.arrays import float32_of
from pycurate.kernels.distinct import Floats, Indices
from pycurate.ops.dedup import sweeps
from pycurate.ops.dedup.removal import checked_rank, first_of_copies

_STEP_PAIRS = 1 << 20


def kept_counts(n: int, similarities: Floats, thresholds: Sequence[float], strict: bool = False) -> Indices:
    """(t,) rows that `published` or `component` keeps: each similarity at or above a threshold removes one row.

    Parameters
    ----------
    n
        Rows there are.
    similarities
        (m,) in any order; of `published` each row's with its most similar earlier row, of `component` the edges of a
        spanning forest (with copies). NaN removes none.
    thresholds
        (t,) in any order.
    strict
        As in `pycurate.ops.dedup.removal`.
    """
    rising = np.sort(similarities[~np.isnan(similarities)])
    limits = _limits(thresholds)
    return n - (len(rising) - np.searchsorted(rising, limits, side="right" if strict else "left"))


def greedy_counts(
    n: int,
    rows: Indices,
    cols: Indices,
    similarities: Floats,
    rank: Indices,
    thresholds: Sequence[float],
    strict: bool = False,
    *,
    copy_of: Indices | None = None,
) -> Indices:
    """(t,) rows that `greedy` keeps; 64 thresholds take one sweep over the pairs.

    Parameters
    ----------
    n, rows, cols, similarities, rank, strict, copy_of
        As in `pycurate.ops.dedup.removal.greedy`.
    thresholds
        (t,) in any order.
    """
    rank, row_of_rank = checked_rank(n, rows, cols, similarities, rank)
    limits = _limits(thresholds)
    rising = np.argsort(limits, kind="stable")
    copies = np.zeros(n, bool) if copy_of is None else copy_of >= 0
    first = np.arange(n) if copy_of is None else first_of_copies(copy_of, rank, row_of_rank)
    kept = np.empty(len(limits), np.int64)
    for begin in range(0, len(rising), sweeps.MOST_THRESHOLDS):
        places = rising[begin : begin + sweeps.MOST_THRESHOLDS]
        some = limits[places]
        levels = _levels(some, similarities, strict)
        kept[places] = sweeps.count_greedy(rank[first], rows, cols, levels, len(places))
        kept[places] -= np.where(some < 1 if strict else some <= 1, int(np.count_nonzero(copies)), 0)
    return kept


def _levels(rising: Floats, similarities: Floats, strict: bool) -> NDArray[np.uint8]:
    """(p,) how many of the thresholds each similarity reaches."""
    levels = np.empty(len(similarities), np.uint8)
    for begin in range(0, len(levels), _STEP_PAIRS):
        part = np.asarray(similarities[begin : begin + _STEP_PAIRS])
        reached = np.searchsorted(rising, part, side="left" if strict else "right")
        levels[begin : begin + _STEP_PAIRS] = np.where(np.isnan(part), 0, reached)
    return levels


def _limits(thresholds: Sequence[float]) -> Floats:
    return np.array([float32_of("thresholds", threshold) for threshold in thresholds], np.float32)
