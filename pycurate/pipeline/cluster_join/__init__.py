"""Near-duplicates by clusters: rows are compared with those of their cluster and, near a border, of the next."""

from __future__ import annotations

from pycurate.pipeline.cluster_join.centroids import Clustering
from pycurate.pipeline.cluster_join.join import ClusteredJoin

__all__ = ["ClusteredJoin", "Clustering"]
