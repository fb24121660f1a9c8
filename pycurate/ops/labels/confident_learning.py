"""Confident learning: which labels are wrong, counted by class, from out-of-sample class probabilities.

Northcutt, Jiang, Chuang: Confident Learning: Estimating Uncertainty in Dataset Labels, JAIR 2021. Names, arguments and
results are those of cleanlab 2.9 (``cleanlab.count``) on the same probabilities as float64; two passes over them, in
memory of O(K^2) and a few numbers a row, whatever holds them (see `PredProbs`).

Every result is the same for any number of threads and any cut into blocks or shards.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pycurate.errors import InputError
from pycurate.kernels.confident import ClassSums, self_probabilities, summarise_rows
from pycurate.kernels.device import device_of
from pycurate.ops.labels.joint import calibrated, square
from pycurate.ops.labels.probabilities import (
    PredProbs,
    ProbabilityBlocks,
    RowChecks,
    TopProbabilities,
    labels_of,
    probability_blocks,
)

EstimationMethod: TypeAlias = Literal["off_diagonal", "off_diagonal_calibrated", "off_diagonal_custom"]

THRESHOLD_SLACK = 1e-6
"""A probability this far below its class's threshold still passes: of equal ones, rounding would pass only some."""
LEAST_THRESHOLD = 2e-6
NO_ROWS_THRESHOLD = 2.0  # of a class that no row is labelled with: nothing passes
MOST_CLASSES = 32_768  # a joint of 8 GB
_ROWS_AT_ONCE = 1 << 18
GIVEN_BONUS = 1e-6  # what the given class is ahead of others when a row counts as predicted as labelled


@dataclass(frozen=True, slots=True)
class RowScan:
    """What the second pass keeps: 25 bytes a row, and the joint.

    Arrays are (n,): ``self_probability`` (NaN for rows without a label) and ``largest_other`` float64, ``predicted``
    and ``guess`` int32 (see `RowSummary`). ``joint`` (K, K) int64 counts the labelled rows by given label and guess, at
    least 1 on its diagonal.
    ``rows_in_doubt`` counts rows of `TopProbabilities` in which a class that was not kept may reach its threshold.
    """

    labels: NDArray[np.int64]
    self_probability: NDArray[np.float64]
    largest_other: NDArray[np.float64]
    predicted: NDArray[np.int32]
    guess: NDArray[np.int32]
    joint: NDArray[np.int64]
    rows_in_doubt: int

    @property
    def off_diagonal(self) -> NDArray[np.bool_]:
        """(n,) rows that are confidently another class than their label."""
        return np.asarray((self.guess >= 0) & (self.guess != self.labels) & (self.labels >= 0))

    @property
    def predicted_as_given(self) -> NDArray[np.bool_]:
        """(n,) rows whose given class, with a bonus of 1e-6, has the largest probability."""
        with_bonus = self.self_probability + GIVEN_BONUS
        first = self.predicted > self.labels  # of equal probabilities the lower class is the prediction
        return np.asarray((with_bonus > self.largest_other) | ((with_bonus == self.largest_other) & first))


def class_thresholds(blocks: ProbabilityBlocks, threads: int | None = None) -> NDArray[np.float64]:
    """(K,) the mean probability of the rows labelled each class, of the first pass; see `get_confident_thresholds`."""
    sums = ClassSums(blocks.num_classes)
    for first, block in blocks:
        labels = blocks.labels[first : first + len(block)]
        own = self_probabilities(block, labels, threads, blocks.device)
        wrong = ~np.isfinite(own) & (labels >= 0)
        if wrong.any():
            row = first + int(np.argmax(wrong))
            raise InputError(f"pred_probs: row {row} holds NaN or infinity; take the row away or predict it again")
        sums.add(own, labels)
    means = np.full(blocks.num_classes, NO_ROWS_THRESHOLD)
    np.divide(sums.sums, sums.counts, out=means, where=sums.counts > 0)
    return np.asarray(np.maximum(means, LEAST_THRESHOLD))


def scan_rows(blocks: ProbabilityBlocks, thresholds: Any, threads: int | None = None) -> RowScan:
    """The second pass, given (K,) thresholds.

    Raises
    ------
    InputError
        More than 32,768 classes, or as `RowChecks`; what that lets through is said in one warning.
    """
    limits = np.broadcast_to(np.asarray(thresholds, np.float64), (blocks.num_classes,)) - THRESHOLD_SLACK
    n, k = len(blocks.labels), blocks.num_classes
    if k > MOST_CLASSES:
        raise InputError(
            f"pred_probs: expected at most {MOST_CLASSES} classes, as the joint has a count for each two, got {k}; "
            "get_label_quality_scores takes any number"
        )
    scan = RowScan(
        blocks.labels, np.empty(n), np.empty(n), np.empty(n, np.int32), np.empty(n, np.int32),
        # Column by column, as cleanlab's is: sums over all of it, in the order of memory, then have the same bits.
        np.zeros((k, k), np.int64, order="F"), _rows_in_doubt(blocks.pred_probs, limits),
    )  # fmt: skip
    checks = RowChecks(blocks.complete)
    counts = scan.joint.T.reshape(-1)
    for first, block in blocks:
        part = slice(first, first + len(block))
        labels = blocks.labels[part]
        rows = summarise_rows(block, labels, np.ascontiguousarray(limits), threads, blocks.device)
        checks.add(first, rows)
        scan.self_probability[part], scan.largest_other[part] = rows.self_probability, rows.largest_other
        scan.predicted[part], scan.guess[part] = rows.predicted, rows.guess
        confident = (rows.guess >= 0) & (labels >= 0)
        np.add.at(counts, rows.guess[confident] * np.int64(k) + labels[confident], 1)
    checks.warn()
    if scan.rows_in_doubt:
        warnings.warn(
            f"pred_probs: in {scan.rows_in_doubt} rows a class that was not kept may reach its threshold, so that the "
            "joint may be off by as many; keep more of the largest probabilities",
            stacklevel=3,
        )
    np.fill_diagonal(scan.joint, np.maximum(scan.joint.diagonal(), 1))
    return scan


def get_confident_thresholds(
    labels: Any,
    pred_probs: PredProbs,
    multi_label: bool = False,
    *,
    threads: int | None = None,
    device: str | None = None,
) -> NDArray[np.float64]:
    """The probability from which on a row counts as confidently of a class: the mean of those labelled so.

    Parameters
    ----------
    labels
        (n,) given class ids from 0 to K - 1; with ``multi_label`` a list of lists of them.
    pred_probs
        Out-of-sample probabilities (n, K), see `PredProbs`.
    multi_label
        Rows may have several classes or none.
    threads
        None: every processor.
    device
        Where the passes run: None, where the probabilities lie; ``"cpu"``, ``"cuda"``, ``"cuda:1"``; ``"auto"`` is
        None. Probabilities of the CPU's memory go to a GPU a piece at a time.

    Returns
    -------
    (K,) float64, at least 2e-6; 2 for a class without rows. (K, 2) with ``multi_label``: of its absence and presence.
    """
    if multi_label:
        import pycurate.ops.labels.multilabel as multilabel

        require_cpu(device)
        return multilabel.confident_thresholds(labels, pred_probs, threads=threads)
    return class_thresholds(probability_blocks(pred_probs, labels, device=device), threads)


def compute_confident_joint(
    labels: Any,
    pred_probs: PredProbs,
    *,
    thresholds: Any = None,
    calibrate: bool = True,
    multi_label: bool = False,
    return_indices_of_off_diagonals: bool = False,
    threads: int | None = None,
    device: str | None = None,
) -> Any:
    """Rows counted by given label and confident class.

    A row counts for the class whose threshold its probability reaches (less 1e-6); where it reaches several, for the
    class of largest probability, and where none, not at all.

    Parameters
    ----------
    labels, pred_probs, multi_label, threads, device
        As in `get_confident_thresholds`.
    thresholds
        (K,) other thresholds. None: `get_confident_thresholds`.
    calibrate
        Rescale rows to the number of rows with each label, and round.
    return_indices_of_off_diagonals
        Return also the rows counted off the diagonal, rising: (m,) int64, or with ``multi_label`` one array a class.

    Returns
    -------
    (K, K) int64, given by true, the diagonal at least 1 before calibration. (K, 2, 2) with ``multi_label``.
    """
    if multi_label:
        import pycurate.ops.labels.multilabel as multilabel

        require_cpu(device)
        joints, rows = multilabel.confident_joints(
            labels, pred_probs, thresholds=thresholds, calibrate=calibrate, threads=threads
        )
        return (joints, rows) if return_indices_of_off_diagonals else joints
    blocks = probability_blocks(pred_probs, labels, device=device)
    scan = scan_rows(blocks, class_thresholds(blocks, threads) if thresholds is None else thresholds, threads)
    joint = np.ascontiguousarray(calibrated(scan.joint, class_counts(blocks)) if calibrate else scan.joint)
    return (joint, np.flatnonzero(scan.off_diagonal)) if return_indices_of_off_diagonals else joint


def require_cpu(device: str | None) -> None:
    """Refuse a GPU for what only the CPU does."""
    if device_of(device) is not None and device != "auto":
        raise InputError("device: with multi_label=True the passes run on the CPU; pass device='cpu'")


def class_counts(blocks: ProbabilityBlocks) -> NDArray[np.int64]:
    """(K,) rows labelled each class."""
    return np.bincount(blocks.labels[blocks.labels >= 0], minlength=blocks.num_classes)


def calibrate_confident_joint(
    confident_joint: NDArray[Any], labels: Any, *, multi_label: bool = False
) -> NDArray[np.int64]:
    """A joint rescaled so that its rows sum to the number of rows with each label, and rounded so that they still do.

    Parameters
    ----------
    confident_joint
        (K, K) given by true; (K, 2, 2) with ``multi_label``.
    labels, multi_label
        As in `get_confident_thresholds`.
    """
    if multi_label:
        import pycurate.ops.labels.multilabel as multilabel

        return multilabel.calibrated_joints(confident_joint, labels)
    joint = square("confident_joint", confident_joint)
    counts = np.bincount(labels_of(labels, len(joint)), minlength=len(joint))
    return np.ascontiguousarray(calibrated(joint, counts))


def estimate_joint(
    labels: Any,
    pred_probs: PredProbs | None,
    *,
    confident_joint: NDArray[Any] | None = None,
    multi_label: bool = False,
    threads: int | None = None,
) -> NDArray[np.float64]:
    """(K, K) P(given, true), which sums to 1: the calibrated confident joint over its sum.

    ``pred_probs`` is not read where ``confident_joint`` is given; ``labels`` may be None then: it is not calibrated.
    With ``multi_label`` (K, 2, 2), each class summing to 1.
    """
    if multi_label:
        import pycurate.ops.labels.multilabel as multilabel

        return multilabel.joint_estimates(labels, pred_probs, confident_joint=confident_joint, threads=threads)
    if confident_joint is None:
        if pred_probs is None:
            raise InputError("pred_probs: expected probabilities, as no confident_joint is given, got None")
        joint = compute_confident_joint(labels, pred_probs, threads=threads)
    elif labels is None:
        joint = square("confident_joint", confident_joint)
    else:
        joint = calibrate_confident_joint(confident_joint, labels)
    return np.asarray(joint / max(float(np.sum(joint)), 1e-100))


def num_label_issues(
    labels: Any,
    pred_probs: PredProbs,
    *,
    confident_joint: NDArray[Any] | None = None,
    estimation_method: EstimationMethod = "off_diagonal",
    multi_label: bool = False,
    threads: int | None = None,
    device: str | None = None,
) -> int:
    """How many rows are labelled wrongly.

    Parameters
    ----------
    labels, pred_probs, multi_label, threads, device
        As in `get_confident_thresholds`.
    estimation_method
        ``off_diagonal``: rows counted off the joint's diagonal whose label is not the prediction.
        ``off_diagonal_calibrated``: n times what `estimate_joint` has off its diagonal. ``off_diagonal_custom``: the
        same of the ``confident_joint`` given.
    """
    if estimation_method not in ("off_diagonal", "off_diagonal_calibrated", "off_diagonal_custom"):
        raise InputError(
            "estimation_method: expected off_diagonal, off_diagonal_calibrated or off_diagonal_custom, got "
            f"{estimation_method!r}"
        )
    if confident_joint is not None and estimation_method != "off_diagonal_custom":
        warnings.warn(
            "confident_joint: not used, as estimation_method is not 'off_diagonal_custom'; it is estimated again",
            stacklevel=2,
        )
    if multi_label:
        import pycurate.ops.labels.multilabel as multilabel

        require_cpu(device)
        found = multilabel.find_label_issues(
            labels, pred_probs, filter_by="confident_learning", confident_joint=confident_joint, threads=threads
        )
        return int(found.sum())
    if estimation_method == "off_diagonal":
        blocks = probability_blocks(pred_probs, labels, device=device)
        scan = scan_rows(blocks, class_thresholds(blocks, threads), threads)
        return count_of_issues(scan)
    if estimation_method == "off_diagonal_custom" and confident_joint is None:
        raise InputError("confident_joint: expected a joint with estimation_method='off_diagonal_custom', got None")
    custom = confident_joint
    if custom is None:
        custom = compute_confident_joint(labels, pred_probs, threads=threads, device=device)
    joint = estimate_joint(labels, None, confident_joint=custom)
    return int(np.rint((1.0 - joint.trace()) * len(labels)))


def count_of_issues(scan: RowScan) -> int:
    """Rows off the diagonal whose label is not the prediction."""
    return int((scan.off_diagonal & ~scan.predicted_as_given).sum())


def _rows_in_doubt(pred_probs: PredProbs, limits: NDArray[np.float64]) -> int:
    """Rows whose smallest kept probability reaches the lowest threshold, so that one not kept may reach it too."""
    if not isinstance(pred_probs, TopProbabilities) or pred_probs.probabilities.shape[1] >= pred_probs.num_classes:
        return 0
    least, doubtful = limits.min(), 0
    for begin in range(0, len(pred_probs), _ROWS_AT_ONCE):
        rows = slice(begin, begin + _ROWS_AT_ONCE)
        full = (pred_probs.classes[rows] >= 0).all(axis=1)
        doubtful += int((full & (pred_probs.probabilities[rows].min(axis=1, initial=np.inf) >= least)).sum())
    return doubtful
