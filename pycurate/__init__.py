"""pycurate: compiled-kernel data curation for image-text pools.

Importing the package loads NumPy and nothing heavier; each name below is loaded when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "KnnGraph": "pycurate.index.graph",
    "Recipe": "pycurate.recipes",
    "Subset": "pycurate.io.subset",
    "assign": "pycurate.index.kmeans",
    "build_index": "pycurate.index.build",
    "components_above": "pycurate.kernels.fused_similarity",
    "count_above": "pycurate.kernels.fused_similarity",
    "doctor": "pycurate.api.doctor",
    "exact_duplicates": "pycurate.ops.dedup.exact",
    "kmeans": "pycurate.index.kmeans",
    "knn_graph": "pycurate.index.graph_build",
    "log_sum_exp": "pycurate.kernels.fused_similarity",
    "most_similar_earlier": "pycurate.kernels.fused_similarity",
    "nearest": "pycurate.kernels.fused_similarity",
    "open_index": "pycurate.api.search",
    "open_pool": "pycurate.io.pool",
    "pair_similarity": "pycurate.kernels.rowwise",
    "pairs_above": "pycurate.kernels.fused_similarity",
    "plan": "pycurate.api.plan",
    "recall_certificate": "pycurate.index.certificate",
    "run": "pycurate.api.run",
    "similarity_join": "pycurate.api.similarity",
    "spanning_forest_above": "pycurate.kernels.spanning_forest",
    "unjudged_rows": "pycurate.kernels.fused_similarity",
}
__all__ = [
    "KnnGraph",
    "Recipe",
    "Subset",
    "__version__",
    "assign",
    "build_index",
    "components_above",
    "count_above",
    "doctor",
    "exact_duplicates",
    "kmeans",
    "knn_graph",
    "log_sum_exp",
    "most_similar_earlier",
    "nearest",
    "open_index",
    "open_pool",
    "pair_similarity",
    "pairs_above",
    "plan",
    "recall_certificate",
    "run",
    "similarity_join",
    "spanning_forest_above",
    "unjudged_rows",
]

if TYPE_CHECKING:
    from pycurate.api.doctor import doctor
    from pycurate.api.plan import plan
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
    from pycurate.kernels.rowwise import pair_similarity
    from pycurate.kernels.spanning_forest import spanning_forest_above
    from pycurate.ops.dedup.exact import exact_duplicates
    from pycurate.recipes import Recipe


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'pycurate' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
