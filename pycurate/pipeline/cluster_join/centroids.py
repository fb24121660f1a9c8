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
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pycurate.errors import InputError, MemoryCapError
from pycurate.index.kmeans import check_kmeans, kmeans
from pycurate.index.kmeans_start import OVERSAMPLING, ROUNDS, Start
from pycurate.index.rows import check_count
from pycurate.index.sampling import sample_rows
from pycurate.kernels.distinct import Floats, Indices
from pycurate.kernels.fused_similarity import nearest
from pycurate.kernels.neighbor_limit import device_for_neighbors
from pycurate.pipeline.block_join.source import RowSource

SAMPLE_PER_CLUSTER = 64
MOST_SAMPLED = 1 << 18
LEAST_PER_CLUSTER = 4
"""k-means trains on 64 rows a cluster: more move a centroid by less than an eighth of its cluster's spread. From 4,096
clusters on on 262,144 rows in all, and at least 4 a cluster: borders lie elsewhere then, and probing sees to them."""

PROBES, ITERATIONS, TOLERANCE = 4, 10, 1e-4
"""Rounds after the tenth move few rows across a border; probing sees to those."""

_UNIT_ROUNDOFF = 2.0**-24
_GATHERED = 1 << 22  # elements of centroids held at once, as float64


@dataclass(frozen=True, slots=True)
class Clustering:
    """How rows are clustered, and with which clusters beside its own a row is compared.

    Parameters
    ----------
    clusters
        Default: half of the square root of the number of distinct rows.
    probes
        Clusters that a row near a border is compared with, or ``"exact"``: all that may hold a duplicate. 0: none but
        its own, as in SemDeDup.
    iterations, seed, tolerance, init
        Of k-means, as `pycurate.kmeans` takes them.
    sample
        Distinct rows that centroids are trained on. Default: 64 a cluster, at most 262,144 in all but at least 4 a
        cluster.

    Raises
    ------
    InputError
        A value is none of these.
    """

    clusters: int | None = None
    probes: int | Literal["exact"] = PROBES
    iterations: int = ITERATIONS
    seed: int = 0
    sample: int | None = None
    tolerance: float = TOLERANCE
    init: Start = "random"

    def __post_init__(self) -> None:
        if self.clusters is not None:
            check_count("clusters", self.clusters)
        if self.sample is not None:
            check_count("sample", self.sample)
        if self.probes != "exact":
            check_count("probes", self.probes, least=0)
        check_kmeans("cosine", self.iterations, self.tolerance, self.init)
        if self.clusters is not None and self.sample is not None and self.sample < self.clusters:
            raise InputError(
                f"sample: expected at least one row for each of {self.clusters:,} clusters, got {self.sample:,}"
            )

    def clusters_of(self, rows: int) -> int:
        """Clusters of so many distinct rows; by default so many that assigning costs as comparing does."""
        return max(1, math.isqrt(rows) // 2) if self.clusters is None else self.clusters

    def require_rows(self, rows: int) -> None:
        """InputError where there are more clusters than rows: published settings are for hundreds of millions."""
        if self.clusters is not None and self.clusters > rows:
            raise InputError(
                f"clusters: expected at most one for each of {rows:,} rows, got {self.clusters:,}; give fewer, or none "
                "for half of the square root of the rows"
            )


@dataclass(frozen=True, slots=True)
class ClusterRule:
    """What clusters follow from, besides the rows and their order: nothing else changes them."""

    clusters: int
    sample: int
    iterations: int
    seed: int
    tolerance: float
    init: Start

    @classmethod
    def of(cls, rows: int, clustering: Clustering) -> ClusterRule:
        """For so many distinct rows."""
        k = clustering.clusters_of(rows)
        default = max(LEAST_PER_CLUSTER * k, min(SAMPLE_PER_CLUSTER * k, MOST_SAMPLED))
        drawn = min(rows, default if clustering.sample is None else clustering.sample)
        settings = (clustering.iterations, clustering.seed, clustering.tolerance, clustering.init)
        return cls(min(k, drawn), drawn, *settings)

    def facts(self) -> dict[str, Any]:
        """JSON that tells these clusters from others."""
        return asdict(self)

    def require_memory(self, source: RowSource, memory_bytes: int) -> None:
        """MemoryCapError where the sample and the centroids do not fit: a smaller sample would be other clusters."""
        needed = self.sample * (3 * source.row_bytes + 6 * source.d + 600) + self.clusters * 24 * source.d
        if self.init == "k-means||":  # the rows that it draws, and those of one round as an operand
            drawn = min(self.sample, (ROUNDS * OVERSAMPLING + 2) * self.clusters)
            needed += drawn * (4 * source.d + 64) + OVERSAMPLING * self.clusters * 24 * source.d
        if needed > memory_bytes:
            raise MemoryCapError(
                f"memory_bytes: training {self.clusters:,} centroids on {self.sample:,} rows takes {needed >> 20:,} "
                f"MiB, {max(0, memory_bytes) >> 20:,} MiB are left; give {-(-(needed - memory_bytes) >> 20):,} MiB "
                "more, or ask for fewer clusters or a smaller sample, which give other clusters"
            )

    def train(self, source: RowSource, rows: Indices, threads: int, device: str | None) -> Floats:
        """(k, d) unit centroids, by k-means on a seeded sample of ``rows``, which follows from their order."""
        drawn = rows[sample_rows(len(rows), self.sample, self.seed)]
        if not len(drawn):
            return np.empty((0, source.d), np.float32)
        return kmeans(
            source.take_any(drawn),
            self.clusters,
            iterations=self.iterations,
            tolerance=self.tolerance,
            sample=len(drawn),
            init=self.init,
            seed=self.seed,
            threads=threads or None,
            dtype=source.dtype,
            device=device,
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


def nearest_clusters(
    rows: NDArray[np.float32], centroids: Floats, count: int, threads: int, device: str | None
) -> tuple[Indices, Floats]:
    """(m, count) clusters, nearest first, ties to the lower, and the similarities to their centroids."""
    listed = min(count, len(centroids))
    place = device_for_neighbors(device, listed)
    found = nearest(rows, listed, centroids, threads=threads or None, device=place)
    return found.indices, found.similarities


def _units(rows: Floats) -> NDArray[np.float64]:
    wide = rows.astype(np.float64)
    units: NDArray[np.float64] = wide / np.linalg.norm(wide, axis=1, keepdims=True)
    return units
