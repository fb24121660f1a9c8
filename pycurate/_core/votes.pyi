import numpy as np
from numpy.typing import NDArray

# indices, weights: (nodes, width) neighbours of the nodes from `first` on, nearest first; below 0: none; a node's own
# number is left out. weights None: each vote counts 1; else only those above 0 vote. labels: (all,) of all nodes, -1:
# no vote. nodes: (n,) the rows of `indices` that are asked, own: (n,) their labels, -1: none.

def cast_votes(
    indices: NDArray[np.int64],
    weights: NDArray[np.float32] | None,
    first: int,
    labels: NDArray[np.int32],
    nodes: NDArray[np.int64],
    own: NDArray[np.int32],
    top: int,
    threads: int,
) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], NDArray[np.int32]]:
    """(n, top) labels and their shares, (n,) share of the own label, weight of all votes, number of voters."""

def round_votes(
    indices: NDArray[np.int64],
    weights: NDArray[np.float32] | None,
    first: int,
    labels: NDArray[np.int32],
    nodes: NDArray[np.int64],
    own: NDArray[np.int32],
    members: NDArray[np.uint64],
    first_round: int,
    last_round: int,
    neighbors: int,
    own_vote: bool,
    with_scores: bool,
    threads: int,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.float32] | None]:
    """(n,) rounds in which another label wins, rounds judged, and (n, rounds) unit votes of the own label or None."""

def count_triples(
    indices: NDArray[np.int64],
    first: int,
    labels: NDArray[np.int32],
    nodes: NDArray[np.int64],
    own: NDArray[np.int32],
    classes: int,
    counts: NDArray[np.int64],
    threads: int,
) -> None:
    """Adds to counts (classes**3,) the rows by their own label and those of their two nearest voters."""

def consensus_step(
    labels: NDArray[np.int32],  # (m, 3)
    counts: NDArray[np.float64],
    given: NDArray[np.float64],  # (K, K) probability of label (row) of true class (column)
    prior: NDArray[np.float64],
    threads: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """(K, K) expected labels by true class, (K,) expected triples, and the log-likelihood of the given model."""
