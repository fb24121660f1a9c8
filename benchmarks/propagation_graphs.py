"""Graphs and labels for the benchmarks of label propagation: clusters of rows with some edges between them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pycurate.index.graph import GraphWriter, KnnGraph

CLUSTER_ROWS = 1_000
STRAY = 0.3
"""Share of edges that lead anywhere; the rest stay in the cluster."""
_BLOCK_ROWS = 1 << 16


def truth(n: int, classes: int) -> NDArray[np.int64]:
    """(n,) the class of each row: that of its cluster."""
    clusters = -(-n // CLUSTER_ROWS)
    return np.random.default_rng(7).permutation(clusters)[np.arange(n) // CLUSTER_ROWS] % classes


def some_labels(n: int, classes: int, share: float) -> NDArray[np.int64]:
    """(n,) the truth of a share of the rows, -1 elsewhere; each class is there."""
    labels = truth(n, classes)
    known = np.random.default_rng(8).random(n) < share
    known[np.unique(labels, return_index=True)[1]] = True
    return np.where(known, labels, -1)


def write_graph(out: Path, n: int, k: int) -> KnnGraph:
    """k different neighbours of each of n rows, similarities from 0.2 to 1, in a folder."""
    with GraphWriter(out, np.dtype(np.uint32), np.dtype(np.float32)) as writer:
        for start in range(0, n, _BLOCK_ROWS):
            random = np.random.default_rng([n, k, start])
            rows = np.arange(start, min(start + _BLOCK_ROWS, n))
            first = rows // CLUSTER_ROWS * CLUSTER_ROWS
            size = np.minimum(CLUSTER_ROWS, n - first)
            # k different offsets: one in each of k equal parts of the cluster, or of all rows
            place = (np.arange(k) + random.random((len(rows), k))) / k
            near = first[:, None] + (place * size[:, None]).astype(np.int64)
            anywhere = (place * n).astype(np.int64)
            indices = np.where(random.random((len(rows), k)) < STRAY, anywhere, near)
            indices.sort(axis=1)
            fresh = np.ones(indices.shape, np.bool_)
            fresh[:, 1:] = indices[:, 1:] != indices[:, :-1]
            fresh &= indices != rows[:, None]
            weights = random.uniform(0.2, 1, indices.shape).astype(np.float32)
            degrees = fresh.sum(axis=1).astype(np.uint64)
            writer.append(degrees, indices[fresh].astype(np.uint32), weights[fresh])
        like = KnnGraph(np.zeros(1, np.uint64), np.empty(0, np.uint32), np.empty(0, np.float32))
        return writer.finish(like)
