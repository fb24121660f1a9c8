"""How likely each row's label is right: scores from 0 (surely wrong) to 1, and rows in order of them.

Names, arguments and results are those of cleanlab 2.9 (``cleanlab.rank``) on the same probabilities as float64; rows of
equal score come in their order.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from pycurate.errors import InputError
from pycurate.kernels.confident import entropies, on_host, summarise_rows
from pycurate.ops.labels.confident_learning import RowScan, class_thresholds
from pycurate.ops.labels.probabilities import PredProbs, ProbabilityBlocks, RowChecks, probability_blocks

ScoreMethod: TypeAlias = Literal["self_confidence", "normalized_margin", "confidence_weighted_entropy"]

_LEAST = 1e-6  # below which probabilities and scores are not divided by


def get_label_quality_scores(
    labels: Any,
    pred_probs: PredProbs,
    *,
    method: ScoreMethod = "self_confidence",
    adjust_pred_probs: bool = False,
    threads: int | None = None,
    device: str | None = None,
) -> NDArray[np.float64]:
    """(n,) float64 from 0 to 1, low where the label is likely wrong.

    Parameters
    ----------
    labels
        (n,) given class ids from 0 to K - 1.
    pred_probs
        Out-of-sample probabilities (n, K), see `PredProbs`.
    method
        ``self_confidence``: the probability of the label. ``normalized_margin``: ahead of the best other class,
        (p[y] - max p[j != y] + 1) / 2. ``confidence_weighted_entropy``: log(s + 1) / s of s = entropy / log K / p[y].
    adjust_pred_probs
        Subtract the classes' mean self-confidence first, shift and divide to rows of sum 1; not with entropy.
    threads
        None: every processor.
    device
        As in `pycurate.ops.labels.confident_learning.get_confident_thresholds`.
    """
    blocks = probability_blocks(pred_probs, labels, device=device)
    return quality_scores(blocks, method, adjust_pred_probs=adjust_pred_probs, threads=threads)


def quality_scores(
    blocks: ProbabilityBlocks,
    method: ScoreMethod,
    *,
    adjust_pred_probs: bool = False,
    thresholds: NDArray[np.float64] | None = None,
    rows: NDArray[np.bool_] | None = None,
    threads: int | None = None,
) -> NDArray[np.float64]:
    """Scores of all rows, or of those that ``rows`` (n,) marks, in order; NaN without a label."""
    check_method(method, adjust_pred_probs)
    if adjust_pred_probs and thresholds is None:
        thresholds = class_thresholds(blocks, threads)
    scores = []
    checks = RowChecks(blocks.complete)
    no_bounds = np.full(blocks.num_classes, np.inf)
    for first, block in blocks:
        labels = blocks.labels[first : first + len(block)]
        if rows is not None:
            chosen = rows[first : first + len(block)]
            if not chosen.any():
                continue
            block, labels = on_host(block)[chosen], labels[chosen]
        found = summarise_rows(block, labels, no_bounds, threads, blocks.device)
        if rows is None:
            checks.add(first, found)
        if adjust_pred_probs and thresholds is not None:
            found = summarise_rows(_adjusted(on_host(block), thresholds), labels, no_bounds, threads)
        if method == "confidence_weighted_entropy":
            scores.append(
                _weighted_entropies(
                    found.self_probability, entropies(block, threads, blocks.device), blocks.num_classes
                )
            )
        elif method == "normalized_margin":
            scores.append(normalized_margins(found.self_probability, found.largest_other))
        else:
            scores.append(found.self_probability)
    checks.warn()
    return np.concatenate(scores) if scores else np.empty(0)


def check_method(method: str, adjust_pred_probs: bool) -> None:
    """Refuse an unknown method, or an adjustment that it does not take."""
    if method not in get_args(ScoreMethod):
        raise InputError(f"method: expected {', '.join(get_args(ScoreMethod))}, got {method!r}")
    if adjust_pred_probs and method == "confidence_weighted_entropy":
        raise InputError("adjust_pred_probs: not with confidence_weighted_entropy; choose another method")


def scan_scores(scan: RowScan, method: Literal["self_confidence", "normalized_margin"]) -> NDArray[np.float64]:
    """(n,) scores that a scan has already."""
    if method == "self_confidence":
        return scan.self_probability
    return normalized_margins(scan.self_probability, scan.largest_other)


def normalized_margins(own: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """(own - other + 1) / 2."""
    return np.asarray((own - other + 1) / 2)


def lowest_rows(scores: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """The ``count`` rows of lowest score, the lowest first; of equal ones the lower rows. NaN is never among them."""
    count = min(count, int((~np.isnan(scores)).sum()))
    if count <= 0:
        return np.empty(0, np.int64)
    last = np.partition(scores, count - 1)[count - 1]
    below = np.flatnonzero(scores < last)
    rows = np.concatenate([below, np.flatnonzero(scores == last)[: count - len(below)]])
    rows.sort()
    return rows[np.argsort(scores[rows], kind="stable")]


def find_top_issues(quality_scores: NDArray[np.floating[Any]], *, top: int | None = 10) -> NDArray[np.int64]:
    """The ``top`` rows of lowest score, lowest first; all with None."""
    scores = np.asarray(quality_scores, np.float64)
    return lowest_rows(scores, len(scores) if top is None else top)


def order_label_issues(
    label_issues_mask: NDArray[np.bool_],
    labels: Any,
    pred_probs: PredProbs,
    *,
    rank_by: ScoreMethod = "self_confidence",
    rank_by_kwargs: dict[str, Any] | None = None,
    threads: int | None = None,
    device: str | None = None,
) -> NDArray[np.int64]:
    """The rows that the mask (n,) marks, those of lowest score first."""
    blocks = probability_blocks(pred_probs, labels, device=device)
    mask = np.asarray(label_issues_mask)
    if mask.shape != blocks.labels.shape or mask.dtype != np.bool_:
        raise InputError(
            f"label_issues_mask: expected {len(blocks.labels)} truth values, got {mask.dtype} {mask.shape}"
        )
    scores = quality_scores(blocks, rank_by, rows=mask, threads=threads, **(rank_by_kwargs or {}))
    return np.flatnonzero(mask)[np.argsort(scores, kind="stable")]


def get_label_quality_ensemble_scores(
    labels: Any,
    pred_probs_list: list[PredProbs],
    *,
    method: ScoreMethod = "self_confidence",
    adjust_pred_probs: bool = False,
    weight_ensemble_members_by: Literal["uniform", "accuracy", "custom"] = "accuracy",
    custom_weights: Any = None,
    threads: int | None = None,
) -> NDArray[np.float64]:
    """(n,) scores of several models, weighted: equally, by how often each predicts the label, or as given.

    Parameters
    ----------
    labels, method, adjust_pred_probs, threads
        As in `get_label_quality_scores`.
    pred_probs_list
        One (n, K) for each model.
    custom_weights
        (models,) with ``weight_ensemble_members_by="custom"``; not normalised.
    """
    if not isinstance(pred_probs_list, list) or not pred_probs_list:
        raise InputError("pred_probs_list: expected a list of probabilities, one (n, K) a model")
    check_method(method, adjust_pred_probs)
    scores, accuracies = [], []
    for pred_probs in pred_probs_list:
        blocks = probability_blocks(pred_probs, labels)
        scores.append(quality_scores(blocks, method, adjust_pred_probs=adjust_pred_probs, threads=threads))
        if weight_ensemble_members_by == "accuracy":
            no_bounds = np.full(blocks.num_classes, np.inf)
            hits = sum(
                int((summarise_rows(block, own, no_bounds, threads).predicted == own).sum())
                for first, block in blocks
                for own in [blocks.labels[first : first + len(block)]]
            )
            accuracies.append(hits / len(blocks.labels))
    together = np.vstack(scores).T
    if weight_ensemble_members_by == "uniform":
        return np.asarray(together.mean(axis=1))
    if weight_ensemble_members_by == "accuracy":
        return np.asarray((together * (np.array(accuracies) / sum(accuracies))).sum(axis=1))
    if weight_ensemble_members_by == "custom":
        if custom_weights is None or len(custom_weights) != len(pred_probs_list):
            raise InputError(f"custom_weights: expected {len(pred_probs_list)} numbers, one a model")
        return np.asarray((together * np.asarray(custom_weights)).sum(axis=1))
    raise InputError(
        f"weight_ensemble_members_by: expected uniform, accuracy or custom, got {weight_ensemble_members_by!r}"
    )


def _adjusted(block: NDArray[Any], thresholds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probabilities less their class's threshold, shifted by the largest one, in rows of sum 1."""
    shifted = block.astype(np.float64) - thresholds
    shifted += thresholds.max()
    shifted /= shifted.sum(axis=1, keepdims=True)
    return shifted


def _weighted_entropies(
    own: NDArray[np.float64], entropy: NDArray[np.float64], num_classes: int
) -> NDArray[np.float64]:
    # One class has log K = 0 and nothing to be unsure of.
    normalized = entropy / np.log(num_classes) if num_classes > 1 else np.zeros_like(entropy)
    scores = normalized / np.maximum(own, _LEAST)
    return np.asarray(np.log(scores + 1) / np.maximum(scores, _LEAST))
