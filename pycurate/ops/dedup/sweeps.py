"""The loops of removal that one row after another takes: compiled when first used, about two seconds once a machine.

Rows are named by their rank here, so that the earlier of two is the lower.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pycurate.kernels.distinct import Floats, Indices

MOST_THRESHOLDS = 64
"""That one sweep answers: a bit each."""
PAIRS_AT_ONCE = 1 << 22
"""Held while ranks are decided, 12 bytes each; of one rank all, fewer than there are rows."""


def sweep_greedy(
    rank: Indices, rows: Indices, cols: Indices, similarities: Floats, limit: float
) -> tuple[Indices, Floats]:
    """(n,) by rank: the most similar kept row of lower rank, -1 where a row is kept, and its similarity.

    Parameters
    ----------
    rank
        (n,) of each row; rows may share one, and then no row has some others.
    rows, cols, similarities
        (p,) pairs, which may be memory maps; those below ``limit`` are left out. 4 million at a time are held.
    """
    ranks, best = np.full(len(rank), -1, np.int64), np.full(len(rank), np.nan, np.float32)
    for first, starts, earlier, near in _by_later(rank, rows, cols, similarities, np.float32(limit)):
        _compiled(_sweep_greedy)(first, starts, earlier, near, ranks, best)
    return ranks, best


def count_greedy(rank: Indices, rows: Indices, cols: Indices, levels: NDArray[np.uint8], thresholds: int) -> Indices:
    """(thresholds,) ranks that are kept at each of at most 64 thresholds, in one sweep.

    Parameters
    ----------
    rank, rows, cols
        As in `sweep_greedy`.
    levels
        (p,) how many of the rising thresholds each pair reaches.
    """
    kept, removed = np.zeros(thresholds, np.int64), np.zeros(len(rank), np.uint64)
    for first, starts, earlier, reached in _by_later(rank, rows, cols, levels, np.uint8(1)):
        _compiled(_count_greedy)(first, starts, earlier, reached, removed, kept)
    return kept


def links_to_earliest(n: int, a: Indices, b: Indices, similarities: Floats) -> tuple[Indices, Floats]:
    """(n,) by rank: the lowest rank of each tree, -1 at that rank itself, and the weakest link on the way to it.

    ``a`` and ``b`` are (e,) ranks, the edges of a forest.
    """
    ends, others = np.concatenate([a, b]), np.concatenate([b, a])
    order = np.argsort(ends, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(ends, minlength=n))]).astype(np.int64)
    ranks, weakest = np.full(n, -1, np.int64), np.full(n, np.nan, np.float32)
    _compiled(_walk)(starts, others[order], np.concatenate([similarities, similarities])[order], ranks, weakest)
    return ranks, weakest


def add_links(parents: Indices, levels: NDArray[np.int32], rows: Indices, cols: Indices, at: NDArray[np.int32]) -> None:
    """Add edges to a spanning forest that keeps, in place, the least level on which any two rows are linked.

    Parameters
    ----------
    parents, levels
        (n,) a lower row that each is linked to, -1 at first and where none is, and the level of that link. Two rows
        are linked on a level when the links up to it lead to the same row. May be memory maps.
    rows, cols, at
        (e,) edges between different rows, and their levels, in any order.
    """
    _compiled(_add_links)(np.asarray(parents), np.asarray(levels), rows, cols, at)


def follow_links(parents: Indices, levels: NDArray[np.int32]) -> None:
    """Of the forest of `add_links`, in place: the lowest row of each tree, and the least level that links it."""
    _compiled(_follow_links)(np.asarray(parents), np.asarray(levels))


@functools.cache
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    import numba  # half a second

    try:
        compiled: Callable[..., Any] = numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:  # nowhere to keep compiled code, neither beside this file nor in the user's cache
        compiled = numba.njit(nogil=True)(function)
    return compiled


def _by_later(
    rank: Indices, rows: Indices, cols: Indices, values: NDArray[Any], least: np.generic
) -> Iterator[tuple[int, Indices, Indices, NDArray[Any]]]:
    """For ranges of ranks, lowest first: the first of them, where each one's pairs with lower ranks begin, those lower
    ranks, and the values of these pairs.

    All pairs are read once to count them and once a range, from where they lie.
    """
    pairs = [np.asarray(part) for part in (rank, rows, cols, values)]  # of memory maps the arrays themselves
    starts = np.zeros(len(rank) + 1, np.int64)
    _compiled(_count_by_later)(*pairs, least, starts[1:])
    np.cumsum(starts, out=starts)
    first = 0
    while first < len(rank):
        end = max(first + 1, int(np.searchsorted(starts, starts[first] + PAIRS_AT_ONCE, side="right")) - 1)
        of_range = starts[first : end + 1] - starts[first]
        earlier, grouped = np.empty(of_range[-1], np.int64), np.empty(of_range[-1], values.dtype)
        _compiled(_group_by_later)(*pairs, least, first, end, of_range[:-1].copy(), earlier, grouped)
        yield first, of_range, earlier, grouped
        first = end


def _count_by_later(rank: Any, rows: Any, cols: Any, values: Any, least: Any, counts: Any) -> None:
    for p in range(len(rows)):
        if values[p] >= least:
            counts[max(rank[rows[p]], rank[cols[p]])] += 1


def _group_by_later(
    rank: Any,
    rows: Any,
    cols: Any,
    values: Any,
    least: Any,
    first: Any,
    end: Any,
    places: Any,
    earlier: Any,
    grouped: Any,
) -> None:
    for p in range(len(rows)):
        if values[p] >= least:
            a, b = rank[rows[p]], rank[cols[p]]
            later = max(a, b)
            if first <= later < end:
                place = places[later - first]
                places[later - first] += 1
                earlier[place] = min(a, b)
                grouped[place] = values[p]


def _sweep_greedy(first: Any, starts: Any, earlier: Any, near: Any, ranks: Any, best: Any) -> None:
    for place in range(len(starts) - 1):
        rank = first + place
        for p in range(starts[place], starts[place + 1]):
            other = earlier[p]
            if other == rank or ranks[other] >= 0:
                continue
            if ranks[rank] < 0 or near[p] > best[rank] or (near[p] == best[rank] and other < ranks[rank]):
                ranks[rank], best[rank] = other, near[p]


def _count_greedy(first: Any, starts: Any, earlier: Any, reached: Any, removed: Any, kept: Any) -> None:
    every = np.uint64(0xFFFFFFFFFFFFFFFF)
    for place in range(len(starts) - 1):
        rank = first + place
        bits = np.uint64(0)
        for p in range(starts[place], starts[place + 1]):
            other = earlier[p]
            if other != rank and reached[p] > 0:
                bits |= ~removed[other] & (every >> np.uint64(64 - reached[p]))
        removed[rank] = bits
        for t in range(len(kept)):
            if not (bits >> np.uint64(t)) & np.uint64(1):
                kept[t] += 1


def _walk(starts: Any, others: Any, near: Any, ranks: Any, weakest: Any) -> None:
    n = len(ranks)
    seen = np.zeros(n, np.bool_)
    queue = np.empty(n, np.int64)
    for root in range(n):
        if seen[root]:
            continue
        seen[root] = True
        queue[0] = root
        head, tail = 0, 1
        while head < tail:
            row = queue[head]
            head += 1
            for e in range(starts[row], starts[row + 1]):
                other = others[e]
                if not seen[other]:
                    seen[other] = True
                    ranks[other] = root
                    weakest[other] = near[e] if row == root else min(near[e], weakest[row])
                    queue[tail] = other
                    tail += 1


def _add_links(parents: Any, levels: Any, rows: Any, cols: Any, at: Any) -> None:
    for e in range(len(rows)):
        a, b, level = rows[e], cols[e], at[e]
        while True:
            for side in range(2):  # up to the lowest row that this level links
                row = b if side else a
                while parents[row] >= 0 and levels[row] <= level:
                    above = parents[row]
                    while parents[above] >= 0 and levels[above] <= levels[row]:
                        above = parents[above]
                    parents[row] = above
                    row = above
                if side:
                    b = row
                else:
                    a = row
            if a == b:
                break
            if a < b:
                a, b = b, a
            above, above_level = parents[a], levels[a]
            parents[a], levels[a] = b, level
            if above < 0:
                break
            a, level = above, above_level  # what linked the two on a higher level now links b


def _follow_links(parents: Any, levels: Any) -> None:
    for row in range(len(parents)):  # parents are lower, so that theirs are known
        above = parents[row]
        if above >= 0 and parents[above] >= 0:
            parents[row] = parents[above]
            levels[row] = max(levels[row], levels[above])
