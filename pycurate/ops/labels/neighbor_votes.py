"""What the labels of a row's nearest neighbours say of it, the row itself and its copies left out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pycurate.errors import InputError
from pycurate.index.rows import check_count
from pycurate.kernels.arrays import require_option
from pycurate.kernels.rowwise import Metric
from pycurate.kernels.votes import ListBlock, NeighborLists, cast_votes
from pycurate.ops.labels.label_codes import Labels, label_codes
from pycurate.ops.labels.neighbors import WEIGHT_NEEDS_COSINE, Knn, neighbor_lists
from pycurate.types import UidArray

Weights: TypeAlias = Literal["similarity", "count"]


@dataclass(frozen=True, slots=True, eq=False)
class NeighborVotes:
    """Votes for every row.

    Attributes
    ----------
    labels
        (n, top) int32, by falling share, ties to the lower label; -1 beyond the last label that has votes.
    shares
        (n, top) float32 in [0, 1] of all votes; 0 beyond the last. What is missing to 1 lies with labels beyond top.
    agreement
        (n,) float32: the share of the row's own label, in [0, 1]; NaN where the row has no label or no votes.
    voters
        (n,) int32 neighbours that have a label and voted.
    n_classes
        Classes that labels are from.
    unjudged
        (u,) rising rows that have no votes: their embedding is zero or not finite, or no neighbour has a label.
    """

    labels: Labels
    shares: NDArray[np.float32]
    agreement: NDArray[np.float32]
    voters: Labels
    n_classes: int
    unjudged: NDArray[np.int64]

    @property
    def winners(self) -> Labels:
        """(n,) the label with the most votes, -1 where there are none."""
        return self.labels[:, 0]

    @property
    def margin(self) -> NDArray[np.float32]:
        """(n,) share of the first label less that of the second, in [0, 1]; 0 without votes. Needs top of 2."""
        if self.shares.shape[1] < 2:
            raise InputError(f"top: margins need at least 2, these votes were made with {self.shares.shape[1]}")
        return self.shares[:, 0] - self.shares[:, 1]


def neighbor_votes(
    x: NDArray[Any] | None,
    labels: Any,
    k: int = 10,
    *,
    knn: Knn | None = None,
    weights: Weights = "similarity",
    top: int = 4,
    n_classes: int | None = None,
    metric: Metric = "cosine",
    uids: UidArray | None = None,
    threads: int | None = None,
    dtype: Literal["bfloat16"] | None = None,
    device: str | None = None,
) -> NeighborVotes:
    """Votes of each row's k nearest other rows for their labels: soft labels, agreement, and the label that wins.

    A row is left out of its own votes by its number, wherever it stands in a list. Rows with the same bits have one
    vote among them, for the label that most of them carry (none where two are tied), and none about each other; each
    of them is then judged by its own label. So copies cannot vouch for one another. Holds lists of k neighbours a row
    (12 k bytes, unless ``knn`` gives them) and 12 + 8 top bytes of result; never an array of rows x classes.

    Parameters
    ----------
    x, k, knn, metric, uids, threads, dtype, device
        As in `neighbor_lists`.
    labels
        (n,) integers from 0, -1 for a row without a label, which is judged and does not vote.
    weights
        ``"similarity"``: a vote weighs the similarity of the two rows, and nothing where that is not above 0;
        ``"count"``: each neighbour counts 1.
    top
        Labels to keep for each row, at least 1.
    n_classes
        One more than the largest label by default.

    Returns
    -------
    NeighborVotes
        The same bits for any number of threads, block size and instruction set.

    Raises
    ------
    InputError
        A value is not as above, or there are more or fewer labels than rows.
    """
    check_count("top", top)
    require_option("weights", weights, Weights)
    if weights == "similarity" and metric == "l2":
        raise InputError(WEIGHT_NEEDS_COSINE)
    lists = neighbor_lists(x, k, knn, metric=metric, uids=uids, threads=threads, dtype=dtype, device=device)
    given, classes = label_codes(labels, lists.n, n_classes)
    return votes_of(lists, given, classes, k, weighted=weights == "similarity", top=top, threads=threads)


def votes_of(
    lists: NeighborLists,
    labels: Labels,
    n_classes: int,
    k: int,
    *,
    weighted: bool = True,
    top: int = 4,
    threads: int | None = None,
) -> NeighborVotes:
    """Votes of the first k of each list for checked labels."""
    n = lists.n
    winners, shares = np.full((n, top), -1, np.int32), np.zeros((n, top), np.float32)
    agreement, voters = np.full(n, np.nan, np.float32), np.zeros(n, np.int32)
    of_nodes = lists.node_labels(labels)
    for block in lists.blocks():
        found = cast_votes(
            first_neighbors(block, k), of_nodes, labels[block.rows], weighted=weighted, top=top, threads=threads
        )
        winners[block.rows], shares[block.rows] = found.labels, found.shares
        agreement[block.rows], voters[block.rows] = found.own, found.voters
    return NeighborVotes(winners, shares, agreement, voters, n_classes, np.flatnonzero(voters == 0))


def first_neighbors(block: ListBlock, k: int) -> ListBlock:
    """A block with at most the first k neighbours of each list, those that are none or the node itself not counted."""
    indices = block.indices
    own = np.arange(block.first, block.first + len(indices))[:, None]
    there = (indices >= 0) & (indices != own)
    if indices.shape[1] <= k or there.sum(axis=1).max(initial=0) <= k:
        return block
    if there[:, :k].all():
        part = slice(0, k)
        return block._replace(
            indices=np.ascontiguousarray(indices[:, part]),
            similarities=np.ascontiguousarray(block.similarities[:, part]),
        )
    return block._replace(indices=np.where(np.cumsum(there, axis=1) <= k, indices, -1))
