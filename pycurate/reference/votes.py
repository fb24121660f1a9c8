"""Votes of a row's neighbours, readable: loops over rows, dictionaries of labels, float64.

Lists are (nodes, width) neighbours, nearest first; below 0: none. A node's own number in its list is left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int32]
LANES = 8


def voters_of(
    indices: NDArray[np.int64], weights: NDArray[np.float32] | None, labels: Labels, node: int
) -> Iterator[tuple[int, int, float]]:
    """Neighbours that vote, nearest first: number, label, weight. Those without a label or weight do not."""
    for place, neighbor in enumerate(indices[node].tolist()):
        weight = 1.0 if weights is None else float(weights[node, place])
        if neighbor >= 0 and neighbor != node and labels[neighbor] >= 0 and weight > 0:
            yield neighbor, int(labels[neighbor]), weight


def cast_votes(
    indices: NDArray[np.int64],
    weights: NDArray[np.float32] | None,
    labels: Labels,
    nodes: NDArray[np.int64],
    own: Labels,
    top: int,
) -> tuple[Labels, NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], NDArray[np.int32]]:
    """Per asked row: (top,) labels by falling share, ties to the lower; shares; own label's share; total; voters."""
    n = len(nodes)
    top_labels, shares = np.full((n, top), -1, np.int32), np.zeros((n, top), np.float32)
    own_shares, totals = np.full(n, np.nan, np.float32), np.zeros(n, np.float32)
    voters = np.zeros(n, np.int32)
    for row, node in enumerate(nodes.tolist()):
        sums: dict[int, float] = {}
        total = 0.0
        for _, label, weight in voters_of(indices, weights, labels, node):
            sums[label] = sums.get(label, 0.0) + weight
            total += weight
            voters[row] += 1
        for place, (label, weight) in enumerate(sorted(sums.items(), key=lambda item: (-item[1], item[0]))[:top]):
            top_labels[row, place], shares[row, place] = label, weight / total
        if sums and own[row] >= 0:
            own_shares[row] = sums.get(int(own[row]), 0.0) / total
        totals[row] = total
    return top_labels, shares, own_shares, totals, voters


def round_votes(
    indices: NDArray[np.int64],
    weights: NDArray[np.float32] | None,
    labels: Labels,
    nodes: NDArray[np.int64],
    own: Labels,
    members: NDArray[np.uint64],
    rounds: range,
    neighbors: int,
    own_vote: bool,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.float32]]:
    """Per asked row: rounds in which another label has the most votes, rounds judged, and (rounds,) unit votes of its
    own label, NaN where it is not judged.

    In round r only nodes with bit r of ``members`` are there. Voters are the ``neighbors`` nearest of them with a
    label; the row itself votes with 2 w1 - w2 of its two nearest voters if ``own_vote``.
    """
    n = len(nodes)
    flagged, judged = np.zeros(n, np.uint8), np.zeros(n, np.uint8)
    scores = np.full((n, len(rounds)), np.nan, np.float32)
    for row, node in enumerate(nodes.tolist()):
        if own[row] < 0:
            continue
        for place, number in enumerate(rounds):
            if not int(members[node]) >> number & 1:
                continue
            there = [v for v in voters_of(indices, weights, labels, node) if int(members[v[0]]) >> number & 1]
            there = there[:neighbors]
            if not there:
                continue
            sums: dict[int, float] = {}
            for _, label, weight in there:
                sums[label] = sums.get(label, 0.0) + weight
            if own_vote:
                near = [weight for _, _, weight in there]
                mine = 2 * near[0] - near[1] if len(near) > 1 else near[0]
                sums[int(own[row])] = sums.get(int(own[row]), 0.0) + mine
            ranked = sorted(sums.items(), key=lambda item: (-item[1], item[0]))
            judged[row] += 1
            flagged[row] += ranked[0][0] != own[row]
            squares = 0.0
            for _, weight in ranked:
                squares += weight * weight
            scores[row, place] = sums.get(int(own[row]), 0.0) / np.sqrt(squares)
    return flagged, judged, scores


def count_triples(
    indices: NDArray[np.int64], labels: Labels, nodes: NDArray[np.int64], own: Labels, classes: int
) -> NDArray[np.int64]:
    """(classes**3,) rows by their own label and those of their two nearest labelled neighbours."""
    counts = np.zeros((classes, classes, classes), np.int64)
    for row, node in enumerate(nodes.tolist()):
        near = [label for _, label, _ in voters_of(indices, None, labels, node)][:2]
        if own[row] >= 0 and len(near) == 2:
            counts[own[row], near[0], near[1]] += 1
    return counts.ravel()


def consensus_step(
    labels: Labels, counts: NDArray[np.float64], given: NDArray[np.float64], prior: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Expected labels by true class (classes, classes), expected triples (classes,), and the log-likelihood.

    The posterior of true class k given labels a, b, c is proportional to prior[k] given[a, k] given[b, k] given[c, k].
    Its total over k is summed in 8 lanes folded +4, +2, +1. Triples are summed in up to 16 parts, merged in order.
    """
    classes, m = len(prior), len(counts)
    parts = min(max(m // 4096, 1), 16)
    all_sums, all_priors, likelihood = np.zeros((classes, classes)), np.zeros(classes), 0.0
    for part in range(parts):
        sums, priors = np.zeros((classes, classes)), np.zeros(classes)
        for triple in range(m * part // parts, m * (part + 1) // parts):
            a, b, c = labels[triple]
            joint = prior * given[a] * given[b] * given[c]
            total = _lane_sum(joint)
            likelihood += float(counts[triple] * np.log(total)) if total > 0 else -np.inf
            if total > 0:
                expected = joint * (counts[triple] / total)
                for label in (a, b, c):
                    sums[label] += expected
                priors += expected
        all_sums += sums
        all_priors += priors
    return all_sums, all_priors, likelihood


def _lane_sum(values: NDArray[Any]) -> float:
    padded = np.zeros((len(values) + LANES - 1) // LANES * LANES)
    padded[: len(values)] = values
    lanes = np.zeros(LANES)
    for chunk in padded.reshape(-1, LANES):
        lanes = lanes + chunk
    for half in (4, 2, 1):
        lanes = lanes[:half] + lanes[half : 2 * half]
    return float(lanes[0])
