"""How labels are confused, estimated from how often near rows agree (HOC), without any true label."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pycurate.errors import InputError
from pycurate.index.rows import check_count
from pycurate.kernels.rowwise import Metric
from pycurate.kernels.votes import NeighborLists, consensus_step, count_triples
from pycurate.ops.labels.label_codes import Labels, label_codes, require_classes
from pycurate.ops.labels.neighbors import Knn, neighbor_lists
from pycurate.types import UidArray

MOST_CLASSES = 200
"""Counts of triples take 8 K**3 bytes, 64 MB here."""


@dataclass(frozen=True, slots=True, eq=False)
class NoiseTransition:
    """How true classes were labelled.

    Attributes
    ----------
    transition
        (K, K) float64, rows sum to 1: ``transition[i, j]`` is the probability that a row of true class i has label j.
    prior
        (K,) float64, sums to 1: how frequent the true classes are.
    triples
        Rows whose two nearest neighbours have labels, from which it was estimated.
    iterations, converged
        Steps taken, and whether no entry moved by more than the tolerance in the last.
    log_likelihood
        Of the triples, natural logarithm.
    """

    transition: NDArray[np.float64]
    prior: NDArray[np.float64]
    triples: int
    iterations: int
    converged: bool
    log_likelihood: float

    @property
    def joint(self) -> NDArray[np.float64]:
        """(K, K) probability of true class i together with label j; sums to 1."""
        return self.prior[:, None] * self.transition

    @property
    def label_correct(self) -> NDArray[np.float64]:
        """(K,) probability that a row with label c is of class c; 1 for a label that never occurs."""
        joint = self.joint
        total = joint.sum(axis=0)
        correct: NDArray[np.float64] = np.divide(np.diag(joint), total, out=np.ones(len(total)), where=total > 0)
        return correct

    @property
    def noise_rate(self) -> float:
        """Share of all labels that are wrong."""
        return 1 - float(np.trace(self.joint))


def estimate_noise_transition(
    x: NDArray[Any] | None,
    labels: Any,
    *,
    knn: Knn | None = None,
    n_classes: int | None = None,
    metric: Metric = "cosine",
    max_iterations: int = 2000,
    tolerance: float = 1e-6,
    uids: UidArray | None = None,
    threads: int | None = None,
    dtype: Literal["bfloat16"] | None = None,
    device: str | None = None,
) -> NoiseTransition:
    """The noise transition matrix and the true class frequencies, from a row and its two nearest neighbours.

    If a row and its two nearest neighbours are of one true class, their three labels are three independent draws of
    its row of the matrix, so that P(a, b, c) = sum over k of p[k] T[k, a] T[k, b] T[k, c]: the consensus of third
    order, whose margins are those of second and first. Where the true label is the likeliest of each class, the counts
    of all triples determine T and p. They are counted once over all rows (the published code counts in 50 random
    parts), and fitted by expectation maximisation, which climbs the likelihood without a learning rate or a seed. As
    far as neighbours are of other classes, that counts as noise.

    Parameters
    ----------
    x, knn, metric, uids, threads, dtype, device
        As in `neighbor_lists`, of which two neighbours are used.
    labels
        (n,) integers from 0, -1 for rows without a label, which are passed over. Every class needs a row.
    n_classes
        One more than the largest label by default; at most 200.
    max_iterations
        Steps at most.
    tolerance
        Steps end when no entry of T and p moves by more.

    Returns
    -------
    NoiseTransition
        The same bits for any number of threads and instruction set.

    Raises
    ------
    InputError
        A value is not as above; more than 200 classes; a class without rows; or no row with two labelled neighbours.

    References
    ----------
    Zhu, Song, Liu: Clusterability as an alternative to anchor points when learning with noisy labels (ICML 2021).
    """
    lists = neighbor_lists(x, 2, knn, metric=metric, uids=uids, threads=threads, dtype=dtype, device=device)
    given, classes = label_codes(labels, lists.n, n_classes)
    return transition_of(lists, given, classes, max_iterations, tolerance, threads)


def transition_of(
    lists: NeighborLists,
    labels: Labels,
    n_classes: int,
    max_iterations: int = 2000,
    tolerance: float = 1e-6,
    threads: int | None = None,
) -> NoiseTransition:
    """The same from lists and checked labels."""
    check_count("max_iterations", max_iterations)
    if n_classes > MOST_CLASSES:
        raise InputError(
            f"n_classes: agreement of neighbours is counted over K**3 triples of labels, for at most {MOST_CLASSES} "
            f"classes, got {n_classes}; use confident learning instead: its joint of labels, on out-of-sample "
            "probabilities or on the shares of neighbor_votes, is a transition matrix, too"
        )
    require_classes(labels, n_classes, "every class needs a row to estimate how it is labelled")
    counts = np.zeros(n_classes**3, np.int64)
    of_nodes = lists.node_labels(labels)
    first = lists.first_rows  # one row of each node, as copies are no independent draws
    for block in lists.blocks():
        once = first[block.first + block.nodes] == block.rows
        part = block._replace(rows=block.rows[once], nodes=block.nodes[once])
        count_triples(part, of_nodes, of_nodes[part.first + part.nodes], n_classes, counts, threads)
    cells = np.flatnonzero(counts)
    if not len(cells):
        raise InputError(
            "labels: no row with a label has two neighbours with one; label more rows, or give knn more neighbours"
        )
    triples = np.stack(np.unravel_index(cells, (n_classes,) * 3), axis=1).astype(np.int32)
    return _fitted(triples, counts[cells].astype(np.float64), n_classes, max_iterations, tolerance, threads)


def _fitted(
    triples: Labels,
    counts: NDArray[np.float64],
    n_classes: int,
    max_iterations: int,
    tolerance: float,
    threads: int | None,
) -> NoiseTransition:
    start = np.exp(5 * np.eye(n_classes) - 1)  # the published start: softmax of 5 I - 1
    given = start / start.sum(axis=0)
    prior = np.bincount(triples[:, 0], counts, n_classes) / counts.sum()
    prior = (prior + 1 / n_classes) / 2
    likelihood, moved, step = -np.inf, np.inf, 0
    while step < max_iterations and moved > tolerance:
        sums, priors, likelihood = consensus_step(triples, counts, given, prior, threads)
        total = sums.sum(axis=0)
        # A class that no triple is thought to be of keeps its labels.
        new_given = np.divide(sums, total, out=given.copy(), where=total > 0)
        new_prior = priors / priors.sum()
        moved = max(float(np.abs(new_given - given).max()), float(np.abs(new_prior - prior).max()))
        given, prior = np.ascontiguousarray(new_given), new_prior
        step += 1
    return NoiseTransition(
        np.ascontiguousarray(given.T), prior, int(counts.sum()), step, moved <= tolerance, float(likelihood)
    )
