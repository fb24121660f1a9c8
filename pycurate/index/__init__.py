"""Vector indices over FAISS, k-means, neighbour graphs and the certificates of their recall.

Rows come as arrays or as blocks, never as files of a pool. FAISS only proposes candidates, and is loaded when an index
that needs it is built or opened; every similarity that is returned, and every order, is canonical.
"""

from __future__ import annotations

from pycurate.index.build import build_index
from pycurate.index.certificate import RecallCertificate, recall_certificate
from pycurate.index.graph import KnnGraph
from pycurate.index.graph_build import knn_graph
from pycurate.index.kinds import Kind, index_memory
from pycurate.index.kmeans import Assignment, KMeans, assign, kmeans
from pycurate.index.vector_index import Neighbors, VectorIndex, open_vector_index

__all__ = [
    "Assignment",
    "KMeans",
    "Kind",
    "KnnGraph",
    "Neighbors",
    "RecallCertificate",
    "VectorIndex",
    "assign",
    "build_index",
    "index_memory",
    "kmeans",
    "knn_graph",
    "open_vector_index",
    "recall_certificate",
]
