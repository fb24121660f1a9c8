"""Facility location and k-centre as a user has them without pycurate: apricot, and NumPy."""

from __future__ import annotations

import os
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pycurate.index.graph import KnnGraph


def apricot_picks(similarities: Any, k: int, *, metric: str = "precomputed", optimizer: str = "lazy") -> NDArray[Any]:
    """Rows in the order picked. ``similarities``: dense float64, a SciPy CSR matrix, or rows for another metric.

    Traps. The metrics of apricot 0.6.1 other than "precomputed" build the dense matrix, also with ``n_neighbors``,
    which then ends in an AttributeError for "cosine". Its lazy algorithm may pick a row of gain 0 where ties make it
    lose the candidate at the top; "naive" does not. Numba compiles at the first call.
    """
    os.environ.setdefault("NUMBA_NUM_THREADS", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # apricot's own, about its docstrings and scikit-learn's names
        import apricot

        selector = apricot.FacilityLocationSelection(k, metric=metric, optimizer=optimizer)
        selector.fit(similarities)
    return np.asarray(selector.ranking)


def scipy_graph(graph: KnnGraph) -> Any:
    """A graph with each row similar to itself by 1 as SciPy has it, float64, as apricot needs it."""
    import scipy.sparse

    n = len(graph)
    weights = np.maximum(graph.weights, 0).astype(np.float64)
    matrix = scipy.sparse.csr_matrix(
        (weights, graph.indices.astype(np.int32), graph.indptr.astype(np.int32)), shape=(n, n)
    )
    return scipy.sparse.csr_matrix(matrix + scipy.sparse.identity(n, format="csr"))


def numpy_k_center(x: NDArray[np.float32], k: int) -> list[int]:
    """Farthest-first traversal of unit rows, one product of a matrix and a vector for each centre."""
    nearest = np.full(len(x), -np.inf, np.float32)
    centres = [0]
    while len(centres) < k:
        np.maximum(nearest, x @ x[centres[-1]], out=nearest)
        centres.append(int(nearest.argmin()))
    return centres
