"""Which labels the neighbours of a row refute, and what they say instead."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pycurate.errors import InputError
from pycurate.index.rows import check_count
from pycurate.kernels.arrays import require_option
from pycurate.kernels.rowwise import Metric
from pycurate.kernels.votes import NeighborLists
from pycurate.ops.labels import simifeat
from pycurate.ops.labels.label_codes import Labels, label_codes
from pycurate.ops.labels.neighbor_votes import votes_of
from pycurate.ops.labels.neighbors import WEIGHT_NEEDS_COSINE, Knn, neighbor_lists
from pycurate.ops.labels.noise_transition import NoiseTransition, transition_of
from pycurate.ops.labels.tables import nullable, row_table
from pycurate.types import UidArray

Method: TypeAlias = Literal["simifeat", "simifeat-rank", "vote"]


@dataclass(frozen=True, slots=True, eq=False)
class LabelNoise:
    """What the neighbours say of every label.

    Attributes
    ----------
    is_issue
        (n,) bool: the neighbours refute the label. False for rows without a label and for unjudged ones.
    quality
        (n,) float32 in [0, 1]: the share of the k neighbours' votes for the label, low for a label that is likely
        wrong; NaN without a label or votes.
    suggested
        (n,) int32: the label with the most votes, -1 without votes.
    confidence
        (n,) float32 in [0, 1]: its share; 0 without votes.
    unjudged
        (u,) rising rows that have a label, but no neighbour that votes.
    n_classes
        Classes that labels are from.
    transition
        What ``simifeat-rank`` estimated; else None.
    """

    is_issue: NDArray[np.bool_]
    quality: NDArray[np.float32]
    suggested: Labels
    confidence: NDArray[np.float32]
    unjudged: NDArray[np.int64]
    n_classes: int
    transition: NoiseTransition | None

    @property
    def ranked(self) -> NDArray[np.int64]:
        """The rows that are issues, lowest quality first, ties to the lower row."""
        rows = np.flatnonzero(self.is_issue)
        return rows[np.argsort(self.quality[rows], kind="stable")]

    def to_arrow(self, uids: UidArray | None = None) -> pa.Table:
        """A row each: ``uid`` or ``row``, ``is_issue``, ``quality``, ``suggested`` (null for none), ``confidence``."""
        columns = {
            "is_issue": self.is_issue,
            "quality": pa.array(self.quality, from_pandas=True),
            "suggested": nullable(self.suggested),
            "confidence": self.confidence,
        }
        return row_table(len(self.is_issue), uids, columns)


def knn_label_noise(
    x: NDArray[Any] | None,
    labels: Any,
    k: int = 10,
    *,
    knn: Knn | None = None,
    method: Method = "simifeat",
    rounds: int = simifeat.ROUNDS,
    fraction: float = simifeat.FRACTION,
    seed: int = 0,
    n_classes: int | None = None,
    metric: Metric = "cosine",
    uids: UidArray | None = None,
    threads: int | None = None,
    dtype: Literal["bfloat16"] | None = None,
    device: str | None = None,
) -> LabelNoise:
    """Find wrong labels from the labels of near rows. No model is trained.

    Neighbours are searched once; each round of SimiFeat then looks up which of them are in its random part of the
    rows. Rows with the same bits have one vote, and none about each other, as in `neighbor_votes`.

    Parameters
    ----------
    x, knn, metric, uids, threads, dtype, device
        As in `neighbor_lists`; not ``"l2"``. ``knn`` for SimiFeat should hold more than k neighbours, 20 for k of 10
        (``simifeat.list_width``): where a list has fewer in a round's part, fewer vote.
    labels
        (n,) integers from 0, -1 for a row without a label, which neither votes nor is judged.
    k
        ``vote``: neighbours of a row. SimiFeat: as published, the row itself is one of them, and has a vote that weighs
        2 w1 - w2 of its two nearest.
    method
        ``"simifeat"`` (default): refuted in a round where another label has more votes, and an issue where
        (refuted + 1) / (rounds + 2) > 1/2. ``"simifeat-rank"``: refuted are those of each label whose own label has the
        fewest votes, as many as the noise transition estimated from the rows says; at most 200 classes. ``"vote"``:
        another label has more of the k neighbours' votes, once, the row itself without one.
    rounds, fraction, seed
        Of SimiFeat: rounds (at most 64; 51 are published for tables), the part of the rows in each, and what it is
        drawn by. A row is in a part by a hash of seed, round and row (or place in order of uid).
    n_classes
        One more than the largest label by default.

    Returns
    -------
    LabelNoise
        The same bits for any number of threads, block size and instruction set; with ``uids``, for any order of rows.

    Raises
    ------
    InputError
        A value is not as above, or there are more or fewer labels than rows.

    References
    ----------
    Zhu, Dong, Liu: Detecting corrupted labels without training a model to predict (ICML 2022).
    """
    check_count("k", k, 1 if method == "vote" else 2)
    require_option("method", method, Method)
    simifeat.check_rounds(rounds, fraction)
    if metric == "l2":
        raise InputError(
            WEIGHT_NEEDS_COSINE.replace("weights: votes", "metric: votes").replace("weights='count' or ", "")
        )
    width = k if method == "vote" else max(k, simifeat.list_width(k, fraction))
    lists = neighbor_lists(x, width, knn, metric=metric, uids=uids, threads=threads, dtype=dtype, device=device)
    given, classes = label_codes(labels, lists.n, n_classes)
    return noise_of(lists, given, classes, k, method, rounds, fraction, seed, threads)


def noise_of(
    lists: NeighborLists,
    labels: Labels,
    n_classes: int,
    k: int,
    method: Method,
    rounds: int,
    fraction: float,
    seed: int,
    threads: int | None = None,
) -> LabelNoise:
    """The same from lists and checked labels."""
    votes = votes_of(lists, labels, n_classes, k, top=1, threads=threads)
    winners, has_label = votes.winners, labels >= 0
    transition = None
    if method == "vote":
        is_issue = (votes.voters > 0) & (winners != labels)
    elif method == "simifeat":
        is_issue = simifeat.vote_rounds(lists, labels, k, rounds, fraction, seed, threads).is_issue
    else:
        transition = transition_of(lists, labels, n_classes, threads=threads)
        is_issue = simifeat.rank_rounds(lists, labels, k, rounds, fraction, seed, transition, threads).is_issue
    return LabelNoise(
        is_issue & has_label & (votes.voters > 0),
        votes.agreement,
        winners,
        votes.shares[:, 0],
        np.flatnonzero(has_label & (votes.voters == 0)),
        n_classes,
        transition,
    )
