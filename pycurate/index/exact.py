"""Brute force: the answers that approximate ones are held against, and that small selections are searched by."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pycurate.index.rows import Rows, same_element
from pycurate.kernels.fused_similarity import nearest
from pycurate.kernels.neighbor_limit import device_for_neighbors
from pycurate.kernels.rowwise import Metric, pair_similarity

Indices = NDArray[np.int64]
Similarities = NDArray[np.float32]

FEW_QUERIES = 16
"""Up to so many queries each reads the rows once, in place; packing rows for the tile loop costs more than that."""
GATHER_BYTES = 32 << 20


def exact_nearest(
    queries: Rows,
    vectors: Rows,
    k: int,
    metric: Metric,
    *,
    rows: Indices | None = None,
    threads: int | None = None,
    device: str | None = None,
) -> tuple[Indices, Similarities]:
    """The k most similar rows of ``vectors`` to each query, by canonical similarity, ties to the lower row.

    Parameters
    ----------
    queries, vectors
        (m, d) and (n, d); ``vectors`` may be a memory map. Rows that take part must be judged.
    rows
        The rows of ``vectors`` that take part, rising; all by default.
    device
        As in `pycurate.nearest`; up to 16 queries, and more than 128 neighbours, are looked for on the CPU.

    Returns
    -------
    (m, k) int64 row numbers and float32 similarities, nearest first; -1 and NaN beyond the last.
    """
    indices, similarities = nothing_found(len(queries), k)
    count = len(vectors) if rows is None else len(rows)
    if not len(queries):
        return indices, similarities
    step = vectors.block_rows
    for start in range(0, count, step):
        numbers = np.arange(start, min(count, start + step))
        block = vectors.take(slice(start, start + step))
        if rows is not None:
            numbers = rows[numbers]
            block = vectors.take(numbers)
        found = _nearest_in_block(*same_element(queries, block, threads), k, metric, threads, device)
        local = np.where(found[0] >= 0, numbers[found[0]], -1)
        indices, similarities = merge_nearest((indices, similarities), (local, found[1]), k)
    return indices, similarities


def _nearest_in_block(
    queries: Rows, block: Rows, k: int, metric: Metric, threads: int | None, device: str | None
) -> tuple[Indices, Similarities]:
    if len(queries) > FEW_QUERIES:
        place = device_for_neighbors(device, k)
        found = nearest(queries.values, k, block.values, metric, threads=threads, dtype=queries.dtype, device=place)
        return found.indices, found.similarities
    indices, similarities = nothing_found(len(queries), k)
    for number in range(len(queries)):
        query = np.broadcast_to(queries.values[number], block.values.shape)
        scores = pair_similarity(query, block.values, metric, threads=threads, dtype=queries.dtype)
        best = _best_rows(scores, k)
        indices[number, : len(best)] = best
        similarities[number, : len(best)] = scores[best]
    return indices, similarities


def _best_rows(scores: Similarities, k: int) -> Indices:
    """The k rows of the highest scores, best first, ties to the lower row; rows of NaN are left out."""
    rows = np.flatnonzero(~np.isnan(scores))
    if len(rows) > k:
        values = scores[rows]
        least = np.partition(values, len(values) - k)[len(values) - k]
        above = rows[values > least]
        rows = np.sort(np.concatenate([above, rows[values == least][: k - len(above)]]))
    return rows[np.argsort(-scores[rows], kind="stable")]


def nothing_found(queries: int, k: int) -> tuple[Indices, Similarities]:
    """(m, k) of -1 and of NaN."""
    return np.full((queries, k), -1, np.int64), np.full((queries, k), np.nan, np.float32)


def merge_nearest(
    a: tuple[Indices, Similarities], b: tuple[Indices, Similarities], k: int
) -> tuple[Indices, Similarities]:
    """The k best of two sets of found rows that share none, nearest first, ties to the lower row."""
    indices = np.concatenate([a[0], b[0]], axis=1)
    similarities = np.concatenate([a[1], b[1]], axis=1)
    return best_first(indices, similarities, k)


def best_first(indices: Indices, similarities: Similarities, k: int) -> tuple[Indices, Similarities]:
    """Found rows (m, c) in order of similarity, ties to the lower row, cut to k columns; NaN and -1 go last."""
    missing = (indices < 0) | np.isnan(similarities)
    distance = np.where(missing, np.float32(np.inf), -similarities)
    row = np.where(missing, np.iinfo(np.int64).max, indices)
    order = np.lexsort((row, distance), axis=1)[:, :k]
    ordered = np.take_along_axis(np.where(missing, -1, indices), order, axis=1)
    values = np.take_along_axis(np.where(missing, np.float32(np.nan), similarities), order, axis=1)
    return ordered, values


def rescored(
    queries: Rows, vectors: Rows, candidates: Indices, metric: Metric, threads: int | None = None
) -> Similarities:
    """(m, c) canonical similarity of each query with each of its candidate rows; NaN where a candidate is -1.

    Rows are gathered in blocks of about ``GATHER_BYTES``, each distinct row of a block once and in rising order, as
    suits a memory map.
    """
    similarities = np.full(candidates.shape, np.nan, np.float32)
    pair_bytes = 8 * max(queries.dimension, 1) * max(candidates.shape[1], 1)
    step = max(1, GATHER_BYTES // pair_bytes)
    for start in range(0, len(candidates), step):
        part = candidates[start : start + step]
        query, column = np.nonzero(part >= 0)
        if not len(query):
            continue
        distinct, position = np.unique(part[query, column], return_inverse=True)
        a, b = same_element(queries.take(slice(start, start + step)), vectors.take(distinct), threads)
        scores = pair_similarity(a.values[query], b.values[position], metric, threads=threads, dtype=a.dtype)
        similarities[start + query, column] = scores
    return similarities


def without_self(indices: Indices, similarities: Similarities, own: Indices, k: int) -> tuple[Indices, Similarities]:
    """The k nearest other rows, given the k + 1 nearest rows (m, k + 1) of each row ``own`` (m,)."""
    similarities = np.where(indices == own[:, None], np.float32(np.nan), similarities)
    return best_first(indices, similarities, k)
