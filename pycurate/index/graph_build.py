"""Nearest neighbours of every row as a graph: exactly, or among candidates with a certificate of what is missed."""

from __future__ import annotations

import os
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pycurate.errors import InputError
from pycurate.index import faiss_calls
from pycurate.index.certificate import SAMPLE_ROWS, recall_certificate
from pycurate.index.exact import best_first, exact_nearest, nothing_found, rescored, without_self
from pycurate.index.graph import KnnGraph
from pycurate.index.kinds import default_nlist, training_rows
from pycurate.index.kmeans import assign, kmeans
from pycurate.index.rows import Rows, check_count, check_metric
from pycurate.kernels.device import device_of
from pycurate.kernels.fused_similarity import nearest
from pycurate.kernels.neighbor_limit import device_for_neighbors
from pycurate.kernels.rowwise import Metric

Method: TypeAlias = Literal["exact", "ivf", "hnsw"]
METHODS = ("exact", "ivf", "hnsw")

TRAINING_ITERATIONS = 10
QUERY_BLOCK = 4096
_WIDE = np.iinfo(np.uint32).max


def knn_graph(
    x: NDArray[Any],
    k: int,
    *,
    method: Method = "exact",
    metric: Metric = "cosine",
    out: str | os.PathLike[str] | None = None,
    weights: Literal["float32", "float16"] = "float32",
    nlist: int | None = None,
    nprobe: int = 16,
    ef: int = 128,
    sample: int = SAMPLE_ROWS,
    seed: int = 0,
    threads: int | None = None,
    dtype: str | None = None,
    device: str | None = None,
) -> KnnGraph:
    """The k nearest other rows of every row.

    Parameters
    ----------
    x
        (n, d) float32, float16, bfloat16 or int8; may be a memory map.
    k
        Neighbours of each row. Fewer where there are no more rows.
    method
        ``"exact"``: every pair is looked at. ``"ivf"``: rows are grouped around centroids of `kmeans`, and each group
        is compared with the ``nprobe`` groups nearest to it. ``"hnsw"``: rows are searched in a FAISS graph
        (Malkov and Yashunin, 2018), which depends on the timing of its threads unless ``threads=1``.
    metric
        ``"cosine"``, ``"inner_product"`` or ``"l2"``.
    out
        A folder to write the graph into, new, empty, or of an earlier graph; in memory by default. The n k neighbours
        are held in memory, 12 bytes each, until they are written.
    weights
        ``"float32"``: canonical similarities; ``"float16"``: rounded to 2 bytes.
    nlist, nprobe
        Of ``ivf``: groups, about sqrt(n) by default, and how many each is compared with, itself one of them.
    ef
        Of ``hnsw``: rows kept in view on the way through the graph; at least 2 k are.
    sample
        Rows on which the recall of an approximate method is measured; see `recall_certificate`.
    seed
        Of k-means and of the sample.
    threads, dtype, device
        As in `pycurate.nearest`. More than 128 neighbours, and those of ``hnsw``, are found on the CPU.

    Returns
    -------
    KnnGraph
        Similarities and their order are canonical for every method; approximate ones carry a certificate.

    Raises
    ------
    InputError
        A value is not as above, or a similarity does not fit float16.
    """
    _check(metric, method, weights, device, k=k, nprobe=nprobe, ef=ef, sample=sample, nlist=nlist)
    rows = Rows.of("x", x, dtype)
    judged = rows.judged(metric, threads)
    usable = np.flatnonzero(judged)
    k = min(k, max(len(usable) - 1, 1))
    if method == "exact" or len(usable) < 2:
        indices, similarities = _by_all(rows, k, metric, threads, device)
    elif method == "ivf":
        groups = min(default_nlist(len(usable)) if nlist is None else nlist, len(usable))
        indices, similarities = _by_groups(rows, usable, k, metric, groups, nprobe, seed, threads, device)
    else:
        indices, similarities = _by_graph(rows, usable, k, metric, ef, threads)
    certificate = None
    if method != "exact":
        certificate = recall_certificate(
            indices, x, k=k, metric=metric, sample=sample, seed=seed, threads=threads, dtype=dtype, device=device
        )
    there = indices >= 0
    indptr = np.zeros(len(rows) + 1, np.uint64)
    np.cumsum(there.sum(axis=1), out=indptr[1:])
    columns: NDArray[np.unsignedinteger[Any]] = indices[there].astype(np.uint32 if len(rows) <= _WIDE else np.uint64)
    kept = _weights(similarities[there], weights)
    graph = KnnGraph(indptr, columns, kept, "similarity", metric, method, np.flatnonzero(~judged), certificate)
    return graph if out is None else graph.save(out)


def _check(metric: str, method: str, weights: str, device: str | None, **counts: int | None) -> None:
    device_of(device)
    check_metric(metric)
    for name, count in counts.items():
        if count is not None:
            check_count(name, count)
    if method not in METHODS:
        raise InputError(f"method: expected one of {', '.join(METHODS)}, got {method!r}")
    if weights not in ("float32", "float16"):
        raise InputError(f"weights: expected 'float32' or 'float16', got {weights!r}")


def _weights(similarities: NDArray[np.float32], kind: str) -> NDArray[np.floating[Any]]:
    if kind == "float32":
        return similarities
    largest = float(np.abs(similarities).max(initial=0))
    if largest > float(np.finfo(np.float16).max):
        raise InputError(f"weights: a similarity of size {largest:.4g} does not fit float16; use weights='float32'")
    return similarities.astype(np.float16)


def _by_all(
    rows: Rows, k: int, metric: Metric, threads: int | None, device: str | None
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Brute force."""
    place = device_for_neighbors(device, k)
    found = nearest(rows.values, k, None, metric, threads=threads, dtype=rows.dtype, device=place)
    return found.indices, found.similarities


def _by_groups(
    rows: Rows,
    usable: NDArray[np.int64],
    k: int,
    metric: Metric,
    groups: int,
    nprobe: int,
    seed: int,
    threads: int | None,
    device: str | None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Self-search group by group: the rows of a group against those of the groups nearest to it, by brute force."""
    by: Literal["l2", "cosine"] = "l2" if metric == "l2" else "cosine"
    trained = kmeans(
        rows.values,
        groups,
        metric=by,
        iterations=TRAINING_ITERATIONS,
        sample=training_rows(groups),
        seed=seed,
        threads=threads,
        dtype=rows.dtype,
        device=device,
    )
    assigned = assign(rows.values, trained.centroids, by, threads=threads, dtype=rows.dtype, device=device)
    # A zero row has no direction, but inner products; it goes to the first group.
    clusters = np.maximum(assigned.clusters[usable], 0)
    order = np.argsort(clusters, kind="stable")
    members = np.split(usable[order], np.searchsorted(clusters[order], np.arange(1, groups)))
    sizes = np.array([len(rows_of_group) for rows_of_group in members])
    centroids = Rows(trained.centroids, "float32")
    near = exact_nearest(centroids, centroids, min(nprobe, groups), by, threads=threads, device=device)[0]
    indices, similarities = nothing_found(len(rows), k)
    for group, own in enumerate(members):
        if not len(own):
            continue
        compared = near[group]
        if sizes[compared].sum() <= k:  # too few rows near by: as many groups as hold enough
            ranked = exact_nearest(centroids.take(slice(group, group + 1)), centroids, groups, by, threads=threads)[0][
                0
            ]
            compared = ranked[: int(np.searchsorted(np.cumsum(sizes[ranked]), k, side="right")) + 1]
        around = np.sort(np.concatenate([members[other] for other in {group, *compared.tolist()}]))
        block = rows.take(around)
        for start in range(0, len(own), QUERY_BLOCK):
            part = own[start : start + QUERY_BLOCK]
            wider = exact_nearest(rows.take(part), block, k + 1, metric, threads=threads, device=device)
            places = np.where(wider[0] >= 0, around[wider[0]], -1)
            indices[part], similarities[part] = without_self(places, wider[1], part, k)
    return indices, similarities


def _by_graph(
    rows: Rows, usable: NDArray[np.int64], k: int, metric: Metric, ef: int, threads: int | None
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Neighbours that a FAISS graph proposes, re-scored."""
    indices, similarities = nothing_found(len(rows), k)
    count = min(2 * k + 1, len(usable))
    with faiss_calls.faiss_threads(threads):
        index = faiss_calls.empty_graph(rows.dimension, rows.element, metric)
        for start in range(0, len(usable), rows.block_rows):
            index.add(faiss_calls.seen_by_faiss(rows.take(usable[start : start + rows.block_rows]), metric, threads))
        for start in range(0, len(usable), QUERY_BLOCK):
            part = usable[start : start + QUERY_BLOCK]
            queries = rows.take(part)
            places = faiss_calls.propose(
                index,
                "hnsw",
                faiss_calls.seen_by_faiss(queries, metric, threads),
                count,
                effort=max(ef, count),
                allowed=None,
                pq_width=0,
            )
            proposed = np.where(places >= 0, usable[places], -1)
            proposed[proposed == part[:, None]] = -1
            scores = rescored(queries, rows, proposed, metric, threads)
            indices[part], similarities[part] = best_first(proposed, scores, k)
    return indices, similarities
