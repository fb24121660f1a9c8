"""Facility location and k-centre in plain NumPy: the definitions that kernels and ops are tested against.

Facility location: of candidates j with similarities s[i, j] >= 0 to rows i of weight w[i] >= 0, choose S such that
f(S) = sum over i of w[i] * max over j in S of s[i, j] is large. The greedy choice is at least 1 - 1/e of the largest
(Nemhauser, Wolsey and Fisher 1978).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

LANES = 16

Floats = NDArray[np.float64]


def gain_terms(similarities: NDArray[np.float32], covered: NDArray[np.float32], weights: Floats | None) -> Floats:
    """(n,) what each row gains from one candidate: weight * (max(similarity, covered) - covered) in float64."""
    better = np.maximum(similarities, covered).astype(np.float64) - covered.astype(np.float64)
    return better if weights is None else weights * better


def sparse_gain(terms: Floats) -> float:
    """The terms of the rows that a sparse candidate knows, added one by one in rising order of rows."""
    return float(np.cumsum(terms)[-1]) if len(terms) else 0.0


def dense_gain(terms: Floats) -> float:
    """The terms of all rows in 16 lanes, row i in lane i mod 16, folded +8, +4, +2, +1."""
    padded = np.zeros(-(-len(terms) // LANES) * LANES)
    padded[: len(terms)] = terms
    lanes = np.zeros(LANES)
    for sixteen in padded.reshape(-1, LANES):
        lanes = lanes + sixteen
    while len(lanes) > 1:
        lanes = lanes[: len(lanes) // 2] + lanes[len(lanes) // 2 :]
    return float(lanes[0])


def sparse_columns(
    n: int, indptr: NDArray[Any], indices: NDArray[Any], similarities: NDArray[Any], selves: NDArray[np.float32]
) -> list[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Of each row of a graph as a candidate: the rows that have an edge to it, and itself, rising, with similarities.

    Of equal edges the most similar counts; an edge from a row to itself does not, ``selves`` (n,) does.
    """
    columns: list[dict[int, np.float32]] = [{} for _ in range(n)]
    for row in range(n):
        for edge in range(int(indptr[row]), int(indptr[row + 1])):
            column, similarity = int(indices[edge]), np.float32(similarities[edge])
            if column != row:
                columns[column][row] = max(similarity, columns[column].get(row, np.float32(0)))
        columns[row][row] = selves[row]
    made = []
    for entries in columns:
        rows = np.array(sorted(entries), np.int64)
        made.append((rows, np.array([entries[row] for row in rows.tolist()], np.float32)))
    return made


def naive_greedy(
    n: int,
    columns: Sequence[tuple[NDArray[np.int64], NDArray[np.float32]]],
    k: int,
    weights: Floats | None = None,
    *,
    dense: bool = False,
    candidates: Sequence[int] | None = None,
    selected: Sequence[int] = (),
) -> tuple[list[int], list[float], NDArray[np.float32], NDArray[np.int64]]:
    """Picks, their gains, and per row the similarity to its representative and who that is (-1: nobody).

    Each time, every candidate is asked what it would gain; the largest gain wins, ties to the lower candidate.
    """
    covered, representative = np.zeros(n, np.float32), np.full(n, -1)

    def gain(column: int) -> float:
        rows, similarities = columns[column]
        terms = gain_terms(similarities, covered[rows], None if weights is None else weights[rows])
        return dense_gain(terms) if dense else sparse_gain(terms)

    def cover(column: int) -> None:
        rows, similarities = columns[column]
        better = similarities > covered[rows]
        covered[rows[better]], representative[rows[better]] = similarities[better], column

    for column in selected:
        cover(column)
    left = [c for c in (range(len(columns)) if candidates is None else sorted(candidates)) if c not in set(selected)]
    picks, gains = [], []
    for _ in range(min(k, len(left))):
        found = [gain(column) for column in left]
        best = int(np.argmax(found))
        picks.append(left.pop(best))
        gains.append(found[best])
        cover(picks[-1])
    return picks, gains, covered, representative


def upper_bound(objective: float, gains: Floats, k: int) -> float:
    """No k candidates reach more than the objective of any set plus the k largest gains that remain beside it.

    f is submodular: what k candidates add to a set is at most the sum of what each adds (Nemhauser, Wolsey and Fisher
    1978; as an online bound Leskovec et al. 2007).
    """
    largest = np.sort(gains[gains > 0])[::-1][:k]
    return math.fsum([objective, *largest.tolist()])


def k_center(
    similarities: NDArray[np.float32], k: int, first: int, selected: Sequence[int] = ()
) -> tuple[list[int], list[np.float32], NDArray[np.int64]]:
    """Farthest-first traversal (Gonzalez 1985) over a matrix of similarities, NaN for rows that cannot be judged.

    Returns
    -------
    centres
        Rows: ``first`` unless something is ``selected``, then each time the row that is least similar to the centre
        most similar to it, ties to the lower row.
    radii
        After each centre, that least similarity.
    centre
        (n,) of each row, the earliest of equally similar ones; -1 where it cannot be judged.
    """
    judged = ~np.isnan(np.diagonal(similarities))
    best = np.full(len(similarities), -np.inf, np.float32)
    centre = np.full(len(similarities), -1)
    centres: list[int] = []
    radii: list[np.float32] = []

    def take(row: int) -> None:
        closer = judged & (similarities[row] > best)
        best[closer], centre[closer] = similarities[row][closer], row

    for row in selected:
        take(row)
    taken = set(selected)
    while len(centres) < k:
        if not centres and not selected:
            row = first
        else:
            open_rows = np.array([judged[i] and i not in taken for i in range(len(best))])
            row = int(np.flatnonzero(open_rows)[np.argmin(best[open_rows])])
        centres.append(row)
        taken.add(row)
        take(row)
        radii.append(best[judged].min())
    return centres, radii, centre
