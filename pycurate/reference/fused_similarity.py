"""The definition of fused similarity, in NumPy: every question asked of the whole matrix of canonical similarities.

A row is *judged* when its squared norm (a canonical sum) is a finite float32 and, for cosine, not zero. A *pair* is a
row of x and a row of y, both judged, whose canonical similarity (``reference.rowwise.pair_similarity``) is a finite
float32; without y it is two different rows of x. What is no pair is in no answer. A threshold is rounded once to
float32; a pair *reaches* it when its similarity is equal to it or larger. Rows with the same bits are ordinary rows
here; only ``copy_of`` and ``pairs_above`` speak of them.

Rows are (n, d) float32, float16, int8, or uint16 bits of bfloat16.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pycurate.reference.rowwise import (
    NOT_FINITE,
    ZERO,
    Doubles,
    Floats,
    Metric,
    canonical_sum,
    flags,
    similarity_of_sums,
    widen,
)

Rows = NDArray[Any]
Indices = NDArray[np.int64]

_BLOCK = 1 << 15  # products held at once, so that what NumPy makes of them stays in a processor's cache


def unjudged_rows(x: Rows, metric: Metric) -> Indices:
    """Rising numbers of the rows that take part in no pair."""
    unfit = (NOT_FINITE, ZERO) if metric == "cosine" else (NOT_FINITE,)
    return np.flatnonzero(np.isin(flags(x), unfit))


def copy_of(x: Rows) -> Indices:
    """(n,) the lowest row with the same bits, -1 for the first row with its bits."""
    first: dict[bytes, int] = {}
    lowest = np.array([first.setdefault(row.tobytes(), i) for i, row in enumerate(x)], np.int64)
    return np.where(lowest == np.arange(len(x)), -1, lowest)


def similarities(x: Rows, y: Rows | None, metric: Metric) -> Floats:
    """(n, m) canonical similarity of every row of ``x`` with every row of ``y``, NaN where they are no pair.

    Without ``y``: (n, n) of ``x`` with itself, NaN on the diagonal.
    """
    a = widen(x)
    b = a if y is None else widen(y)
    squares_a, squares_b = canonical_sum(a, a), canonical_sum(b, b)
    step = max(1, _BLOCK // max(1, len(b) * 16))
    dots = np.zeros((len(a), len(b)))
    for begin in range(0, len(a), step):
        dots[begin : begin + step] = canonical_sum(a[begin : begin + step, None, :], b[None, :, :])
    result = similarity_of_sums(dots, squares_a[:, None], squares_b[None, :], metric)
    result[unjudged_rows(x, metric)] = np.nan
    result[:, unjudged_rows(x if y is None else y, metric)] = np.nan
    if y is None:
        np.fill_diagonal(result, np.nan)
    return result


def reaching(similarity: Floats, threshold: float) -> NDArray[np.bool_]:
    """Which pairs reach the threshold."""
    with np.errstate(over="ignore"):
        return similarity >= np.float32(threshold)


def pairs_above(
    x: Rows, similarity: Floats, threshold: float, y: Rows | None = None
) -> tuple[Indices, Indices, Floats]:
    """Pairs of rows that are the first with their bits and reach the threshold, sorted by (row, col).

    ``similarity`` is that of :func:`similarities`. Without ``y``, row < col.
    """
    above = reaching(similarity, threshold)
    above[copy_of(x) >= 0] = False
    above[:, copy_of(x if y is None else y) >= 0] = False
    rows, cols = np.nonzero(np.triu(above) if y is None else above)
    return rows, cols, similarity[rows, cols]


def components_above(similarity: Floats, threshold: float) -> Indices:
    """(n,) the lowest row of each row's connected component under the pairs of x that reach the threshold."""
    labels = np.arange(len(similarity))
    rows, cols = np.nonzero(reaching(similarity, threshold))
    before = np.full_like(labels, -1)
    while not np.array_equal(labels, before):  # labels only fall, so they settle on the lowest row of the component
        before = labels.copy()
        np.minimum.at(labels, rows, labels[cols])
    return labels


def spanning_forest_above(x: Rows, similarity: Floats, floor: float) -> tuple[Indices, Indices, Floats]:
    """Kruskal's algorithm on :func:`pairs_above`: most similar first, ties to the lower (row, col)."""
    rows, cols, similarities = pairs_above(x, similarity, floor)
    tree = np.arange(len(x))
    kept = []
    for edge in np.argsort(-similarities, kind="stable"):
        a, b = tree[rows[edge]], tree[cols[edge]]
        if a != b:
            tree[tree == b] = a
            kept.append(edge)
    edges = np.array(kept, np.int64)
    return rows[edges], cols[edges], similarities[edges]


def count_above(similarity: Floats, threshold: float) -> Indices:
    """(n,) how many pairs of each row of x reach the threshold."""
    counts: Indices = reaching(similarity, threshold).sum(axis=1, dtype=np.int64)
    return counts


def most_similar_earlier(similarity: Floats, order: Indices, floor: float) -> tuple[Indices, Floats]:
    """(n,) the most similar row that comes earlier in ``order`` and reaches ``floor``, and its similarity.

    Of equally similar rows the earliest in ``order``; -1 and NaN where there is none.
    """
    indices, best = np.full(len(order), -1), np.full(len(order), np.nan, np.float32)
    for position, row in enumerate(order):
        earlier = order[:position]
        earlier = earlier[reaching(similarity[row, earlier], floor)]
        if len(earlier):
            indices[row] = earlier[np.argmax(similarity[row, earlier])]  # argmax: the first of equals
            best[row] = similarity[row, indices[row]]
    return indices, best


def nearest(similarity: Floats, k: int) -> tuple[Indices, Floats]:
    """(n, k) the rows of y, or other rows of x, nearest first, ties to the lower row; -1 and NaN beyond the last."""
    n, m = similarity.shape
    indices, nearest = np.full((n, k), -1), np.full((n, k), np.nan, np.float32)
    order = np.argsort(-similarity, axis=1, kind="stable")[:, :k]  # NaN last
    found = np.take_along_axis(similarity, order, axis=1)
    indices[:, : min(k, m)] = np.where(np.isnan(found), -1, order)
    nearest[:, : min(k, m)] = found
    return indices, nearest


def log_sum_exp(similarity: Floats, scale: float) -> tuple[Doubles, Doubles]:
    """Natural log of the sum of exp(scale * similarity) over the pairs of each row, and of each column.

    -inf where a row or column has no pair.
    """
    exponents = np.where(np.isnan(similarity), -np.inf, scale * similarity.astype(np.float64))
    with np.errstate(divide="ignore"):
        return (
            np.logaddexp.reduce(exponents, axis=1, initial=-np.inf),
            np.logaddexp.reduce(exponents, axis=0, initial=-np.inf),
        )
