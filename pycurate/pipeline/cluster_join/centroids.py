"""Centroids of a clustered join, and the rule that says which clusters a row must be compared with.

For unit rows x of cluster a and y of cluster b with centroids c_a, c_b of unit length, let the *margin* of x towards b
be m = x·c_a - x·c_b, which is at least 0, and likewise that of y towards a. Their sum is (x - y)·(c_a - c_b), at most
|x - y| |c_a - c_b| (Cauchy-Schwarz). A cosine of t or more puts x and y at a distance of at most sqrt(2 - 2 t), so the
smaller of the two margins is at most half of that times |c_a - c_b|:

    min(m_x, m_y) <= sqrt((1 - t) / 2) |c_a - c_b|.

So where every row visits each cluster towards which its margin is no larger, one of the two rows of any pair at or
above t meets the other in its cluster: nothing can be missed. Geometrically, the path from x to y crosses the border
between the clusters, and the row that is nearer to the border visits. This is tighter than the bound by the triangle
inequality, angle(x, c_b) <= angle(x, c_a) + 2 arccos(t): the border is nowhere nearer than half the difference of the
angles, and only half of the path counts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pycurate.errors import InputError, MemoryCapError
from pycurate.index.kmeans import kmeans
from pycurate.index.rows import check_count
from pycurate.index.sampling import sample_rows
from pycurate.kernels.distinct import Floats, Indices
from pycurate.kernels.fused_similarity import nearest
from pycurate.pipeline.block_join.source import RowSource

SAMPLE_PER_CLUSTER = 64
MOST_SAMPLED = 1 << 18
LEAST_PER_CLUSTER = 4
"""k-means trains on 64 rows a cluster: more move a centroid by less than an eighth of its cluster's spread. From 4,096
clusters on on 262,144 rows in all, and at least 4 a cluster: borders lie elsewhere then, and probing sees to them."""

_UNIT_ROUNDOFF = 2.0**-24
_GATHERED = 1 << 22  # elements of centroids held at once, as float64


@dataclass(frozen=True, slots=True)
class ClusterRule:
    """What clusters follow from, besides the rows and their order: nothing else changes them."""

    clusters: int
    sample: int
    iterations: int
    seed: int

    @classmethod
    def of(cls, rows: int, clusters: int | None, sample: int | None, iterations: int, seed: int) -> ClusterRule:
        """For so many distinct rows; half of sqrt(rows) clusters by default: assigning then costs as comparing does."""
        if clusters is not None:
            check_count("clusters", clusters)
        if sample is not None:
            check_count("sample", sample)
        check_count("iterations", iterations, least=0)
        k = max(1, math.isqrt(rows) // 2) if clusters is None else clusters
        default = max(LEAST_PER_CLUSTER * k, min(SAMPLE_PER_CLUSTER * k, MOST_SAMPLED))
        drawn = min(rows, default if sample is None else sample)
        if clusters is not None and sample is not None and sample < clusters:
            raise InputError(f"sample: expected at least one row for each of {clusters:,} clusters, got {sample:,}")
        return cls(min(k, drawn), drawn, iterations, seed)

    def require_memory(self, source: RowSource, memory_bytes: int) -> None:
        """MemoryCapError where the sample and the centroids do not fit: a smaller sample would be other clusters."""
        needed = self.sample * (3 * source.row_bytes + 6 * source.d + 600) + self.clusters * 24 * source.d
        if needed > memory_bytes:
            raise MemoryCapError(
                f"memory_bytes: training {self.clusters:,} centroids on {self.sample:,} rows takes {needed >> 20:,} "
                f"MiB, {max(0, memory_bytes) >> 20:,} MiB are left; give {-(-(needed - memory_bytes) >> 20):,} MiB "
                "more, or ask for fewer clusters or a smaller sample, which give other clusters"
            )

    def train(self, source: RowSource, rows: Indices, threads: int) -> Floats:
        """(k, d) unit centroids, by k-means on a seeded sample of ``rows``."""
        drawn = rows[sample_rows(len(rows), self.sample, self.seed)]
        if not len(drawn):
            return np.empty((0, source.d), np.float32)
        return kmeans(
            source.take(drawn),
            self.clusters,
            iterations=self.iterations,
            sample=len(drawn),
            seed=self.seed,
            threads=threads or None,
            dtype=source.dtype,
        ).centroids


@dataclass(frozen=True, slots=True, eq=False)
class Borders:
    """Which clusters rows must visit, by the rule of the module's description."""

    centroids: Floats
    limit: float  # the cosine at and above which no pair may be missed

    @property
    def _rounding(self) -> float:
        """How far a canonical cosine may be from the true one: sums of d products and of d squares in 16 lanes (d / 16
        + 4 roundings each, the norms' under a square root), for rows whose squares are no subnormal numbers."""
        d = self.centroids.shape[1]
        rounding: float = (d / 8 + 12) * _UNIT_ROUNDOFF
        return rounding

    @property
    def _reach(self) -> float:
        lowest = min(1.0, max(-1.0, self.limit - self._rounding))
        return math.sqrt((1 - lowest) / 2)

    def visited(self, near: Indices, similarities: Floats) -> NDArray[np.bool_]:
        """(m, c) of the clusters near m rows, the row's own first, those that the row visits."""
        margins = similarities[:, :1].astype(np.float64) - similarities
        largest = self._reach * self._between(near) + 2 * self._rounding
        visits = (margins <= largest) & (near >= 0)
        visits[:, 0] = False
        return visits

    def may_lack(self, similarities: Floats) -> NDArray[np.bool_]:
        """(m,) whether a cluster behind the last listed one may have to be visited, too."""
        middle = self.centroids.mean(axis=0, dtype=np.float64)
        widest = 2 * math.sqrt(float(np.square(self.centroids - middle).sum(axis=1).max()))
        margins = similarities[:, 0].astype(np.float64) - similarities[:, -1]
        return margins <= self._reach * min(2.0, widest * (1 + 1e-6)) + 2 * self._rounding

    def _between(self, near: Indices) -> NDArray[np.float64]:
        """(m, c) |c_a - c_b| of the first cluster of each row and each other."""
        count = len(self.centroids)
        keys, places = np.unique(near[:, :1] * count + np.maximum(near, 0), return_inverse=True)
        found = np.empty(len(keys))
        step = max(1, _GATHERED // self.centroids.shape[1])
        for begin in range(0, len(keys), step):
            a, b = np.divmod(keys[begin : begin + step], count)
            found[begin : begin + step] = np.linalg.norm(_units(self.centroids[a]) - _units(self.centroids[b]), axis=1)
        return found[places].reshape(near.shape)


def nearest_clusters(rows: NDArray[np.float32], centroids: Floats, count: int, threads: int) -> tuple[Indices, Floats]:
    """(m, count) clusters, nearest first, ties to the lower, and the similarities to their centroids."""
    found = nearest(rows, min(count, len(centroids)), centroids, threads=threads or None)
    return found.indices, found.similarities


def _units(rows: Floats) -> NDArray[np.float64]:
    wide = rows.astype(np.float64)
    units: NDArray[np.float64] = wide / np.linalg.norm(wide, axis=1, keepdims=True)
    return units
