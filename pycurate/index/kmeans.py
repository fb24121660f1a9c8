"""k-means by Lloyd's loop, with the same centroids on every machine and for any number of threads.

Rows go to their nearest centroid by canonical similarity, and sums are float64 in a fixed order. A k-means over a BLAS
library is neither: its products, and so its clusters, change with the processor.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from pycurate.errors import InputError
from pycurate.index.kmeans_start import KMeansMetric, Start, starting_rows
from pycurate.index.rows import Rows, check_count
from pycurate.index.sampling import drawn_rows, seeded_keys
from pycurate.kernels.fused_similarity import nearest
from pycurate.kernels.rowwise import row_statistics, sum_by_cluster

SAMPLE_PER_CENTROID = 256
"""Training rows for each centroid: more change a centroid by less than its own spread / sqrt(256)."""
BLOCK_ROWS = 4096
"""Rows whose sums are added up before they join the total; part of the definition of a centroid's bits."""
GPU_BLOCKS = 8
"""Blocks of rows assigned in one call on a GPU. Being asked takes longer than comparing one: 61 took 0.64 s on an H100
(benchmarks/gpu/run.py)."""
_EMPTY_STREAM = 3


@dataclass(frozen=True, slots=True, eq=False)
class KMeans:
    """Centroids, and how they came about.

    Attributes
    ----------
    centroids
        (k, d) float32; for cosine of length 1 up to rounding.
    inertia
        (assignments,) float64, before each update and at the end: the mean over the training rows of 1 - cosine, or of
        the squared distance, to the nearest centroid.
    sizes
        (k,) int64: training rows of each of ``centroids``. 0 is possible where the rows have fewer distinct values.
    converged
        Whether the loop ended before ``iterations`` updates.
    sample_rows
        Rows of x that were trained on, rising.
    unjudged
        Drawn rows that were left out because they cannot be judged, rising.
    reseeded
        How often an empty cluster was given a row of the largest.
    """

    centroids: NDArray[np.float32]
    metric: KMeansMetric
    inertia: NDArray[np.float64]
    sizes: NDArray[np.int64]
    converged: bool
    sample_rows: NDArray[np.int64]
    unjudged: NDArray[np.int64]
    reseeded: int
    seed: int


@dataclass(frozen=True, slots=True, eq=False)
class Assignment:
    """The nearest centroid of each row."""

    clusters: NDArray[np.int32]  # (n,) -1 where the row cannot be judged
    similarities: NDArray[np.float32]  # (n,) canonical; NaN where the row cannot be judged
    unjudged: NDArray[np.int64]  # the rows that cannot be judged, rising


def kmeans(
    x: NDArray[Any],
    k: int,
    *,
    metric: KMeansMetric = "cosine",
    iterations: int = 25,
    tolerance: float = 1e-4,
    sample: int | None = None,
    init: Start = "random",
    seed: int = 0,
    threads: int | None = None,
    dtype: str | None = None,
    device: str | None = None,
) -> KMeans:
    """Centroids of k clusters, trained on a seeded sample of rows.

    Parameters
    ----------
    x
        (n, d) float32, float16, bfloat16 or int8; may be a memory map, of which only the sample is read.
    k
        Clusters; at most the rows that are trained on.
    metric
        ``"cosine"`` (spherical k-means: means of rows of length 1, scaled to length 1) or ``"l2"``.
    iterations
        The most updates of the centroids.
    tolerance
        The loop ends when an update lowers the inertia by less than this share of it; 0: when no row moves.
    sample
        Rows to draw for training; default 256 for each centroid. All rows where there are no more. Held in memory as
        float32.
    init
        ``"random"``: k of the drawn rows. ``"k-means++"`` (Arthur and Vassilvitskii, 2007): each next centroid is a row
        drawn in proportion to its distance from the nearest so far; better where clusters are few and apart, but
        reads the sample k times, so for k up to some hundred. ``"k-means||"`` (Bahmani et al., 2012): five rounds, in
        each of which rows are drawn independently, about 2 k of them, in proportion to their distance from those
        drawn before; of all of these, each weighing as many rows as it is nearest to, k-means++ chooses k. Reads the
        sample five times and the some 10 k drawn rows k times: for k up to some thousand.
    seed
        The draws follow from it alone.
    threads, dtype, device
        As in `pycurate.nearest`; k-means++ stays on the CPU.

    Notes
    -----
    Sums over the rows of a cluster are float64, in the order of rows inside blocks of 4,096 training rows, and
    blocks are added in order. Ties go to the lower centroid. A cluster without rows, lowest number first, takes a row
    of the cluster that is largest then (ties: the lower number), drawn by seed, iteration and cluster; the large
    one counts as halved for the next. A mean of length 0 leaves a spherical centroid where it was.
    Lloyd (1982); the spherical form of Dhillon and Modha (2001).

    Raises
    ------
    InputError
        A value is not as above, or fewer than k drawn rows can be judged.
    TypeError, ValueError
        ``x`` is not such an array.
    """
    check_count("k", k)
    check_kmeans(metric, iterations, tolerance, init)
    rows = Rows.of("x", x, dtype)
    count = SAMPLE_PER_CENTROID * k if sample is None else sample
    check_count("sample", count)
    sampled = _Sample.of(rows, count, metric, seed, threads)
    sampled.require(k, len(rows))
    points = sampled.points
    begins = points[starting_rows(points, k, init, metric, sampled.drawn_first, seed, threads, device)]
    training = _Lloyd(points, begins, metric, seed, threads, device)
    converged = training.run(iterations, tolerance)
    return KMeans(
        training.centroids,
        metric,
        np.array(training.inertia),
        training.sizes,
        converged,
        sampled.rows,
        sampled.unjudged,
        training.reseeded,
        seed,
    )


def assign(
    x: NDArray[Any] | Iterable[NDArray[Any]],
    centroids: NDArray[np.float32],
    metric: KMeansMetric = "cosine",
    *,
    threads: int | None = None,
    dtype: str | None = None,
    device: str | None = None,
) -> Assignment:
    """The nearest centroid of each row, ties to the lower one.

    Parameters
    ----------
    x
        (n, d) float32, float16, bfloat16 or int8, such as a memory map, or an iterable of such blocks. Read in blocks.
    centroids
        (k, d) float32, as `kmeans` gives them.
    metric
        ``"cosine"`` or ``"l2"``.
    threads, dtype, device
        As in `pycurate.nearest`.

    Returns
    -------
    Assignment
        A row with NaN or infinite elements, or for cosine a zero row, is in cluster -1 and listed as unjudged.

    Raises
    ------
    InputError
        Rows and centroids differ in dimension, or a centroid cannot be judged.
    """
    if metric not in ("cosine", "l2"):
        raise InputError(f"metric: expected 'cosine' or 'l2', got {metric!r}")
    targets = Rows.of("centroids", centroids)
    if targets.element != "float32" or not len(targets):
        raise InputError(f"centroids: expected at least one float32 row, got {len(targets)} of {targets.element}")
    if not (good := targets.judged(metric, threads)).all():
        row = int(np.argmin(good))
        raise InputError(f"centroids: row {row} cannot be judged: it is not finite or of length 0")
    blocks = [x] if hasattr(x, "__array__") or hasattr(x, "__dlpack__") else x
    clusters, similarities = [np.empty(0, np.int32)], [np.empty(0, np.float32)]
    for given in blocks:
        rows = Rows.of("x", given, dtype)
        if rows.dimension != targets.dimension:
            raise InputError(
                f"x: expected rows of {targets.dimension} elements as the centroids have, got {rows.dimension}"
            )
        for _, block in rows.blocks(1 if device in (None, "cpu") else GPU_BLOCKS):
            found = nearest(block.widened(threads), 1, targets.values, metric, threads=threads, device=device)
            clusters.append(found.indices[:, 0].astype(np.int32))
            similarities.append(found.similarities[:, 0])
    joined = np.concatenate(clusters)
    return Assignment(joined, np.concatenate(similarities), np.flatnonzero(joined < 0))


def check_kmeans(metric: str, iterations: int, tolerance: float, init: str) -> None:
    """InputError unless they are as `kmeans` says."""
    check_count("iterations", iterations, least=0)
    if metric not in ("cosine", "l2"):
        raise InputError(f"metric: expected 'cosine' or 'l2', got {metric!r}")
    if init not in get_args(Start):
        raise InputError(f"init: expected 'random', 'k-means++' or 'k-means||', got {init!r}")
    if not 0 <= tolerance < 1:
        raise InputError(f"tolerance: expected a share of at least 0 and below 1, got {tolerance}")


@dataclass(frozen=True, slots=True, eq=False)
class _Sample:
    """The rows to train on."""

    points: NDArray[np.float32]
    rows: NDArray[np.int64]  # of x, rising
    unjudged: NDArray[np.int64]  # drawn rows that are left out, rising
    drawn_first: NDArray[np.int64]  # places in points, in the order in which they were drawn

    @classmethod
    def of(cls, rows: Rows, count: int, metric: KMeansMetric, seed: int, threads: int | None) -> _Sample:
        drawn = drawn_rows(len(rows), count, seed)
        rising = np.sort(drawn)
        taken = rows.take(rising)
        judged = taken.judged(metric, threads)
        usable = drawn[judged[np.searchsorted(rising, drawn)]]
        points = taken.take(np.flatnonzero(judged)).widened(threads)
        return cls(points, rising[judged], rising[~judged], np.searchsorted(rising[judged], usable))

    def require(self, k: int, total: int) -> None:
        """InputError where there are fewer than k, of ``total`` rows that could be drawn."""
        if (usable := len(self.points)) < k:
            raise InputError(
                f"k: expected at most the {usable:,} rows to train on that can be judged, got {k:,}; of {total:,} rows "
                f"{usable + len(self.unjudged):,} were drawn: lower k, raise sample or give more rows"
            )


class _Lloyd:
    """The loop: training rows and what changes with each round."""

    def __init__(
        self,
        points: NDArray[np.float32],
        centroids: NDArray[np.float32],
        metric: KMeansMetric,
        seed: int,
        threads: int | None,
        device: str | None,
    ) -> None:
        self.centroids = np.ascontiguousarray(centroids)
        self.inertia: list[float] = []
        self.sizes = np.zeros(len(centroids), np.int64)
        self.reseeded = 0
        self._points, self._metric, self._seed, self._threads = points, metric, seed, threads
        self._device = device
        self._norms = row_statistics(points, threads=threads).norms.astype(np.float64) if metric == "cosine" else None
        if metric == "cosine":
            self.centroids = _scaled(self.centroids, self.centroids)

    def run(self, iterations: int, tolerance: float) -> bool:
        """Update until it converges (True) or ``iterations`` updates are done."""
        before = np.empty(0, np.int64)
        for iteration in range(iterations + 1):
            clusters = self._assign()
            moved = not np.array_equal(clusters, before)
            little = iteration > 0 and self.inertia[-2] - self.inertia[-1] < tolerance * self.inertia[-2]
            if not moved or (tolerance > 0 and little):
                return True
            if iteration < iterations:
                self._update(clusters, iteration)
                before = clusters
        return False

    def _assign(self) -> NDArray[np.int64]:
        found = nearest(self._points, 1, self.centroids, self._metric, threads=self._threads, device=self._device)
        clusters, similarities = found.indices[:, 0], found.similarities[:, 0].astype(np.float64)
        if clusters.min() < 0:
            raise InputError("x: a row's distance from every centroid is beyond float32; scale the rows down")
        distances = 1 - similarities if self._metric == "cosine" else -similarities
        self.inertia.append(math.fsum(distances.tolist()) / len(distances))
        self.sizes = np.bincount(clusters, minlength=len(self.centroids)).astype(np.int64)
        return clusters

    def _update(self, clusters: NDArray[np.int64], iteration: int) -> None:
        sums = sum_by_cluster(
            self._points, self._norms, clusters, len(self.centroids), BLOCK_ROWS, threads=self._threads
        )
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            means = (sums / self.sizes[:, None]).astype(np.float32)
        filled = self.sizes > 0
        centroids = np.where(filled[:, None], means, self.centroids)
        if self._metric == "cosine":
            centroids = _scaled(centroids, self.centroids)
        elif not np.isfinite(centroids).all():
            raise InputError("x: the mean of a cluster is beyond float32; scale the rows down")
        self.centroids = self._with_rows_for_empty(centroids, clusters, iteration)

    def _with_rows_for_empty(
        self, centroids: NDArray[np.float32], clusters: NDArray[np.int64], iteration: int
    ) -> NDArray[np.float32]:
        sizes = self.sizes.astype(np.float64)
        for empty in np.flatnonzero(self.sizes == 0):
            largest = int(np.argmax(sizes))
            members = np.flatnonzero(clusters == largest)
            stream = _EMPTY_STREAM + (iteration << 32)
            draw = seeded_keys(np.array([empty], np.uint64), self._seed, stream)[0]
            row = members[int(draw % np.uint64(len(members)))]
            chosen = self._points[row : row + 1]
            centroids[empty] = (_scaled(chosen, chosen) if self._metric == "cosine" else chosen)[0]
            sizes[largest] /= 2
            self.reseeded += 1
        return centroids


def _scaled(rows: NDArray[np.float32], otherwise: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows divided in float64 by their canonical norms; those of norm 0 or not finite are taken from ``otherwise``."""
    norms = row_statistics(np.ascontiguousarray(rows)).norms.astype(np.float64)
    good = np.isfinite(norms) & (norms > 0)
    with np.errstate(all="ignore"):
        scaled = (rows / norms[:, None]).astype(np.float32)
    return np.where(good[:, None], scaled, otherwise)
