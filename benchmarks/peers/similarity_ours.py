"""pycurate's side of a similarity race, in the form of ``similarity_peers``."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import numpy as np
from similarity_peers import Prepared, Rows

import pycurate
from pycurate import _core


def join(x: Rows, threshold: float, share: float, prepared: Prepared, threads: int) -> Any:
    return pycurate.pairs_above(x, threshold, threads=threads)


def components(x: Rows, threshold: float, share: float, prepared: Prepared, threads: int) -> Any:
    return pycurate.components_above(x, threshold, threads=threads)


def components_float32(x: Rows, threshold: float, share: float, prepared: Prepared, threads: int) -> Any:
    return pycurate.components_above(x, threshold, precision="float32", threads=threads)


def counts(x: Rows, threshold: float, share: float, prepared: Prepared, threads: int) -> Any:
    return pycurate.count_above(x, threshold, threads=threads)


def nearest(x: Rows, k: int, share: float, prepared: Prepared, threads: int) -> Any:
    return pycurate.nearest(x, k, threads=threads)


def assign(x: Rows, centroids: Rows, share: float, prepared: Prepared, threads: int) -> Any:
    return pycurate.nearest(x, 1, centroids, threads=threads)


def graph(x: Rows, k: int, method: str, threads: int) -> Any:
    """The (n, k) neighbours of a graph, -1 where a row has fewer, and its own word on its recall."""
    found = pycurate.knn_graph(x, k, method=method, threads=threads)
    indptr = np.asarray(found.indptr, np.int64)
    row = np.repeat(np.arange(len(x)), np.diff(indptr))
    indices = np.full((len(x), k), -1, np.int64)
    indices[row, np.arange(len(row)) - indptr[row]] = found.indices
    return SimpleNamespace(indices=indices, certificate=found.certificate.sentence())


def graph_ivf(x: Rows, k: int, share: float, prepared: Prepared, threads: int) -> Any:
    return graph(x, k, "ivf", threads)


def graph_hnsw(x: Rows, k: int, share: float, prepared: Prepared, threads: int) -> Any:
    return graph(x, k, "hnsw", threads)


def means(x: Rows, k: int, share: float, prepared: Prepared, threads: int) -> dict[str, float]:
    fitted = pycurate.kmeans(x, k, iterations=10, tolerance=0, sample=len(x), seed=1, threads=threads)
    similarities = pycurate.assign(x, fitted.centroids, threads=threads).similarities
    return {"iterations": len(fitted.inertia) - 1, "similarity": float(np.mean(similarities, dtype=np.float64))}


def work() -> dict[str, float]:
    """What the last call did, stage by stage."""
    return dict(_core.fused_similarity.last_work())


def limits(seconds: float = 0.3) -> dict[str, float]:
    """Of one thread in this moment: multiply-adds (counted as 2) and bytes read from memory a second, in 1e9."""
    peaks = {kind: _core.fused_similarity.peak_rate(kind, seconds) / 1e9 for kind in ("int8", "float32")}
    memory = np.ones(50_000_000, np.uint64)  # 400 MB: larger than any last-level cache
    fastest = float("inf")
    for _ in range(3):
        started = time.perf_counter()
        memory.max()  # the fastest NumPy reduction of 64-bit words, which does no more than read
        fastest = min(fastest, time.perf_counter() - started)
    return {**peaks, "read": memory.nbytes / fastest / 1e9}
