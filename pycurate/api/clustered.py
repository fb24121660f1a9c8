"""``clustered_join`` and ``indexed_join``: near-duplicates of rows that are too many to compare every two of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pycurate.engine.memory import BASE_BYTES, default_memory_bytes
from pycurate.index.kmeans_start import Start
from pycurate.index.rows import check_count
from pycurate.kernels.arrays import require_option, thread_count_of
from pycurate.kernels.rowwise import Metric
from pycurate.pipeline.block_join import RowSource, Source
from pycurate.pipeline.block_join.sweep import Progress
from pycurate.pipeline.cluster_join import ClusteredJoin, Clustering
from pycurate.pipeline.cluster_join.centroids import ITERATIONS, PROBES, TOLERANCE
from pycurate.pipeline.index_join import IndexedJoin, Method


def clustered_join(
    source: Source,
    out: str | os.PathLike[str],
    *,
    clusters: int | None = None,
    probes: int | Literal["exact"] = PROBES,
    metric: Metric = "cosine",
    sample: int | None = None,
    iterations: int = ITERATIONS,
    seed: int = 0,
    tolerance: float = TOLERANCE,
    init: Start = "random",
    min_recall: float | None = None,
    memory_bytes: int | None = None,
    threads: int | None = None,
    dtype: Literal["bfloat16"] | None = None,
    device: str | None = None,
    progress: Progress = None,
) -> ClusteredJoin:
    """Open or continue a join of near-duplicates within clusters and across their borders; see `ClusteredJoin`.

    Asks what `pycurate.similarity_join` asks, of fewer pairs. Reads all rows twice: to find those that cannot be judged
    and those with the same bits, and to write them to the folder by cluster.

    Parameters
    ----------
    source, out, memory_bytes, threads, dtype, device, progress
        As in `pycurate.similarity_join`; both may use one folder. The cap changes no answer, so that training on a
        sample that does not fit is refused.
    clusters
        Default: half the square root of the number of distinct rows; semdedup's 50,000 is for hundreds of millions.
    probes
        ``"exact"``: each row visits every cluster that may hold a near-duplicate, and no pair can be missed; at low
        thresholds and in many dimensions that is most clusters, which ``work(threshold)`` tells. A number, at least 0:
        only those of them among so many clusters nearest to the row; what that misses ``certificate(threshold)``
        measures. 0: rows are compared within their cluster only, as SemDeDup does.
    metric
        ``"cosine"``; the bound on borders is one of angles.
    sample
        Distinct rows to train centroids on, in memory as float32. Default: 64 a cluster, at most 262,144 in all but at
        least 4 a cluster.
    iterations, seed, tolerance, init
        As in `pycurate.kmeans`; the seed is also that of certificates.
    min_recall
        Where ``probes`` is a number, each question first raises it, up to 64, until a certificate shows with 95 %
        confidence that of the rows with a near-duplicate so many keep one; RecallError where none does.

    Raises
    ------
    TypeError, ValueError, MemoryCapError, WorkspaceError, KeyboardInterrupt
        As `pycurate.similarity_join`.

    References
    ----------
    Abbas, Tirumala, Simig, Ganguli, Morcos: SemDeDup: data-efficient learning at web-scale through semantic
    deduplication (2023), which compares within clusters and misses pairs across their borders.
    """
    require_option("metric", metric, Metric)
    if metric != "cosine":
        raise ValueError(
            f"metric: expected 'cosine', got {metric!r}; the bound on borders is one of angles: use similarity_join"
        )
    if min_recall is not None and not 0 <= min_recall <= 1:
        raise ValueError(f"min_recall: expected None or a share from 0 to 1, got {min_recall}")
    limit = default_memory_bytes() if memory_bytes is None else memory_bytes
    return ClusteredJoin(
        RowSource("source", source, dtype),
        Path(out),
        Clustering(clusters, probes, iterations, seed, sample, tolerance, init),
        min_recall,
        limit - BASE_BYTES,
        thread_count_of(threads),
        progress,
        device=device,
    )


def indexed_join(
    source: Source,
    out: str | os.PathLike[str],
    *,
    method: Method = "ivf",
    k: int = 32,
    nprobe: int = 16,
    ef: int = 128,
    seed: int = 0,
    memory_bytes: int | None = None,
    threads: int | None = None,
    dtype: Literal["bfloat16"] | None = None,
    device: str | None = None,
    progress: Progress = None,
) -> IndexedJoin:
    """Near-duplicates among the candidates that a vector index proposes for each distinct row.

    Parameters
    ----------
    source, out, threads, dtype, device
        As in `pycurate.similarity_join`; FAISS stays on the CPU.
    method, nprobe, ef, seed
        As in `pycurate.knn_graph`: ``"ivf"`` compares a group of rows with the ``nprobe`` nearest groups; ``"hnsw"``
        walks a FAISS graph, which is the same again only with ``threads=1``.
    k
        Candidates of each row; 12 k bytes a row in memory while they are found. Of more near-duplicates the nearest
        are kept.
    memory_bytes
        For certificates, as in `pycurate.similarity_join`; k-means and FAISS take what they take.
    progress
        Called with the fraction of a certificate's comparisons that is done.

    Returns
    -------
    IndexedJoin
        With ``pairs_above``, ``most_similar_earlier``, ``components_above``, ``spanning_forest_above`` and
        ``certificate``.

    Raises
    ------
    InputError
        An option is not as above.
    MissingDependencyError
        FAISS is not installed, for ``"hnsw"``.
    """
    require_option("method", method, Method)
    check_count("k", k)
    check_count("nprobe", nprobe)
    check_count("ef", ef)
    limit = default_memory_bytes() if memory_bytes is None else memory_bytes
    rows = RowSource("source", source, dtype)
    return IndexedJoin(
        rows, Path(out), method, k, nprobe, ef, seed, limit - BASE_BYTES, thread_count_of(threads), progress, device
    )
