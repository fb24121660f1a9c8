"""Rows with the same bits, collapsed before a kernel sees them and expanded again in its answers, exactly.

Web pools hold clumps of 100,000 identical rows. Among them alone n² / 2 pairs reach any threshold, so a kernel gets one
row of each clump, and what it says of that row is carried to the others here, in memory that grows with the answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pycurate import _core
from pycurate.kernels.device import cuda_kernels
from pycurate.kernels.rowwise import A_NOT_FINITE, A_ZERO, Metric

if TYPE_CHECKING:
    from pycurate import _core_cuda

Indices = NDArray[np.int64]
Floats = NDArray[np.float32]

# Rows handled at once: what is held besides the answer stays near 4M candidates, 100 MB, however large a clump is.
_STEP_CANDIDATES = 1 << 22
_STEP_ROWS = 4096


@dataclass(frozen=True, eq=False)
class DistinctRows:
    """The rows of one matrix in groups of equal bits. Rows that cannot be judged are in no group."""

    copy_of: Indices  # (n,) the lowest row with the same bits, -1 where the row is the first with its bits
    unjudged: Indices  # (u,) rising

    @classmethod
    def of(cls, x: NDArray[Any], element: Any, metric: Metric, threads: int, *, collapse: bool = True) -> DistinctRows:
        """Reads ``x`` twice: once for its squared norms, once for its bits. Not ``collapse``: no row is a copy."""
        copy_of = _core.fused_similarity.copies(x, element, threads) if collapse else np.full(len(x), -1)
        return cls(copy_of, cls.unjudged_of(x, element, metric, threads))

    @classmethod
    def on_device(cls, x: _core_cuda.Matrix, metric: Metric, *, collapse: bool = True) -> DistinctRows:
        """Of rows in the memory of a GPU."""
        copy_of = x.copies() if collapse else np.full(x.shape[0], -1)
        return cls(copy_of, _unjudged(cuda_kernels().measure_rows(x, None, None)[1], metric))

    @staticmethod
    def unjudged_of(x: NDArray[Any], element: Any, metric: Metric, threads: int) -> Indices:
        """(u,) rising."""
        return _unjudged(_core.rowwise.measure_rows(x, element, None, None, threads)[1], metric)

    @property
    def n(self) -> int:
        return len(self.copy_of)

    @cached_property
    def rows(self) -> Indices:
        """(g,) the first row of each group, rising."""
        first = self.copy_of < 0
        first[self.unjudged] = False
        return np.flatnonzero(first)

    @cached_property
    def group(self) -> Indices:
        """(n,) each row's group, an index into ``rows``; -1 where it is in none."""
        index = np.full(self.n, -1, np.int64)
        index[self.rows] = np.arange(len(self.rows))
        copies = np.flatnonzero(self.copy_of >= 0)
        index[copies] = index[self.copy_of[copies]]
        return index

    @cached_property
    def members(self) -> Indices:
        """(n - u,) the rows of group 0, of group 1, ..., each group's rising."""
        order = np.argsort(self.group, kind="stable")
        return order[len(self.unjudged) :]

    @cached_property
    def sizes(self) -> Indices:
        """(g,) rows of each group, at least 1."""
        return np.bincount(self.group[self.group >= 0], minlength=len(self.rows))

    @cached_property
    def starts(self) -> Indices:
        """(g,) where each group begins in ``members``."""
        return np.cumsum(self.sizes) - self.sizes

    @property
    def has_copies(self) -> bool:
        return len(self.rows) + len(self.unjudged) < self.n

    def spread(self, values: NDArray[Any], unjudged: float) -> NDArray[Any]:
        """(n, ...) what each group has in ``values`` (g, ...) for every row of it, and ``unjudged`` for the rest."""
        if len(self.rows) == self.n:
            return values
        result = np.full((self.n, *values.shape[1:]), unjudged, values.dtype)
        judged = self.group >= 0
        result[judged] = values[self.group[judged]]
        return result


def row_hashes(x: NDArray[Any], element: Any, threads: int) -> NDArray[np.uint64]:
    """(n,) 64 bits that follow from the bytes of each row alone; rows that differ may share them."""
    return _core.fused_similarity.row_hashes(x, element, threads)


def _unjudged(flags: NDArray[np.uint8], metric: Metric) -> Indices:
    return np.flatnonzero(flags & (A_NOT_FINITE | A_ZERO if metric == "cosine" else A_NOT_FINITE))


def self_similarities(x: NDArray[Any], element: Any, metric: Metric, rows: Indices) -> Floats:
    """(len(rows),) canonical similarity of each of these judged rows of ``x`` with a row of the same bits."""
    if metric != "inner_product":
        return np.full(len(rows), 1 if metric == "cosine" else 0, np.float32)
    result = np.empty(len(rows), np.float32)
    for begin in range(0, len(rows), _STEP_ROWS):
        part = x[rows[begin : begin + _STEP_ROWS]]
        result[begin : begin + _STEP_ROWS] = _core.rowwise.score_pairs(
            part, part, element, metric, False, None, None, None, None, 1
        )[0]
    return result


def expand_nearest(
    indices: Indices, similarities: Floats, k: int, queries: DistinctRows, targets: DistinctRows, own: Floats | None
) -> tuple[Indices, Floats]:
    """The k nearest rows of every row, from the nearest groups of every group.

    Parameters
    ----------
    indices, similarities
        (g, k') for each group of ``queries`` the first rows of the nearest groups of ``targets``, nearest first, ties
        to the lower row, -1 and NaN beyond the last; all of them, or at least k. The k nearest rows lie in these
        groups: a row of any other group comes after the first rows of k groups.
    k
        Neighbours of each row.
    queries, targets
        The same object when rows are asked for other rows of the same matrix.
    own
        (g,) then the similarity of the rows of a group with each other; else None.

    Returns
    -------
    (n, k) rows of ``targets`` and their similarities, nearest first, ties to the lower row; -1 and NaN beyond the last.
    """
    if not targets.has_copies:
        return queries.spread(_padded(indices, k, -1), -1), queries.spread(_padded(similarities, k, np.nan), np.nan)
    all_rows, all_similarities = np.full((queries.n, k), -1), np.full((queries.n, k), np.nan, np.float32)
    for rows, found, near in expanded_nearest(0, indices, similarities, k, queries, targets, own):
        all_rows[rows], all_similarities[rows] = found, near
    return all_rows, all_similarities


def expanded_nearest(
    first_group: int,
    indices: Indices,
    similarities: Floats,
    k: int,
    queries: DistinctRows,
    targets: DistinctRows,
    own: Floats | None,
) -> Iterator[tuple[Indices, Indices, Floats]]:
    """What :func:`expand_nearest` returns, for the rows of the groups from ``first_group`` on, some at a time.

    ``indices``, ``similarities`` and ``own`` have a row for each of these groups.

    Yields
    ------
    rows, indices, similarities
        (r,) rows of ``queries``, and (r, k) each.
    """
    most = min((k + 1) ** 2, targets.n)  # candidates of one group
    step, step_rows = max(1, _STEP_CANDIDATES // most), max(1, _STEP_CANDIDATES // (k + 1))
    for begin in range(0, len(indices), step):
        part = slice(begin, begin + step)
        near = similarities[part]
        if targets.has_copies:
            groups = np.where(indices[part] >= 0, targets.group[indices[part]], -1)
            if own is not None:
                groups = np.column_stack([groups, np.arange(first_group + begin, first_group + begin + len(groups))])
                near = np.column_stack([near, own[part]])
            listed = _nearest_members(groups, near, k + 1, targets)
        else:
            listed = _padded(indices[part], k + 1, -1), _padded(near, k + 1, np.nan)
        start_group = first_group + begin
        first = int(queries.starts[start_group])
        last = first + int(queries.sizes[start_group : start_group + len(near)].sum())
        for start in range(first, last, step_rows):
            rows = queries.members[start : min(start + step_rows, last)]
            place = queries.group[rows] - start_group
            rows_of_group = listed[0][place]
            # A row is in its own group's list or comes after it; the k that remain without it are its neighbours.
            is_self = rows_of_group == (rows[:, None] if own is not None else -2)
            at = np.where(is_self.any(axis=1), is_self.argmax(axis=1), k)
            columns = np.arange(k) + (np.arange(k) >= at[:, None])
            yield (
                rows,
                np.take_along_axis(rows_of_group, columns, axis=1),
                np.take_along_axis(listed[1][place], columns, axis=1),
            )


def linked_copies(distinct: DistinctRows, rows: Indices, cols: Indices, own_reaches: NDArray[np.bool_]) -> Indices:
    """Rows that belong to the component of the row they are a copy of, given the edges of the first rows of groups.

    Copies reach each other (``own_reaches``, (g,)), or they reach the same other row: else each of them is alone.
    """
    linked = own_reaches.copy()
    linked[distinct.group[rows]] = True
    linked[distinct.group[cols]] = True
    copies = np.flatnonzero((distinct.copy_of >= 0) & (distinct.group >= 0))
    return copies[linked[distinct.group[copies]]]


def first_and_later(distinct: DistinctRows, rank: Indices) -> tuple[Indices, Indices]:
    """(g,) the lowest rank in each group, and the rising rows that have another rank."""
    first = np.minimum.reduceat(rank[distinct.members], distinct.starts) if len(distinct.rows) else rank[:0]
    members = distinct.members
    return first, np.sort(members[rank[members] != first[distinct.group[members]]])


def expand_earlier(
    ranks: Indices, best: Floats, first: Indices, later: Indices, floor: float, distinct: DistinctRows, own: Floats
) -> tuple[Indices, Floats]:
    """(n,) rank and similarity of each row's most similar earlier row, for cosine and l2.

    Parameters
    ----------
    ranks, best
        (g,) each, of the highest-ranked row of each group, among the highest-ranked rows of all groups.
    first, later
        As :func:`first_and_later` returns them.
    own
        (g,) similarity of the rows of a group with each other, than which none is larger: so the most similar row of
        the later ones is the first of their group, or an earlier one that is as similar.
    """
    all_ranks, all_best = distinct.spread(ranks, -1), distinct.spread(best, np.nan)
    group = distinct.group[later]
    by_copy = (own[group] >= floor) & ~(best[group] >= own[group])
    all_ranks[later[by_copy]], all_best[later[by_copy]] = first[group[by_copy]], own[group[by_copy]]
    return all_ranks, all_best


def _nearest_members(groups: Indices, near: Floats, k: int, targets: DistinctRows) -> tuple[Indices, Floats]:
    """(c, k) rows of the groups (c, p) of ``targets``, the largest ``near`` (c, p) first, ties to the lower row."""
    order = np.argsort(-near, axis=1, kind="stable")
    groups, near = np.take_along_axis(groups, order, axis=1), np.take_along_axis(near, order, axis=1)
    taken = np.where(groups >= 0, np.minimum(targets.sizes[groups], k), 0)
    # Groups behind k strictly nearer rows are left out; equally near ones compete by row number.
    before = np.cumsum(taken, axis=1) - taken
    new_value = np.ones(near.shape, bool)
    new_value[:, 1:] = near[:, 1:] != near[:, :-1]
    taken[np.maximum.accumulate(np.where(new_value, before, 0), axis=1) >= k] = 0

    counts = taken.ravel()
    ends = np.cumsum(counts)
    offset = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - counts, counts)
    rows = targets.members[np.repeat(targets.starts[groups.ravel()], counts) + offset]
    values = np.repeat(near.ravel(), counts)
    owner = np.repeat(np.repeat(np.arange(len(groups)), groups.shape[1]), counts)
    sorted_by = np.lexsort((rows, -values, owner))
    rows, values, owner = rows[sorted_by], values[sorted_by], owner[sorted_by]
    per_owner = taken.sum(axis=1)
    rank = np.arange(len(rows)) - np.repeat(np.cumsum(per_owner) - per_owner, per_owner)
    kept = rank < k
    listed, similarities = np.full((len(groups), k), -1), np.full((len(groups), k), np.nan, np.float32)
    listed[owner[kept], rank[kept]] = rows[kept]
    similarities[owner[kept], rank[kept]] = values[kept]
    return listed, similarities


def _padded(values: NDArray[Any], k: int, fill: float) -> NDArray[Any]:
    if values.shape[1] == k:
        return values
    result = np.full((len(values), k), fill, values.dtype)
    result[:, : values.shape[1]] = values
    return result
