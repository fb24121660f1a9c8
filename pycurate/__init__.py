"""pycurate: compiled-kernel data curation for image-text pools.

Importing the package loads NumPy and nothing heavier; each name below is loaded when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "Clustering": "pycurate.pipeline.cluster_join",
    "DuplicateStore": "pycurate.api.dedup_store",
    "KnnGraph": "pycurate.index.graph",
    "KnnLabelSpreading": "pycurate.ops.labels.knn_label_spreading",
    "LabelModel": "pycurate.ops.labels.label_model",
    "Recipe": "pycurate.recipes",
    "SparseVotes": "pycurate.ops.labels.annotator_votes",
    "Subset": "pycurate.io.subset",
    "TopProbabilities": "pycurate.ops.labels.probabilities",
    "aggregate_labels": "pycurate.api.label_aggregate",
    "annotator_confusion": "pycurate.ops.labels.annotator_votes",
    "assign": "pycurate.index.kmeans",
    "balance_labels": "pycurate.api.balance_labels",
    "build_index": "pycurate.index.build",
    "build_pack": "pycurate.api.pack",
    "class_means": "pycurate.ops.labels.pseudo_labels",
    "calibrate_confident_joint": "pycurate.ops.labels.confident_learning",
    "class_quality": "pycurate.ops.labels.class_quality",
    "clustered_join": "pycurate.api.clustered",
    "components_above": "pycurate.kernels.fused_similarity",
    "compute_confident_joint": "pycurate.ops.labels.confident_learning",
    "class_caps": "pycurate.ops.selection.balance",
    "class_imbalance": "pycurate.ops.selection.imbalance",
    "coreset": "pycurate.api.coreset",
    "count_above": "pycurate.kernels.fused_similarity",
    "dawid_skene": "pycurate.ops.labels.dawid_skene",
    "decontaminate": "pycurate.api.decontaminate",
    "dedup": "pycurate.api.dedup",
    "dedup_append": "pycurate.api.dedup_append",
    "dedup_curve": "pycurate.api.dedup_curve",
    "doctor": "pycurate.api.doctor",
    "entity_labels": "pycurate.ops.labels.entity_labels",
    "estimate_noise_transition": "pycurate.ops.labels.noise_transition",
    "exact_duplicates": "pycurate.ops.dedup.exact",
    "feature_outlier_scores": "pycurate.ops.labels.outliers",
    "estimate_joint": "pycurate.ops.labels.confident_learning",
    "estimate_latent": "pycurate.ops.labels.joint",
    "estimate_noise_matrices": "pycurate.ops.labels.noise_matrices",
    "find_label_issues": "pycurate.ops.labels.label_issues",
    "find_predicted_neq_given": "pycurate.ops.labels.label_issues",
    "find_top_issues": "pycurate.ops.labels.label_quality",
    "get_confident_thresholds": "pycurate.ops.labels.confident_learning",
    "get_label_quality_ensemble_scores": "pycurate.ops.labels.label_quality",
    "get_label_quality_multiannotator": "pycurate.ops.labels.multiannotator",
    "get_label_quality_scores": "pycurate.ops.labels.label_quality",
    "facility_location": "pycurate.ops.selection.facility",
    "indexed_join": "pycurate.api.clustered",
    "hamming_components": "pycurate.kernels.hamming",
    "hamming_linkage": "pycurate.kernels.hamming",
    "hamming_nearest_earlier": "pycurate.kernels.hamming",
    "hamming_pairs": "pycurate.kernels.hamming",
    "k_center": "pycurate.ops.selection.k_center",
    "kmeans": "pycurate.index.kmeans",
    "knn_graph": "pycurate.index.graph_build",
    "knn_label_noise": "pycurate.ops.labels.label_noise",
    "label_noise": "pycurate.api.label_noise",
    "linear_separation": "pycurate.ops.labels.separation",
    "log_sum_exp": "pycurate.kernels.fused_similarity",
    "loss_mixture": "pycurate.ops.labels.separation",
    "label_issues": "pycurate.api.label_issues",
    "majority_vote": "pycurate.ops.labels.annotator_votes",
    "minhash_components": "pycurate.ops.dedup.minhash",
    "minhash_duplicates": "pycurate.ops.dedup.minhash",
    "minhash_pairs": "pycurate.ops.dedup.minhash",
    "minhash_signatures": "pycurate.ops.dedup.minhash",
    "most_similar_earlier": "pycurate.kernels.fused_similarity",
    "nearest": "pycurate.kernels.fused_similarity",
    "neighbor_lists": "pycurate.ops.labels.neighbors",
    "neighbor_votes": "pycurate.ops.labels.neighbor_votes",
    "num_label_issues": "pycurate.ops.labels.confident_learning",
    "open_index": "pycurate.api.search",
    "open_pool": "pycurate.io.pool",
    "order_label_issues": "pycurate.ops.labels.label_quality",
    "pair_similarity": "pycurate.kernels.rowwise",
    "pairs_above": "pycurate.kernels.fused_similarity",
    "perceptual_duplicates": "pycurate.ops.dedup.perceptual",
    "perceptual_hashes": "pycurate.ops.dedup.perceptual",
    "plan": "pycurate.api.plan",
    "propagate_labels": "pycurate.api.propagation",
    "prediction_outlier_scores": "pycurate.ops.labels.outliers",
    "prototype_labels": "pycurate.ops.labels.prototypes",
    "pseudo_label": "pycurate.api.pseudo_label",
    "recall_certificate": "pycurate.index.certificate",
    "repeat_rows": "pycurate.ops.selection.resampling",
    "run": "pycurate.api.run",
    "similarity_join": "pycurate.api.similarity",
    "soft_labels": "pycurate.ops.labels.soft_labels",
    "soft_average": "pycurate.ops.labels.annotator_votes",
    "spanning_forest_above": "pycurate.kernels.spanning_forest",
    "unjudged_rows": "pycurate.kernels.fused_similarity",
    "zero_shot_labels": "pycurate.ops.labels.pseudo_labels",
    "water_filling": "pycurate.ops.selection.balance",
}
__all__ = [
    "Clustering",
    "DuplicateStore",
    "KnnGraph",
    "KnnLabelSpreading",
    "LabelModel",
    "Recipe",
    "SparseVotes",
    "Subset",
    "TopProbabilities",
    "__version__",
    "aggregate_labels",
    "annotator_confusion",
    "assign",
    "balance_labels",
    "build_index",
    "build_pack",
    "calibrate_confident_joint",
    "class_caps",
    "class_imbalance",
    "class_means",
    "class_quality",
    "clustered_join",
    "components_above",
    "compute_confident_joint",
    "coreset",
    "count_above",
    "dawid_skene",
    "decontaminate",
    "dedup",
    "dedup_append",
    "dedup_curve",
    "doctor",
    "entity_labels",
    "estimate_joint",
    "estimate_latent",
    "estimate_noise_matrices",
    "estimate_noise_transition",
    "exact_duplicates",
    "facility_location",
    "feature_outlier_scores",
    "find_label_issues",
    "find_predicted_neq_given",
    "find_top_issues",
    "get_confident_thresholds",
    "get_label_quality_ensemble_scores",
    "get_label_quality_multiannotator",
    "get_label_quality_scores",
    "hamming_components",
    "hamming_linkage",
    "hamming_nearest_earlier",
    "hamming_pairs",
    "indexed_join",
    "k_center",
    "kmeans",
    "knn_graph",
    "knn_label_noise",
    "label_issues",
    "label_noise",
    "linear_separation",
    "log_sum_exp",
    "loss_mixture",
    "majority_vote",
    "minhash_components",
    "minhash_duplicates",
    "minhash_pairs",
    "minhash_signatures",
    "most_similar_earlier",
    "nearest",
    "neighbor_lists",
    "neighbor_votes",
    "num_label_issues",
    "open_index",
    "open_pool",
    "order_label_issues",
    "pair_similarity",
    "pairs_above",
    "perceptual_duplicates",
    "perceptual_hashes",
    "plan",
    "prediction_outlier_scores",
    "propagate_labels",
    "prototype_labels",
    "pseudo_label",
    "recall_certificate",
    "repeat_rows",
    "run",
    "similarity_join",
    "soft_average",
    "soft_labels",
    "spanning_forest_above",
    "unjudged_rows",
    "water_filling",
    "zero_shot_labels",
]

if TYPE_CHECKING:
    from pycurate.api.balance_labels import balance_labels
    from pycurate.api.clustered import clustered_join, indexed_join
    from pycurate.api.coreset import coreset
    from pycurate.api.decontaminate import decontaminate
    from pycurate.api.dedup import dedup
    from pycurate.api.dedup_append import dedup_append
    from pycurate.api.dedup_curve import dedup_curve
    from pycurate.api.dedup_store import DuplicateStore
    from pycurate.api.doctor import doctor
    from pycurate.api.label_aggregate import aggregate_labels
    from pycurate.api.label_issues import label_issues
    from pycurate.api.label_noise import label_noise
    from pycurate.api.pack import build_pack
    from pycurate.api.plan import plan
    from pycurate.api.propagation import propagate_labels
    from pycurate.api.pseudo_label import pseudo_label
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
    from pycurate.ops.labels.annotator_votes import (
        SparseVotes,
        annotator_confusion,
        majority_vote,
        soft_average,
    )
    from pycurate.ops.labels.class_quality import class_quality
    from pycurate.ops.labels.confident_learning import (
        calibrate_confident_joint,
        compute_confident_joint,
        estimate_joint,
        get_confident_thresholds,
        num_label_issues,
    )
    from pycurate.ops.labels.dawid_skene import (
        dawid_skene,
    )
    from pycurate.ops.labels.entity_labels import entity_labels
    from pycurate.ops.labels.joint import (
        estimate_latent,
    )
    from pycurate.ops.labels.knn_label_spreading import KnnLabelSpreading
    from pycurate.ops.labels.label_issues import (
        find_label_issues,
        find_predicted_neq_given,
    )
    from pycurate.ops.labels.label_model import (
        LabelModel,
    )
    from pycurate.ops.labels.label_noise import knn_label_noise
    from pycurate.ops.labels.label_quality import (
        find_top_issues,
        get_label_quality_ensemble_scores,
        get_label_quality_scores,
        order_label_issues,
    )
    from pycurate.ops.labels.multiannotator import (
        get_label_quality_multiannotator,
    )
    from pycurate.ops.labels.neighbor_votes import neighbor_votes
    from pycurate.ops.labels.neighbors import neighbor_lists
    from pycurate.ops.labels.noise_matrices import (
        estimate_noise_matrices,
    )
    from pycurate.ops.labels.noise_transition import estimate_noise_transition
    from pycurate.ops.labels.outliers import feature_outlier_scores, prediction_outlier_scores
    from pycurate.ops.labels.probabilities import (
        TopProbabilities,
    )
    from pycurate.ops.labels.prototypes import prototype_labels
    from pycurate.ops.labels.pseudo_labels import class_means, zero_shot_labels
    from pycurate.ops.labels.separation import linear_separation, loss_mixture
    from pycurate.ops.labels.soft_labels import soft_labels
    from pycurate.ops.selection.balance import class_caps, water_filling
    from pycurate.ops.selection.facility import facility_location
    from pycurate.ops.selection.imbalance import class_imbalance
    from pycurate.ops.selection.k_center import k_center
    from pycurate.ops.selection.resampling import repeat_rows
    from pycurate.pipeline.cluster_join import Clustering
    from pycurate.recipes import Recipe


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'pycurate' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
