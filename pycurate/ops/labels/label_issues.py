"""The rows whose label is likely wrong, by each of cleanlab's filters.

Names, arguments and results are those of cleanlab 2.9 (``cleanlab.filter``) on the same probabilities as float64. Of
rows with equal margin or score the lower ones are taken first, where cleanlab leaves it to an unstable sort.
"""

from __future__ import annotations

import warnings
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from pycurate.errors import InputError
from pycurate.kernels.confident import MarginCandidates
from pycurate.ops.labels.confident_learning import (
    RowScan,
    class_counts,
    class_thresholds,
    count_of_issues,
    require_cpu,
    scan_rows,
)
from pycurate.ops.labels.joint import calibrated, round_preserving_row_totals, square
from pycurate.ops.labels.label_quality import ScoreMethod, check_method, lowest_rows, quality_scores, scan_scores
from pycurate.ops.labels.probabilities import PredProbs, ProbabilityBlocks, probability_blocks

FilterBy: TypeAlias = Literal[
    "prune_by_noise_rate",
    "prune_by_class",
    "both",
    "confident_learning",
    "predicted_neq_given",
    "low_normalized_margin",
    "low_self_confidence",
]

_CLASSES_AT_ONCE = 64


class _Wanted(NamedTuple):
    """Pairs of classes, (m,) each, rising by given class, and how many rows of each pair are wanted."""

    given: NDArray[np.int64]
    other: NDArray[np.int64]
    rows: NDArray[np.int64]


_PRUNING = ("prune_by_noise_rate", "prune_by_class", "both")


def find_label_issues(
    labels: Any,
    pred_probs: PredProbs,
    *,
    return_indices_ranked_by: ScoreMethod | None = None,
    rank_by_kwargs: dict[str, Any] | None = None,
    filter_by: FilterBy = "prune_by_noise_rate",
    frac_noise: float = 1.0,
    num_to_remove_per_class: Any = None,
    min_examples_per_class: int = 1,
    confident_joint: NDArray[Any] | None = None,
    n_jobs: int | None = None,
    verbose: bool = False,
    multi_label: bool = False,
    device: str | None = None,
) -> NDArray[Any]:
    """Rows whose label is likely wrong.

    Parameters
    ----------
    labels
        (n,) given class ids from 0 to K - 1; with ``multi_label`` a list of lists of them.
    pred_probs
        Out-of-sample probabilities (n, K), see `PredProbs`; read two or three times.
    return_indices_ranked_by, rank_by_kwargs
        None: a mask. A score: the rows found, lowest first; its options, see `get_label_quality_scores`.
    filter_by
        ``prune_by_noise_rate``: of the rows labelled k, as many as the calibrated joint counts in (k, j), those of
        largest p[j] - p[k], for each j. ``prune_by_class``: of the rows labelled k, as many as it counts off the
        diagonal, those of smallest p[k]. ``both``: what both find. ``confident_learning``: rows that are confidently
        another class. ``predicted_neq_given``: rows predicted otherwise. ``low_normalized_margin``,
        ``low_self_confidence``: the rows of lowest score, as many as `num_label_issues`. All but the last two leave out
        rows whose label is the prediction.
    frac_noise
        Of the pruning filters: the share of what the joint counts.
    num_to_remove_per_class
        (K,) of the pruning filters: how many rows of each class, in place of what the joint counts.
    min_examples_per_class
        Of the pruning filters: rows of each class that must be left.
    confident_joint
        (K, K) given by true, in place of the one computed; not used by ``confident_learning``.
    n_jobs, verbose
        Threads, None for all; print how many were found.
    multi_label
        Rows may have several classes or none: `pycurate.ops.labels.multilabel.find_label_issues`.
    device
        As in `get_confident_thresholds`. Pruning filters pick rows on the CPU: what lies on a GPU is copied.

    Returns
    -------
    (n,) bool, or (m,) int64 rows.

    Raises
    ------
    InputError
        Labels or probabilities that cannot be used; names the argument and the row.
    """
    if multi_label:
        import pycurate.ops.labels.multilabel as multilabel

        require_cpu(device)
        return multilabel.find_label_issues(
            labels, pred_probs, return_indices_ranked_by=return_indices_ranked_by, rank_by_kwargs=rank_by_kwargs,
            filter_by=filter_by, frac_noise=frac_noise, num_to_remove_per_class=num_to_remove_per_class,
            min_examples_per_class=min_examples_per_class, confident_joint=confident_joint, threads=n_jobs,
        )  # fmt: skip
    check_filter(filter_by, frac_noise, num_to_remove_per_class, confident_joint)
    if return_indices_ranked_by is not None:
        check_method(return_indices_ranked_by, bool((rank_by_kwargs or {}).get("adjust_pred_probs")))
    blocks = probability_blocks(pred_probs, labels, device=device)
    thresholds, scan = scan_for_filter(blocks, filter_by, confident_joint, n_jobs)
    mask = issue_mask(
        blocks, scan, filter_by, confident_joint=confident_joint, frac_noise=frac_noise,
        num_to_remove_per_class=num_to_remove_per_class, min_examples_per_class=min_examples_per_class, threads=n_jobs,
    )  # fmt: skip
    if verbose:
        print(f"Number of label issues found: {int(mask.sum())}")
    if return_indices_ranked_by is None:
        return mask
    return _ranked(blocks, scan, mask, return_indices_ranked_by, rank_by_kwargs or {}, thresholds, n_jobs)


def _ranked(
    blocks: ProbabilityBlocks,
    scan: RowScan,
    mask: NDArray[np.bool_],
    method: ScoreMethod,
    kwargs: dict[str, Any],
    thresholds: NDArray[np.float64] | None,
    threads: int | None,
) -> NDArray[np.int64]:
    """The rows of the mask, lowest score first."""
    rows = np.flatnonzero(mask)
    if kwargs or method == "confidence_weighted_entropy":
        scores = quality_scores(blocks, method, rows=mask, threads=threads, thresholds=thresholds, **kwargs)
    else:
        scores = scan_scores(scan, method)[rows]
    return np.asarray(rows[np.argsort(scores, kind="stable")])


def scan_for_filter(
    blocks: ProbabilityBlocks, filter_by: FilterBy, confident_joint: NDArray[Any] | None, threads: int | None
) -> tuple[NDArray[np.float64] | None, RowScan]:
    """The thresholds, where the filter needs them, and what the second pass says with them."""
    needed = filter_by != "predicted_neq_given" and (confident_joint is None or filter_by not in _PRUNING)
    thresholds = class_thresholds(blocks, threads) if needed else None
    return thresholds, scan_rows(blocks, np.inf if thresholds is None else thresholds, threads)


def issue_mask(
    blocks: ProbabilityBlocks,
    scan: RowScan,
    filter_by: FilterBy,
    *,
    confident_joint: NDArray[Any] | None = None,
    frac_noise: float = 1.0,
    num_to_remove_per_class: Any = None,
    min_examples_per_class: int = 1,
    threads: int | None = None,
) -> NDArray[np.bool_]:
    """(n,) what the filter finds, given the second pass. Rows without a label are never found."""
    mask = np.zeros(len(blocks.labels), np.bool_)
    if filter_by == "low_normalized_margin" or filter_by == "low_self_confidence":
        method: Literal["self_confidence", "normalized_margin"]
        method = "normalized_margin" if filter_by == "low_normalized_margin" else "self_confidence"
        mask[lowest_rows(scan_scores(scan, method), count_of_issues(scan))] = True
        return mask
    if filter_by == "confident_learning":
        mask = scan.off_diagonal
    elif filter_by == "predicted_neq_given":
        mask = (scan.predicted != scan.labels) & (scan.labels >= 0)
    else:
        counts = class_counts(blocks)
        joint = calibrated(scan.joint, counts) if confident_joint is None else confident_joint
        prune = _prune_counts(
            square("confident_joint", joint, blocks.num_classes), counts, min_examples_per_class, frac_noise,
            num_to_remove_per_class,
        )  # fmt: skip
        del joint
        _warn_of_small_classes(counts, min_examples_per_class)
        enough = counts > max(min_examples_per_class, 1)
        wanted = []
        if filter_by != "prune_by_class":
            wanted.append(_by_noise_rate(prune, enough))
        if filter_by != "prune_by_noise_rate":
            wanted.append(_by_class(prune, counts, enough))
        del prune
        found = _pruned(blocks, wanted, threads)
        mask = found[0] & found[-1]
    return mask & ~scan.predicted_as_given


def find_predicted_neq_given(
    labels: Any,
    pred_probs: PredProbs,
    *,
    multi_label: bool = False,
    threads: int | None = None,
    device: str | None = None,
) -> NDArray[np.bool_]:
    """(n,) rows whose class of largest probability is not their label; of equal ones the lower class counts."""
    if multi_label:
        import pycurate.ops.labels.multilabel as multilabel

        require_cpu(device)
        return multilabel.predicted_neq_given(labels, pred_probs, threads=threads)
    blocks = probability_blocks(pred_probs, labels, device=device)
    return np.asarray(scan_rows(blocks, np.inf, threads).predicted != blocks.labels)


def find_label_issues_using_argmax_confusion_matrix(
    labels: Any,
    pred_probs: PredProbs,
    *,
    calibrate: bool = True,
    filter_by: FilterBy = "prune_by_noise_rate",
    threads: int | None = None,
) -> NDArray[np.bool_]:
    """(n,) `find_label_issues` with the confusion of labels and predictions in place of the confident joint."""
    blocks = probability_blocks(pred_probs, labels)
    by_prediction = np.zeros((blocks.num_classes, blocks.num_classes), np.int64)
    np.add.at(by_prediction, (scan_rows(blocks, np.inf, threads).predicted, blocks.labels), 1)
    joint = by_prediction.T
    if calibrate:
        joint = calibrated(joint, class_counts(blocks))
    return find_label_issues(labels, pred_probs, confident_joint=joint, filter_by=filter_by, n_jobs=threads)


def check_filter(
    filter_by: str, frac_noise: float, num_to_remove_per_class: Any, confident_joint: NDArray[Any] | None
) -> None:
    """Refuse an unknown filter; warn of arguments that the filter does not use."""
    if filter_by not in get_args(FilterBy):
        raise InputError(f"filter_by: expected {', '.join(get_args(FilterBy))}, got {filter_by!r}")
    if filter_by not in _PRUNING:
        if num_to_remove_per_class is not None:
            raise InputError(f"num_to_remove_per_class: only with {', '.join(_PRUNING)}, got filter_by={filter_by!r}")
        if frac_noise != 1.0:
            warnings.warn(f"frac_noise: not used by filter_by={filter_by!r}", stacklevel=3)
    if filter_by == "confident_learning" and confident_joint is not None:
        warnings.warn(
            "confident_joint: not used by filter_by='confident_learning'; it is estimated again", stacklevel=3
        )


def _prune_counts(
    joint: NDArray[Any], counts: NDArray[np.int64], least: int, frac_noise: float, num_to_remove: Any
) -> NDArray[np.int64]:
    """(K, K) given by true: how many rows of each given label belong to each class; on the diagonal what is left."""
    prune = np.empty(joint.shape, np.int64)
    for begin in range(0, len(joint), _CLASSES_AT_ONCE):
        rows = slice(begin, begin + _CLASSES_AT_ONCE)
        # In C order: a row's sum then has the bits that cleanlab's has, and so its integer part.
        prune[rows] = _lowered(np.ascontiguousarray(joint[rows]), begin, least, frac_noise)
    if num_to_remove is None:
        return prune
    remove = np.asarray(num_to_remove)
    if remove.shape != counts.shape:
        raise InputError(
            f"num_to_remove_per_class: expected {len(counts)} numbers, one a class, got shape {remove.shape}"
        )
    by_true = prune.T
    with np.errstate(divide="ignore", invalid="ignore"):
        # Columns are divided by the sums of rows, as cleanlab does.
        shares = by_true / np.sum(by_true, axis=1)
        noise = shares.sum(axis=1) - shares.diagonal()
        moved = (shares.T * remove / noise).T
    np.fill_diagonal(moved, counts - remove)
    return round_preserving_row_totals(np.nan_to_num(moved, nan=0.0, posinf=0.0, neginf=0.0)).T


def _lowered(joint: NDArray[Any], first: int, least: int, frac_noise: float) -> NDArray[np.int64]:
    """Rows of the joint from class ``first`` on, with ``least`` on the diagonal at the others' cost, and of the others
    only a share."""
    place = np.arange(len(joint)), first + np.arange(len(joint))
    kept = np.maximum(joint[place], least)
    others = np.maximum(np.count_nonzero(joint, axis=1) - 1.0, 1.0)
    lowered = joint - ((kept - joint[place]) / others)[:, None]
    lowered[lowered < 0] = 0
    lowered[place] = kept
    share = lowered * frac_noise
    share[place] = kept
    share[place] = kept + np.sum((lowered - share).T, axis=0)
    return np.asarray(share.astype(np.int64))


def _by_noise_rate(prune: NDArray[np.int64], enough: NDArray[np.bool_]) -> _Wanted:
    """The pairs of which rows are wanted, by given and other class, and how many."""
    given, other = np.nonzero(prune > 0)
    off = (given != other) & enough[given]
    given, other = given[off], other[off]
    return _Wanted(given, other, prune[given, other])


def _by_class(prune: NDArray[np.int64], counts: NDArray[np.int64], enough: NDArray[np.bool_]) -> _Wanted:
    wanted = counts - prune.diagonal()
    given = np.flatnonzero((wanted > 0) & enough)
    return _Wanted(given, given, wanted[given])


def _pruned(blocks: ProbabilityBlocks, wanted: list[_Wanted], threads: int | None) -> list[NDArray[np.bool_]]:
    """A mask for each set of pairs, all in one pass."""
    candidates = [
        MarginCandidates(
            np.searchsorted(pairs.given, np.arange(blocks.num_classes + 1)).astype(np.int64),
            pairs.other.astype(np.int32),
            np.ascontiguousarray(pairs.rows, np.int64),
        )
        for pairs in wanted
    ]
    if any(len(pairs.rows) for pairs in wanted):
        for first, block in blocks:
            for kept in candidates:
                kept.add(block, blocks.labels[first : first + len(block)], first, threads)
    masks = []
    for kept in candidates:
        mask = np.zeros(len(blocks.labels), np.bool_)
        mask[kept.rows()] = True
        masks.append(mask)
    return masks


def _warn_of_small_classes(counts: NDArray[np.int64], least: int) -> None:
    small = np.flatnonzero((counts > 0) & (counts <= least))
    if len(small):
        warnings.warn(
            f"labels: {len(small)} classes, such as {small[0]}, have at most {least} rows (min_examples_per_class): no "
            "issue is looked for in them",
            stacklevel=4,
        )
