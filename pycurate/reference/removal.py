"""The definition of the three removal semantics, in plain Python over the whole matrix of similarities.

``similarities`` is (n, n) and symmetric, NaN where two rows are no pair; what stands on the diagonal is not looked at.
``rank`` is a permutation of 0 to n - 1; of two rows that of lower rank is *earlier*. A pair *reaches* a threshold,
rounded once to float32, when its similarity is equal to it or larger, and with ``strict`` only when it is larger.

Each function returns (n,) the row in whose favour a row is removed, -1 where it is kept, and (n,) float32, NaN where
it is kept.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]
Removed: TypeAlias = tuple[Indices, Floats]


def published(similarities: Floats, rank: Indices, threshold: float, strict: bool) -> Removed:
    """A row goes if any earlier row reaches the threshold, even one that goes itself: SemDeDup's rule.

    Named is the most similar earlier row, of equally similar ones the earliest.
    """
    n = len(rank)
    duplicate_of, best = np.full(n, -1, np.int64), np.full(n, np.nan, np.float32)
    for row in range(n):
        earlier = [(-similarities[row, j], rank[j], j) for j in range(n) if rank[j] < rank[row]]
        found = [pair for pair in earlier if _reaches(-pair[0], threshold, strict)]
        if found:
            duplicate_of[row], best[row] = min(found)[2], -min(found)[0]
    return duplicate_of, best


def greedy(
    similarities: Floats, rank: Indices, threshold: float, strict: bool, copy_of: Indices | None = None
) -> Removed:
    """A row goes if an earlier row that stays reaches the threshold.

    Named is the most similar such row, of equally similar ones the earliest. Rows with the same content (``copy_of``,
    the first of them, -1 where the row is it) reach each other with similarity 1; all of them name the earliest of
    them where it stays, else the row that it names.
    """
    n = len(rank)
    duplicate_of, best = np.full(n, -1, np.int64), np.full(n, np.nan, np.float32)
    content = [row if copy_of is None or copy_of[row] < 0 else int(copy_of[row]) for row in range(n)]
    first: dict[int, int] = {}
    for row in np.argsort(rank).tolist():
        same = first.setdefault(content[row], row)
        if same != row and _reaches(np.float32(1), threshold, strict):
            is_kept = duplicate_of[same] < 0
            duplicate_of[row] = same if is_kept else duplicate_of[same]
            best[row] = 1 if is_kept else best[same]
            continue
        kept = [j for j in range(n) if rank[j] < rank[row] and duplicate_of[j] < 0]
        found = [(-similarities[row, j], rank[j], j) for j in kept if _reaches(similarities[row, j], threshold, strict)]
        if found:
            duplicate_of[row], best[row] = min(found)[2], -min(found)[0]
    return duplicate_of, best


def component(similarities: Floats, rank: Indices, threshold: float, strict: bool) -> Removed:
    """Of rows that are linked, directly or through others, only the earliest stays.

    The similarity is that of the weakest link of the best chain between the row and the one that stays: the largest
    threshold at which the two are still linked.
    """
    n = len(rank)
    chain = np.where(np.isnan(similarities), -np.inf, similarities)
    for through in range(n):
        chain = np.maximum(chain, np.minimum(chain[:, through : through + 1], chain[through : through + 1, :]))
    duplicate_of, best = np.full(n, -1, np.int64), np.full(n, np.nan, np.float32)
    for row in range(n):
        linked = [j for j in range(n) if j != row and _reaches(chain[row, j], threshold, strict)]
        survivor = min([row, *linked], key=lambda j: int(rank[j]))
        if survivor != row:
            duplicate_of[row], best[row] = survivor, chain[row, survivor]
    return duplicate_of, best


def spanning_forest(similarities: Floats) -> set[tuple[int, int, float]]:
    """Edges (row, col, similarity), row < col, of the maximum spanning forest of all pairs; equally similar pairs are
    taken in the order of (row, col), so that there is one such forest."""
    n = len(similarities)
    pairs = [(-similarities[i, j], i, j) for i in range(n) for j in range(i + 1, n) if not np.isnan(similarities[i, j])]
    tree = list(range(n))
    edges = set()
    for negated, i, j in sorted(pairs):
        if tree[i] != tree[j]:
            joined, gone = tree[i], tree[j]
            tree = [joined if t == gone else t for t in tree]
            edges.add((i, j, float(-negated)))
    return edges


def _reaches(similarity: np.float32, threshold: float, strict: bool) -> bool:
    limit = np.float32(threshold)
    return bool(similarity > limit if strict else similarity >= limit)
