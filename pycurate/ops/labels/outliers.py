"""Rows that belong to no class: far from all others, or undecided in a model's probabilities."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pycurate.errors import InputError
from pycurate.index.rows import check_count
from pycurate.kernels.arrays import require_option
from pycurate.kernels.rowwise import Metric
from pycurate.ops.labels.neighbor_votes import first_neighbors
from pycurate.ops.labels.neighbors import Knn, neighbor_lists
from pycurate.types import UidArray

PredictionScore: TypeAlias = Literal["entropy", "least_confidence", "gen"]

BLOCK_ELEMENTS = 1 << 22
GEN_CLASSES, GEN_GAMMA = 100, 0.1


def feature_outlier_scores(
    x: NDArray[Any] | None,
    k: int = 10,
    *,
    t: float = 1.0,
    knn: Knn | None = None,
    metric: Metric = "cosine",
    uids: UidArray | None = None,
    threads: int | None = None,
    dtype: Literal["bfloat16"] | None = None,
    device: str | None = None,
) -> NDArray[np.float32]:
    """exp(-t d / median d), where d is a row's mean distance to its k nearest rows: low for rows far from all others.

    The distance is 1 - cosine, or the Euclidean one. Rows with the same bits are one row, so that a clump of copies is
    as far from the rest as one of them.

    Parameters
    ----------
    x, k, knn, uids, threads, dtype, device
        As in `neighbor_lists`.
    t
        Above 0: how fast scores fall.
    metric
        ``"cosine"`` (default) or ``"l2"``.

    Returns
    -------
    (n,) float32 in (0, 1]: 0.37 for the median row at t = 1; NaN for a row that cannot be judged.

    Raises
    ------
    InputError
        A value is not as above.

    References
    ----------
    Kuan, Mueller: Back to the basics: revisiting out-of-distribution detection baselines (2022).
    """
    if not t > 0 or not np.isfinite(t):
        raise InputError(f"t: expected a number above 0, got {t}")
    if metric == "inner_product":
        raise InputError("metric: expected 'cosine' or 'l2', got 'inner_product', which is no distance")
    lists = neighbor_lists(x, k, knn, metric=metric, uids=uids, threads=threads, dtype=dtype, device=device)
    means = np.full(lists.n, np.nan)
    for block in lists.blocks():
        part = first_neighbors(block, k)
        own = np.arange(part.first, part.first + len(part.indices))[:, None]
        there = (part.indices >= 0) & (part.indices != own)
        near = part.similarities.astype(np.float64)
        distance = 1 - near if metric == "cosine" else np.sqrt(-np.minimum(near, 0))
        count = there.sum(axis=1)
        total = np.where(there, distance, 0.0).sum(axis=1)
        mean = np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0)
        means[block.rows] = mean[block.nodes]
    judged = ~np.isnan(means)
    scale = float(np.median(means[judged])) if judged.any() else 1.0
    scores: NDArray[np.float32] = np.exp(-t * means / max(scale, float(np.finfo(np.float32).eps))).astype(np.float32)
    return scores


def prediction_outlier_scores(
    pred_probs: NDArray[Any],
    method: PredictionScore = "entropy",
    *,
    most_classes: int = GEN_CLASSES,
    gamma: float = GEN_GAMMA,
) -> NDArray[np.float32]:
    """How decided a model is of each row: low for rows that look like no class. No labels are needed.

    Parameters
    ----------
    pred_probs
        (n, K) floats in [0, 1], rows that sum to about 1; may be a memory map, which is read in blocks.
    method
        ``"entropy"`` (default): 1 - H / ln K. ``"least_confidence"``: the largest probability. ``"gen"``: generalised
        entropy, 1 - sum over the ``most_classes`` largest p of p^gamma (1 - p)^gamma, divided by the largest value that
        the sum can have (M / 4^gamma).
    most_classes, gamma
        Of ``gen``; 100 and 0.1 as published.

    Returns
    -------
    (n,) float32 in [0, 1]; NaN for a row with a value that is not finite, or not a probability (tolerance 1e-3).

    Raises
    ------
    InputError
        A value is not as above.

    References
    ----------
    Liu, Lochman, Zach: GEN: pushing the limits of softmax-based out-of-distribution detection (CVPR 2023).
    """
    require_option("method", method, PredictionScore)
    check_count("most_classes", most_classes)
    if pred_probs.ndim != 2 or pred_probs.dtype.kind != "f" or pred_probs.shape[1] < 1:
        raise InputError(f"pred_probs: expected (n, K) floats, got {pred_probs.shape} of {pred_probs.dtype}")
    if not 0 < gamma < 1:
        raise InputError(f"gamma: expected between 0 and 1, got {gamma}")
    n, classes = pred_probs.shape
    scores = np.empty(n, np.float32)
    step = max(1, BLOCK_ELEMENTS // classes)
    for start in range(0, n, step):
        given = np.asarray(pred_probs[start : start + step], np.float64)
        p = np.clip(given, 0, 1)
        if method == "least_confidence":
            found = p.max(axis=1)
        elif method == "entropy":
            logs = np.log(p, out=np.zeros_like(p), where=p > 0)
            found = 1 + (p * logs).sum(axis=1) / np.log(max(classes, 2))
        else:
            most = min(most_classes, classes)
            largest = np.sort(p, axis=1)[:, classes - most :]
            found = 1 - (largest**gamma * (1 - largest) ** gamma).sum(axis=1) / (most * 0.25**gamma)
        wrong = ~np.isfinite(given).all(axis=1) | (np.abs(given - p) > 1e-3).any(axis=1)
        scores[start : start + step] = np.where(wrong, np.nan, found)
    return scores
