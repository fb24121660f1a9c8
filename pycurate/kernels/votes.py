"""Votes of the labels of a row's neighbours, and the lists of neighbours that they are read from.

Rows with the same bits are one *node* of a list: they have one vote among them, and none about each other.
``pycurate.reference.votes`` defines what the compiled functions here answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pycurate import _core
from pycurate.kernels.arrays import thread_count_of
from pycurate.kernels.distinct import DistinctRows, Floats, Indices
from pycurate.kernels.join import join_of
from pycurate.kernels.neighbor_limit import device_for_neighbors
from pycurate.kernels.rowwise import Metric

Labels = NDArray[np.int32]
Read = Callable[[int, int], tuple[Indices, Floats]]

MAX_ROUNDS = 64
BLOCK_EDGES = 1 << 22
"""Neighbours that are looked at in one call: 50 MB of a list that is not in memory."""

__all__ = [
    "BLOCK_EDGES",
    "MAX_ROUNDS",
    "CastVotes",
    "ListBlock",
    "NeighborLists",
    "cast_votes",
    "consensus_step",
    "count_triples",
    "nearest_lists",
    "round_votes",
]


class ListBlock(NamedTuple):
    """The lists of some consecutive nodes, and the rows that belong to these."""

    first: int  # the first node
    indices: Indices  # (b, width) nodes, -1: none
    similarities: Floats  # (b, width)
    rows: Indices  # (r,)
    nodes: Indices  # (r,) the node of each, counted from ``first``


@dataclass(frozen=True, eq=False)
class NeighborLists:
    """The nearest nodes of every node, nearest first, ties to the lower one.

    Attributes
    ----------
    n, count, width
        Rows, nodes, and neighbours in each list.
    read
        ``read(first, last)`` gives the lists of some nodes: (last - first, width) int64, -1 beyond the last, and
        float32 similarities.
    node
        (n,) each row's node, -1 for a row that cannot be judged; None where row i is node i.
    unjudged
        (u,) rising rows.
    """

    n: int
    count: int
    width: int
    read: Read
    node: Indices | None
    unjudged: Indices

    @property
    def first_rows(self) -> Indices:
        """(count,) a row of each node, the lowest."""
        if self.node is None:
            return np.arange(self.n)
        rows = np.full(self.count, self.n, np.int64)
        judged = np.flatnonzero(self.node >= 0)
        np.minimum.at(rows, self.node[judged], judged)
        return rows

    def blocks(self) -> Iterator[ListBlock]:
        """All lists, some at a time."""
        step = max(1, BLOCK_EDGES // max(self.width, 1))
        order = bounds = None
        if self.node is not None:
            order = np.argsort(self.node, kind="stable")[np.count_nonzero(self.node < 0) :]
            bounds = np.searchsorted(self.node[order], np.arange(0, self.count + step, step))
        for number, first in enumerate(range(0, self.count, step)):
            last = min(first + step, self.count)
            if order is None or bounds is None or self.node is None:
                rows = np.arange(first, last)
                nodes = rows - first
            else:
                rows = order[bounds[number] : bounds[number + 1]]
                nodes = self.node[rows] - first
            yield ListBlock(first, *self.read(first, last), rows, nodes)

    def node_labels(self, labels: Labels) -> Labels:
        """(count,) the label that most labelled rows of a node carry; -1 without any, or where two are tied."""
        if self.node is None:
            return labels
        result = np.full(self.count, -1, np.int32)
        rows = np.flatnonzero((self.node >= 0) & (labels >= 0))
        node, label = self.node[rows], labels[rows]
        order = np.lexsort((label, node))
        node, label = node[order], label[order]
        new = np.ones(len(node), bool)
        new[1:] = (node[1:] != node[:-1]) | (label[1:] != label[:-1])
        starts = np.flatnonzero(new)
        size = np.diff(np.append(starts, len(node)))
        node, label = node[starts], label[starts]
        best = np.zeros(self.count, np.int64)
        np.maximum.at(best, node, size)
        most = size == best[node]
        result[node[most]] = label[most]
        result[np.bincount(node[most], minlength=self.count) > 1] = -1
        return result


def nearest_lists(
    x: NDArray[Any],
    k: int,
    metric: Metric = "cosine",
    *,
    threads: int | None = None,
    dtype: Literal["bfloat16"] | None = None,
    device: str | None = None,
) -> NeighborLists:
    """The k nearest other distinct rows of every distinct row, exactly.

    ``x``, ``metric``, ``threads``, ``dtype`` and ``device`` as in `pycurate.nearest`, but more than 128 neighbours are
    found on the CPU. Holds 12 k bytes a row; no answer about copies is ever expanded.
    """
    join = join_of(x, None, metric, "exact", "skip", threads, dtype, device_for_neighbors(device, k))
    distinct = join.left.distinct
    width = max(1, min(k, len(distinct.rows) - 1))
    if len(distinct.rows) > 1:
        indices, similarities, _, _ = join.kernels.top_k(
            *join.operands(neighbors=width), width, False, join.threads, None
        )
    else:
        indices = np.full((len(distinct.rows), width), -1, np.int64)
        similarities = np.full((len(distinct.rows), width), np.nan, np.float32)
    return lists_of_distinct(distinct, indices, similarities)


def lists_of_distinct(distinct: DistinctRows, indices: Indices, similarities: Floats) -> NeighborLists:
    """Lists from the (g, k) nearest first rows of groups, as row numbers, of each group."""
    whole = len(distinct.rows) == distinct.n

    def read(first: int, last: int) -> tuple[Indices, Floats]:
        found = np.asarray(indices[first:last])
        if not whole:
            found = np.where(found >= 0, distinct.group[found], -1)
        return np.ascontiguousarray(found), np.ascontiguousarray(similarities[first:last])

    return NeighborLists(
        distinct.n, len(distinct.rows), indices.shape[1], read, None if whole else distinct.group, distinct.unjudged
    )


class CastVotes(NamedTuple):
    """What the neighbours of some rows say."""

    labels: Labels  # (r, top) by falling share, ties to the lower; -1 beyond the last
    shares: Floats  # (r, top)
    own: Floats  # (r,) share of the row's own label; NaN without one, or without votes
    totals: Floats  # (r,) weight of all votes
    voters: Labels  # (r,)


def cast_votes(
    block: ListBlock, voters: Labels, own: Labels, *, weighted: bool, top: int, threads: int | None = None
) -> CastVotes:
    """Votes for the rows of a block. ``voters`` (count,) labels of nodes, ``own`` (r,) those of the rows."""
    weights = block.similarities if weighted else None
    return CastVotes(
        *_core.votes.cast_votes(
            block.indices, weights, block.first, voters, block.nodes, own, top, thread_count_of(threads)
        )
    )


def round_votes(
    block: ListBlock,
    voters: Labels,
    own: Labels,
    members: NDArray[np.uint64],
    rounds: range,
    neighbors: int,
    *,
    own_vote: bool,
    weighted: bool = True,
    scores: bool = False,
    threads: int | None = None,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], Floats | None]:
    """Per row of a block: rounds in which another label wins, rounds judged, and (r, rounds) unit votes of its label.

    ``members`` (count,): bit r says that the node is there in round r; at most ``MAX_ROUNDS``.
    """
    weights = block.similarities if weighted else None
    return _core.votes.round_votes(
        block.indices, weights, block.first, voters, block.nodes, own, members, rounds.start, rounds.stop, neighbors,
        own_vote, scores, thread_count_of(threads),
    )  # fmt: skip


def count_triples(
    block: ListBlock, voters: Labels, own: Labels, classes: int, counts: Indices, threads: int | None = None
) -> None:
    """Add the rows of a block to ``counts`` (classes**3,): own label, and those of the two nearest labelled nodes."""
    _core.votes.count_triples(
        block.indices, block.first, voters, block.nodes, own, classes, counts, thread_count_of(threads)
    )


def consensus_step(
    labels: Labels,
    counts: NDArray[np.float64],
    given: NDArray[np.float64],
    prior: NDArray[np.float64],
    threads: int | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """One step of expectation maximisation over triples of labels; as ``pycurate.reference.votes`` defines it."""
    return _core.votes.consensus_step(labels, counts, given, prior, thread_count_of(threads))
