"""pycurate: compiled-kernel data curation for image-text pools.

Importing the package loads NumPy and nothing heavier; each name below is loaded when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "Clustering": "pycurate.api.dedup_settings",
    "DuplicateStore": "pycurate.api.dedup_store",
    "KnnGraph": "pycurate.index.graph",
    "KnnLabelSpreading": "pycurate.ops.labels.knn_label_spreading",
    "Recipe": "pycurate.recipes",
    "Subset": "pycurate.io.subset",
    "assign": "pycurate.index.kmeans",
    "build_index": "pycurate.index.build",
    "build_pack": "pycurate.api.pack",
    "clustered_join": "pycurate.api.clustered",
    "components_above": "pycurate.kernels.fused_similarity",
    "count_above": "pycurate.kernels.fused_similarity",
    "decontaminate": "pycurate.api.decontaminate",
    "dedup": "pycurate.api.dedup",
    "dedup_append": "pycurate.api.dedup_append",
    "dedup_curve": "pycurate.api.dedup_curve",
    "doctor": "pycurate.api.doctor",
    "exact_duplicates": "pycurate.ops.dedup.exact",
    "indexed_join": "pycurate.api.clustered",
    "hamming_components": "pycurate.kernels.hamming",
    "hamming_linkage": "pycurate.kernels.hamming",
    "hamming_nearest_earlier": "pycurate.kernels.hamming",
    "hamming_pairs": "pycurate.kernels.hamming",
    "kmeans": "pycurate.index.kmeans",
    "knn_graph": "pycurate.index.graph_build",
    "log_sum_exp": "pycurate.kernels.fused_similarity",
    "minhash_components": "pycurate.ops.dedup.minhash",
    "minhash_duplicates": "pycurate.ops.dedup.minhash",
    "minhash_pairs": "pycurate.ops.dedup.minhash",
    "minhash_signatures": "pycurate.ops.dedup.minhash",
    "most_similar_earlier": "pycurate.kernels.fused_similarity",
    "nearest": "pycurate.kernels.fused_similarity",
    "open_index": "pycurate.api.search",
    "open_pool": "pycurate.io.pool",
    "pair_similarity": "pycurate.kernels.rowwise",
    "pairs_above": "pycurate.kernels.fused_similarity",
    "perceptual_duplicates": "pycurate.ops.dedup.perceptual",
    "perceptual_hashes": "pycurate.ops.dedup.perceptual",
    "plan": "pycurate.api.plan",
    "propagate_labels": "pycurate.api.propagation",
    "recall_certificate": "pycurate.index.certificate",
    "run": "pycurate.api.run",
    "similarity_join": "pycurate.api.similarity",
    "spanning_forest_above": "pycurate.kernels.spanning_forest",
    "unjudged_rows": "pycurate.kernels.fused_similarity",
}
__all__ = [
    "Clustering",
    "DuplicateStore",
    "KnnGraph",
    "KnnLabelSpreading",
    "Recipe",
    "Subset",
    "__version__",
    "assign",
    "build_index",
    "build_pack",
    "clustered_join",
    "components_above",
    "count_above",
    "decontaminate",
    "dedup",
    "dedup_append",
    "dedup_curve",
    "doctor",
    "exact_duplicates",
    "hamming_components",
    "hamming_linkage",
    "hamming_nearest_earlier",
    "hamming_pairs",
    "indexed_join",
    "kmeans",
    "knn_graph",
    "log_sum_exp",
    "minhash_components",
    "minhash_duplicates",
    "minhash_pairs",
    "minhash_signatures",
    "most_similar_earlier",
    "nearest",
    "open_index",
    "open_pool",
    "pair_similarity",
    "pairs_above",
    "perceptual_duplicates",
    "perceptual_hashes",
    "plan",
    "propagate_labels",
    "recall_certificate",
    "run",
    "similarity_join",
    "spanning_forest_above",
    "unjudged_rows",
]

if TYPE_CHECKING:
    from pycurate.api.clustered import clustered_join, indexed_join
    from pycurate.api.decontaminate import decontaminate
    from pycurate.api.dedup import dedup
    from pycurate.api.dedup_append import dedup_append
    from pycurate.api.dedup_curve import dedup_curve
    from pycurate.api.dedup_settings import Clustering
    from pycurate.api.dedup_store import DuplicateStore
    from pycurate.api.doctor import doctor
    from pycurate.api.pack import build_pack
    from pycurate.api.plan import plan
    from pycurate.api.propagation import propagate_labels
    from pycurate.api.run import run
    from pycurate.api.search import open_index
    from pycurate.api.similarity import similarity_join
    from pycurate.index.build import build_index
    from pycurate.index.certificate import recall_certificate
    from pycurate.index.graph import KnnGraph
    from pycurate.index.graph_build import knn_graph
    from pycurate.index.kmeans import assign, kmeans
    from pycurate.io.pool import open_pool
    from pycurate.io.subset import Subset
    from pycurate.kernels.fused_similarity import (
        components_above,
        count_above,
        log_sum_exp,
        most_similar_earlier,
        nearest,
        pairs_above,
        unjudged_rows,
    )
    from pycurate.kernels.hamming import (
        hamming_components,
        hamming_linkage,
        hamming_nearest_earlier,
        hamming_pairs,
    )
    from pycurate.kernels.rowwise import pair_similarity
    from pycurate.kernels.spanning_forest import spanning_forest_above
    from pycurate.ops.dedup.exact import exact_duplicates
    from pycurate.ops.dedup.minhash import (
        minhash_components,
        minhash_duplicates,
        minhash_pairs,
        minhash_signatures,
    )
    from pycurate.ops.dedup.perceptual import perceptual_duplicates, perceptual_hashes
    from pycurate.ops.labels.knn_label_spreading import KnnLabelSpreading
    from pycurate.recipes import Recipe


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'pycurate' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
