"""SimiFeat: which labels are wrong, by votes of neighbours in many random parts of the rows."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pycurate.errors import InputError
from pycurate.index.rows import check_count
from pycurate.kernels.votes import MAX_ROUNDS, NeighborLists, round_votes
from pycurate.ops.labels.label_codes import Labels
from pycurate.ops.labels.noise_transition import NoiseTransition

ROUNDS = 21
FRACTION = 0.9
SHORT_LISTS = 1e-6
"""Rows of which so few, in the mean, find less than k - 1 members of a part in their list."""
RATE_BOUNDS = (0.05, 0.95)


class RoundFlags(NamedTuple):
    """What all rounds say of each row."""

    flagged: NDArray[np.uint8]  # (n,) rounds in which the label was refuted
    judged: NDArray[np.uint8]  # (n,) rounds in which it was looked at

    @property
    def is_issue(self) -> NDArray[np.bool_]:
        """(n,) refuted in more than half, of two more rounds of which it lost one; as published."""
        return (self.flagged + 1.0) / (self.judged + 2.0) > 0.5


def list_width(k: int, fraction: float = FRACTION) -> int:
    """Neighbours a list needs so that k - 1 of them are in a random part, but for one row in a million."""
    width, wanted = k - 1, k - 1
    while _shortfall(width, wanted, fraction) > SHORT_LISTS:
        width += 1
    return max(width, 1)


def round_members(nodes: int, rounds: int, fraction: float, seed: int) -> NDArray[np.uint64]:
    """(nodes,) bit r: the node is in the part of round r, which each is with probability ``fraction``.

    A hash of seed, round and node (splitmix64), so that it needs no state and does not depend on blocks or threads.
    """
    members = np.zeros(nodes, np.uint64)
    limit = np.uint64(min(int(fraction * 2**64), 2**64 - 1))
    number = np.arange(nodes, dtype=np.uint64)
    for r in range(rounds):
        start = _mixed(np.array([(seed + r * 0xD1342543DE82EF95) % 2**64], np.uint64))
        drawn = _mixed(number * np.uint64(0x9E3779B97F4A7C15) + start) <= limit
        members |= drawn.astype(np.uint64) << np.uint64(r)
    return members


def check_rounds(rounds: int, fraction: float) -> None:
    """InputError unless they can be run."""
    check_count("rounds", rounds)
    if rounds > MAX_ROUNDS:
        raise InputError(f"rounds: expected at most {MAX_ROUNDS}, got {rounds}")
    if not 0 < fraction <= 1:
        raise InputError(f"fraction: expected above 0 and at most 1, got {fraction}")


def vote_rounds(
    lists: NeighborLists, labels: Labels, k: int, rounds: int, fraction: float, seed: int, threads: int | None = None
) -> RoundFlags:
    """Rounds in which another label gets more votes than the row's own.

    A row's voters are itself, with the weight of 2 w1 - w2 of its two nearest, and the k - 1 nearest members of the
    round's part, weighed by similarity.
    """
    flagged, judged = np.zeros(lists.n, np.uint8), np.zeros(lists.n, np.uint8)
    members = round_members(lists.count, rounds, fraction, seed)
    of_nodes = lists.node_labels(labels)
    for block in lists.blocks():
        found = round_votes(
            block, of_nodes, labels[block.rows], members, range(rounds), k - 1, own_vote=True, threads=threads
        )
        flagged[block.rows], judged[block.rows] = found[0], found[1]
    return RoundFlags(flagged, judged)


def rank_rounds(
    lists: NeighborLists,
    labels: Labels,
    k: int,
    rounds: int,
    fraction: float,
    seed: int,
    transition: NoiseTransition,
    threads: int | None = None,
) -> RoundFlags:
    """Rounds in which the row's own label has few votes, compared with the other rows of that label.

    Of the m rows of label c in a part, the share that is wrong by ``transition`` (clipped to .05 - .95) is refuted:
    those whose own label has the smallest part of the votes, by unit vectors of votes.
    """
    flagged, judged = np.zeros(lists.n, np.uint8), np.zeros(lists.n, np.uint8)
    members = round_members(lists.count, rounds, fraction, seed)
    of_nodes = lists.node_labels(labels)
    wrong = np.clip(1 - transition.label_correct, *RATE_BOUNDS)
    for r in range(rounds):
        scores = np.full(lists.n, np.nan, np.float32)
        for block in lists.blocks():
            _, _, part = round_votes(
                block, of_nodes, labels[block.rows], members, range(r, r + 1), k - 1, own_vote=True, scores=True,
                threads=threads,
            )  # fmt: skip
            assert part is not None
            scores[block.rows] = part[:, 0]
        rows = np.flatnonzero(~np.isnan(scores))
        order = rows[np.lexsort((scores[rows], labels[rows]))]
        starts = np.searchsorted(labels[order], np.arange(len(wrong) + 1))
        for c, share in enumerate(wrong):
            ranked = order[starts[c] : starts[c + 1]]
            count = int(share * len(ranked))
            if count:  # those that tie with the last of them, too
                flagged[ranked[scores[ranked] <= scores[ranked[count - 1]]]] += 1
        judged[rows] += 1
    return RoundFlags(flagged, judged)


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _shortfall(width: int, wanted: int, fraction: float) -> float:
    """Probability that fewer than ``wanted`` of ``width`` are drawn."""
    if fraction == 1:
        return 0.0 if width >= wanted else 1.0
    term, total = (1 - fraction) ** width, 0.0
    for drawn in range(wanted):
        total += term
        term *= (width - drawn) / (drawn + 1) * fraction / (1 - fraction)
    return total
