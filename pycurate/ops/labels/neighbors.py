"""Lists of neighbours for labels: computed from embeddings, or read from a graph or arrays that are there already."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pycurate.errors import InputError
from pycurate.index.graph import KnnGraph
from pycurate.index.rows import Rows, check_count
from pycurate.kernels.arrays import matrix_of, thread_count_of
from pycurate.kernels.distinct import DistinctRows, Floats, Indices
from pycurate.kernels.rowwise import Metric
from pycurate.kernels.uid import sort_uids
from pycurate.kernels.votes import NeighborLists, Read, nearest_lists
from pycurate.types import UID_DTYPE, UidArray

Knn: TypeAlias = KnnGraph | tuple[NDArray[Any], NDArray[Any]] | NeighborLists
"""Neighbours that are there already: a graph, (n, k) indices and similarities nearest first, or lists."""

WEIGHT_NEEDS_COSINE = (
    "weights: votes are weighed by similarity, which for metric 'l2' is below 0; use weights='count' or another metric"
)


def neighbor_lists(
    x: NDArray[Any] | None,
    k: int,
    knn: Knn | None = None,
    *,
    metric: Metric = "cosine",
    uids: UidArray | None = None,
    threads: int | None = None,
    dtype: Literal["bfloat16"] | None = None,
    device: str | None = None,
) -> NeighborLists:
    """The nearest distinct rows of every row, to be handed as ``knn`` to the functions of labels.

    Parameters
    ----------
    x
        (n, d) float32, float16, bfloat16 or int8 embeddings; None where ``knn`` has all. Where they are searched, some
        d + 400 bytes a row are held; for more rows than that allows, let `pycurate.similarity_join` or an approximate
        `pycurate.knn_graph` make ``knn`` on disk.
    k
        Neighbours of each row. Of fewer distinct rows, all.
    knn
        Neighbours that are there already: a `KnnGraph` in order of similarity, (n, k) ``indices`` (-1: none) and
        ``similarities``, nearest first, both perhaps memory maps, which are read block by block; or what this function
        has returned. Each row's own number in its list is skipped. With ``x``, copies are found in it, and a list's
        copies of the row itself and of nearer neighbours are skipped, so that less than k may be left; without ``x``
        they vote like others.
    metric
        ``"cosine"``, ``"inner_product"`` or ``"l2"``; of ``knn``, the one that it was made with.
    uids
        (n,) by which ties between equally near rows break; by default the lower row wins. Copies ``x`` once. Not with
        ``knn``, whose order is its own.
    threads, dtype, device
        As in `pycurate.nearest`; more than 128 neighbours are found on the CPU. No list depends on the device.

    Returns
    -------
    NeighborLists

    Raises
    ------
    InputError
        A value is not as above.
    """
    check_count("k", k)
    if knn is None:
        if x is None:
            raise InputError("x: expected embeddings (n, d), or knn; got neither")
        return _ordered(x, k, metric, uids, threads, dtype, device)
    if uids is not None:
        raise InputError("uids: ties were broken when knn was made; leave one of the two out")
    if isinstance(knn, NeighborLists):
        return knn
    n, width, read = _given_lists(knn)
    if x is None:
        return NeighborLists(n, n, width, read, None, np.empty(0, np.int64))
    array, element = matrix_of("x", x, dtype)
    if len(array) != n:
        raise InputError(f"knn: expected neighbours of {len(array)} rows, as x has, got those of {n}")
    return _without_copies(n, width, read, DistinctRows.of(array, element, metric, thread_count_of(threads)))


def _ordered(
    x: NDArray[Any],
    k: int,
    metric: Metric,
    uids: UidArray | None,
    threads: int | None,
    dtype: Literal["bfloat16"] | None,
    device: str | None,
) -> NeighborLists:
    if uids is None:
        return nearest_lists(x, k, metric, threads=threads, dtype=dtype, device=device)
    given = Rows.of("x", x, dtype)
    if uids.dtype != UID_DTYPE or uids.shape != (len(given),):
        raise InputError(f"uids: expected ({len(given)},) uids, got {uids.shape} of {uids.dtype}")
    order = np.arange(len(given), dtype=np.uint64)
    sort_uids(uids.copy(), order)
    rows = order.astype(np.int64)
    ordered = given.take(rows)
    found = nearest_lists(ordered.values, k, metric, threads=threads, dtype=given.dtype, device=device)
    node = np.empty(len(given), np.int64)
    node[rows] = np.arange(len(given)) if found.node is None else found.node
    return NeighborLists(found.n, found.count, found.width, found.read, node, np.sort(rows[found.unjudged]))


def _given_lists(knn: KnnGraph | tuple[NDArray[Any], NDArray[Any]]) -> tuple[int, int, Read]:
    """Rows, width, and what reads the lists of some rows."""
    if isinstance(knn, KnnGraph):
        if knn.order != "similarity":
            raise InputError("knn: expected a graph in order of similarity, got one by row, as symmetrize makes them")
        degrees = np.diff(knn.indptr).astype(np.int64)
        width = int(degrees.max(initial=1))

        def read_graph(first: int, last: int) -> tuple[Indices, Floats]:
            part = slice(int(knn.indptr[first]), int(knn.indptr[last]))
            taken = np.arange(width) < degrees[first:last, None]
            indices = np.full(taken.shape, -1, np.int64)
            weights = np.full(taken.shape, np.nan, np.float32)
            indices[taken], weights[taken] = knn.indices[part], knn.weights[part]
            return indices, weights

        return len(knn), width, read_graph
    if not isinstance(knn, tuple) or len(knn) != 2:
        raise InputError(f"knn: expected a KnnGraph or (indices, similarities), got {type(knn).__name__}")
    found, near = knn
    if found.ndim != 2 or found.shape != near.shape or found.dtype.kind not in "iu" or near.dtype.kind != "f":
        raise InputError(
            "knn: expected (n, k) integers and (n, k) floats, got "
            f"{found.shape} of {found.dtype} and {near.shape} of {near.dtype}"
        )

    def read_arrays(first: int, last: int) -> tuple[Indices, Floats]:
        part = found[first:last].astype(np.int64)
        beyond = np.flatnonzero((part >= len(found)).any(axis=1))
        if len(beyond):
            raise InputError(
                f"knn: expected row numbers below {len(found)}, got {part[beyond[0]].max()} in row {first + beyond[0]}"
            )
        return part, np.ascontiguousarray(near[first:last], np.float32)

    return len(found), found.shape[1], read_arrays


def _without_copies(n: int, width: int, read: Read, distinct: DistinctRows) -> NeighborLists:
    """Lists of groups of rows with the same bits, from lists of rows."""
    rows = distinct.rows
    if len(rows) == n:
        return NeighborLists(n, n, width, read, None, distinct.unjudged)

    def read_groups(first: int, last: int) -> tuple[Indices, Floats]:
        wanted = rows[first:last]
        found, near = np.empty((len(wanted), width), np.int64), np.empty((len(wanted), width), np.float32)
        if len(wanted):
            low = int(wanted[0])
            every, similarities = read(low, int(wanted[-1]) + 1)
            found[:], near[:] = every[wanted - low], similarities[wanted - low]
        groups = np.where(found >= 0, distinct.group[found], -1)
        groups[groups == np.arange(first, last)[:, None]] = -1
        order = np.argsort(groups, axis=1, kind="stable")  # equal groups side by side, the nearest of them first
        ordered = np.take_along_axis(groups, order, axis=1)
        again = np.zeros(ordered.shape, bool)
        again[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
        repeated = np.empty_like(again)
        np.put_along_axis(repeated, order, again, axis=1)
        groups[repeated] = -1
        return groups, near

    return NeighborLists(n, len(rows), width, read_groups, distinct.group, distinct.unjudged)
