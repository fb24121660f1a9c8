"""A graph's similarities as the matrix that labels spread along."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pycurate.errors import InputError
from pycurate.index.graph import KnnGraph
from pycurate.kernels.graph import SparseRows, is_symmetric
from pycurate.ops.labels.propagation_settings import PropagationSettings, Weight


@dataclass(frozen=True, slots=True, eq=False)
class PropagationMatrix:
    """What neighbours count.

    Attributes
    ----------
    rows
        The matrix: S of ``spread`` and of ``harmonic`` by conjugate gradients, D^-1 W of ``harmonic``, W of ``vote``.
    degrees
        (n,) float64 sums of the columns of W.
    loops
        Edges of the graph from a row to itself, which are left out.
    """

    rows: SparseRows
    degrees: NDArray[np.float64]
    loops: int


def graph_of(graph: Any) -> KnnGraph:
    """A `KnnGraph`; SciPy's CSR arrays and matrices, and (indices, similarities) of `nearest`, as one.

    Raises
    ------
    InputError
        It is none of these, is not square, or an index is no row.
    """
    if isinstance(graph, KnnGraph):
        return graph
    if isinstance(graph, tuple) and len(graph) == 2:
        return _of_neighbors(*graph)
    if not all(hasattr(graph, name) for name in ("indptr", "indices", "data", "shape")):
        raise InputError(
            "graph: expected a KnnGraph, a CSR array of SciPy or (indices, similarities), got "
            f"{type(graph).__name__}; pycurate.knn_graph makes one of embeddings"
        )
    if getattr(graph, "format", "csr") != "csr" or len(set(graph.shape)) != 1:
        kind = getattr(graph, "format", "csr")
        raise InputError(f"graph: expected a square CSR array, got {kind} of shape {tuple(graph.shape)}; call .tocsr()")
    indices = np.asarray(graph.indices)
    if len(indices) and int(indices.min()) < 0:
        raise InputError(f"graph: expected indices from 0 to {graph.shape[0] - 1}, got {indices.min()}")
    wide = np.uint64 if graph.shape[0] > np.iinfo(np.uint32).max else np.uint32
    return KnnGraph(
        np.asarray(graph.indptr).astype(np.uint64), indices.astype(wide), np.asarray(graph.data, np.float32)
    )


def _of_neighbors(indices: Any, similarities: Any) -> KnnGraph:
    near, scores = np.asarray(indices), np.asarray(similarities)
    if near.ndim != 2 or near.shape != scores.shape or near.dtype.kind not in "iu":
        raise InputError(
            f"graph: expected (n, k) row numbers and as many similarities, got {near.shape} of {near.dtype} and "
            f"{scores.shape}"
        )
    there = near >= 0
    indptr = np.concatenate([np.zeros(1, np.uint64), np.cumsum(there.sum(axis=1), dtype=np.uint64)])
    wide = np.uint64 if len(near) > np.iinfo(np.uint32).max else np.uint32
    return KnnGraph(indptr, near[there].astype(wide), scores[there].astype(np.float32))


def edge_weights(similarities: NDArray[Any], weight: Weight, first_edge: int = 0) -> NDArray[np.float32]:
    """(e,) float32 weights of similarities, checked; a power is taken in float64 and rounded once.

    Raises
    ------
    InputError
        A weight is negative or not finite; names the edge, counted from ``first_edge``.
    """
    if weight == "binary":
        return np.ones(len(similarities), np.float32)
    given = similarities.astype(np.float32, copy=False)
    if weight == "exp":
        weight = _exponential
    if callable(weight):
        weights = np.asarray(weight(given))
        if weights.shape != given.shape or weights.dtype.kind not in "iuf":
            raise InputError(
                f"weight: expected a function that gives {given.shape} numbers, got {weights.shape} of {weights.dtype}"
            )
        weights = weights.astype(np.float32, copy=False)
    else:
        weights = given
    wrong = ~((weights >= 0) & (weights < np.inf))
    if wrong.any():
        edge = int(np.flatnonzero(wrong)[0])
        raise InputError(
            f"graph: {int(wrong.sum()):,} weights are negative or not finite, the first {weights[edge]:.6g} at edge "
            f"{first_edge + edge:,}; labels spread along weights from 0 on: weight='binary', weight='exp' (for squared "
            "distances, which l2 graphs hold with a minus) or a function such as lambda s: numpy.maximum(s, 0) ** 3"
        )
    if callable(weight) or weight == 1:
        return weights
    exponent = float(weight)
    wide = weights.astype(np.float64)
    if exponent in (2, 3, 4):  # by products, which round the same everywhere
        raised = wide * wide
        raised = raised * (wide if exponent == 3 else raised) if exponent > 2 else raised
    else:
        raised = wide**exponent
    return raised.astype(np.float32)


def _exponential(similarities: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.exp(similarities.astype(np.float64)).astype(np.float32)


def propagation_matrix(graph: KnnGraph, settings: PropagationSettings, threads: int | None = None) -> PropagationMatrix:
    """The matrix of a graph in memory.

    Raises
    ------
    InputError
        A weight is negative or not finite, a row names a neighbour twice, an index is no row, or the solver needs a
        symmetric matrix and this is none.
    """
    weights = edge_weights(graph.weights, settings.weight)
    try:
        given = SparseRows.whole(graph.indptr, graph.indices, weights)
        both = given.without_loops(both_ways=settings.symmetrize, threads=threads)
    except ValueError as error:
        raise InputError(f"graph: {error}") from error
    loops = count_loops(given)
    degrees = np.zeros(len(both))
    both.add_column_sums(degrees)
    if not settings.symmetrize and settings.solver != "power" and not is_symmetric(both):
        raise InputError(
            f"solver: {settings.solver!r} needs a symmetric graph, and this one is directed; pass symmetrize=True, or "
            "solver='power'"
        )
    left, right = scales(both, degrees, settings, threads)
    if left is None or right is None:
        rows = both if settings.dtype == "float32" else both.scaled(np.ones(len(both)), np.ones(len(both)), "float64")
    else:
        rows = both.scaled(left, right, settings.dtype, threads)
    return PropagationMatrix(rows, degrees, loops)


def scales(
    rows: SparseRows, degrees: NDArray[np.float64], settings: PropagationSettings, threads: int | None = None
) -> tuple[NDArray[np.float64] | None, NDArray[np.float64] | None]:
    """What some rows and all columns of W are multiplied by; None and None where they are taken as they are."""
    own = slice(rows.first_row, rows.first_row + len(rows))
    if settings.method == "vote":
        return None, None
    if settings.method == "harmonic" and settings.solver == "power":
        sums = rows.row_sums(threads)
        return 1 / np.where(sums > 0, sums, 1), np.ones(len(degrees))
    root = root_scale(degrees)
    return root[own], root


def root_scale(degrees: NDArray[np.float64]) -> NDArray[np.float64]:
    """D^-1/2, and 1 for a row of degree 0."""
    return 1 / np.sqrt(np.where(degrees > 0, degrees, 1))


def count_loops(rows: SparseRows) -> int:
    """Edges from a row to itself."""
    loops, step = 0, 1 << 16
    for first in range(0, len(rows), step):
        last = min(first + step, len(rows))
        edges = slice(int(rows.indptr[first] - rows.indptr[0]), int(rows.indptr[last] - rows.indptr[0]))
        owner = np.repeat(np.arange(first, last), np.diff(rows.indptr[first : last + 1]).astype(np.int64))
        loops += int((rows.indices[edges] == (owner + rows.first_row).astype(rows.indices.dtype)).sum())
    return loops
