"""Confident learning where a row may have several classes or none: of each class, its absence against its presence.

Names, arguments and results are those of cleanlab 2.9 (``cleanlab.multilabel_classification``) on the same
probabilities as float64. One class at a time: 16 bytes a row beside the labels, one byte a row and class.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pycurate.errors import InputError
from pycurate.ops.labels import confident_learning, label_issues, label_quality
from pycurate.ops.labels.joint import calibrated
from pycurate.ops.labels.label_issues import FilterBy
from pycurate.ops.labels.label_quality import ScoreMethod, check_method
from pycurate.ops.labels.probabilities import DTYPES

MOVING_AVERAGE = {"method": "exponential_moving_average", "alpha": 0.8}
"""How the scores of a row's classes become one: from the highest to the lowest, s = 0.8 next + 0.2 s."""


def one_hot(labels: Any, num_classes: int | None = None) -> NDArray[np.uint8]:
    """(n, K) uint8 of a list of lists of class ids; K one more than the largest unless given."""
    if not isinstance(labels, list) or not all(isinstance(row, (list, tuple, np.ndarray)) for row in labels):
        raise InputError("labels: expected a list of lists of class ids, one list a row, with multi_label=True")
    counts = np.array([len(row) for row in labels], np.int64)
    flat = np.array([label for row in labels for label in row])
    if len(flat) and flat.dtype.kind not in "iu":
        raise InputError(f"labels: expected lists of integers, got {flat.dtype}; map names to ids first")
    if num_classes is None:
        num_classes = int(flat.max()) + 1 if len(flat) else 0
    rows = np.repeat(np.arange(len(labels)), counts)
    wrong = (flat < 0) | (flat >= num_classes) if len(flat) else np.zeros(0, np.bool_)
    if wrong.any():
        at = int(np.argmax(wrong))
        raise InputError(f"labels: expected class ids from 0 to {num_classes - 1}, got {flat[at]} in row {rows[at]}")
    marks = np.zeros((len(labels), num_classes), np.uint8)
    marks[rows, flat.astype(np.int64)] = 1
    return marks


def find_label_issues(
    labels: list[list[int]],
    pred_probs: Any,
    return_indices_ranked_by: ScoreMethod | None = None,
    rank_by_kwargs: dict[str, Any] | None = None,
    filter_by: FilterBy = "prune_by_noise_rate",
    frac_noise: float = 1.0,
    num_to_remove_per_class: Any = None,
    min_examples_per_class: int = 1,
    confident_joint: NDArray[Any] | None = None,
    *,
    threads: int | None = None,
) -> NDArray[Any]:
    """Rows of which some class is likely missing or wrong.

    Parameters
    ----------
    labels
        n lists of given class ids from 0 to K - 1; an empty list is a row of no class.
    pred_probs
        (n, K) float16, float32 or float64, a memory map included: of each class on its own; rows need not sum to 1.
    filter_by
        As in `pycurate.find_label_issues`, for each class; a row is found where one of its classes is. With
        ``low_normalized_margin`` and ``low_self_confidence``: as many rows of lowest pooled self-confidence as
        ``confident_learning`` finds.
    confident_joint
        (K, 2, 2), as `pycurate.compute_confident_joint` with ``multi_label=True`` returns.
    return_indices_ranked_by, rank_by_kwargs, frac_noise, num_to_remove_per_class, min_examples_per_class
        As in `pycurate.find_label_issues`; ranks are of the pooled score, see `get_label_quality_scores`.
    threads
        None: every processor.

    Returns
    -------
    (n,) bool, or (m,) int64 rows. Ranked rows of the two low filters come as cleanlab 2.9 returns them, which takes
    positions in row order for positions in score order; rank them by `get_label_quality_scores` to have them in order.
    """
    if filter_by in ("low_normalized_margin", "low_self_confidence"):
        found = find_label_issues(
            labels, pred_probs, filter_by="confident_learning", confident_joint=confident_joint, threads=threads
        )
        rows = label_quality.lowest_rows(
            get_label_quality_scores(labels, pred_probs, threads=threads), int(found.sum())
        )
        if return_indices_ranked_by is None:
            mask = np.zeros(len(labels), np.bool_)
            mask[rows] = True
            return mask
        scores = _pooled(labels, pred_probs, return_indices_ranked_by, rank_by_kwargs, np.sort(rows), threads)
        return np.asarray(rows[np.argsort(scores, kind="stable")])
    issues: Any = find_multilabel_issues_per_class(
        labels, pred_probs, return_indices_ranked_by, rank_by_kwargs, filter_by, frac_noise, num_to_remove_per_class,
        min_examples_per_class, confident_joint, threads=threads,
    )  # fmt: skip
    if return_indices_ranked_by is None:
        return np.asarray(issues.any(axis=1))
    any_class: NDArray[np.int64] = reduce(np.union1d, issues[0]).astype(np.int64)
    scores = _pooled(labels, pred_probs, return_indices_ranked_by, rank_by_kwargs, None, threads)[any_class]
    return any_class[np.argsort(scores, kind="stable")]


def find_multilabel_issues_per_class(
    labels: list[list[int]],
    pred_probs: Any,
    return_indices_ranked_by: ScoreMethod | None = None,
    rank_by_kwargs: dict[str, Any] | None = None,
    filter_by: FilterBy = "prune_by_noise_rate",
    frac_noise: float = 1.0,
    num_to_remove_per_class: Any = None,
    min_examples_per_class: int = 1,
    confident_joint: NDArray[Any] | None = None,
    *,
    threads: int | None = None,
) -> Any:
    """The classes of each row that are likely missing or wrong.

    Parameters
    ----------
    As in `find_label_issues`.

    Returns
    -------
    (n, K) bool; or, ranked, three lists of K: rows of each class, lowest score first; (n,) uint8 whether rows are
    labelled with it; (n, 2) float64 probabilities of its absence and presence.
    """
    marks, probabilities = _checked(labels, pred_probs)
    classes = marks.shape[1]
    if confident_joint is not None and np.shape(confident_joint) == (classes, classes):
        warnings.warn("confident_joint: not used, as with multi_label it has shape (K, 2, 2), not (K, K)", stacklevel=2)
        confident_joint = None
    if confident_joint is not None and np.shape(confident_joint) != (classes, 2, 2):
        raise InputError(f"confident_joint: expected shape ({classes}, 2, 2), got {np.shape(confident_joint)}")
    mask = np.zeros(marks.shape, np.bool_)
    rows, presence, pairs = [], [], []
    for k, (own, binary) in enumerate(_binary(marks, probabilities)):
        found = label_issues.find_label_issues(
            own, binary,
            return_indices_ranked_by=return_indices_ranked_by, rank_by_kwargs=rank_by_kwargs, filter_by=filter_by,
            frac_noise=frac_noise, min_examples_per_class=min_examples_per_class,
            num_to_remove_per_class=None if num_to_remove_per_class is None else [num_to_remove_per_class[k], 0],
            confident_joint=None if confident_joint is None else np.asarray(confident_joint)[k], n_jobs=threads,
        )  # fmt: skip
        if return_indices_ranked_by is None:
            mask[:, k] = found
        else:
            rows.append(found)
            presence.append(own)
            pairs.append(binary)
    return mask if return_indices_ranked_by is None else (rows, presence, pairs)


def get_label_quality_scores(
    labels: list[list[int]],
    pred_probs: Any,
    *,
    method: ScoreMethod = "self_confidence",
    adjust_pred_probs: bool = False,
    aggregator_kwargs: dict[str, Any] | None = None,
    threads: int | None = None,
) -> NDArray[np.float64]:
    """(n,) float64 from 0 to 1, low where some class of the row is likely missing or wrong.

    Parameters
    ----------
    labels, pred_probs
        As in `find_label_issues`.
    method, adjust_pred_probs
        Of each class's score, as in `pycurate.get_label_quality_scores`.
    aggregator_kwargs
        How a row's scores become one: `MOVING_AVERAGE` (``alpha`` None: 2 / (K + 1)), or ``{"method": "softmin",
        "temperature": 0.1}``: their mean with weights exp((1 - s) / temperature).
    """
    scores = get_label_quality_scores_per_class(
        labels, pred_probs, method=method, adjust_pred_probs=adjust_pred_probs, threads=threads
    )
    return _aggregated(scores, aggregator_kwargs or MOVING_AVERAGE)


def get_label_quality_scores_per_class(
    labels: list[list[int]],
    pred_probs: Any,
    *,
    method: ScoreMethod = "self_confidence",
    adjust_pred_probs: bool = False,
    threads: int | None = None,
) -> NDArray[np.float64]:
    """(n, K) float64: the score of each class, as a label of the row or as none; see `get_label_quality_scores`."""
    check_method(method, adjust_pred_probs)
    marks, probabilities = _checked(labels, pred_probs)
    scores = np.empty(marks.shape)
    for k, (own, binary) in enumerate(_binary(marks, probabilities)):
        scores[:, k] = label_quality.get_label_quality_scores(
            own, binary, method=method, adjust_pred_probs=adjust_pred_probs, threads=threads
        )
    return scores


def predicted_neq_given(labels: list[list[int]], pred_probs: Any, *, threads: int | None = None) -> NDArray[np.bool_]:
    """(n,) rows in which some class is predicted otherwise than labelled."""
    marks, probabilities = _checked(labels, pred_probs)
    found = np.zeros(len(marks), np.bool_)
    for own, binary in _binary(marks, probabilities):
        found |= label_issues.find_predicted_neq_given(own, binary, threads=threads)
    return found


def confident_thresholds(labels: list[list[int]], pred_probs: Any, *, threads: int | None) -> NDArray[np.float64]:
    """(K, 2); see `pycurate.ops.labels.confident_learning.get_confident_thresholds`."""

    def thresholds(own: NDArray[np.uint8], binary: NDArray[np.float64]) -> NDArray[np.float64]:
        return confident_learning.get_confident_thresholds(own, binary, threads=threads)

    return _of_each_class(labels, pred_probs, thresholds)


def confident_joints(
    labels: list[list[int]], pred_probs: Any, *, thresholds: Any, calibrate: bool, threads: int | None
) -> tuple[NDArray[np.int64], list[NDArray[np.int64]]]:
    """(K, 2, 2) joints, and the rows off the diagonal of each class's."""
    marks, probabilities = _checked(labels, pred_probs)
    found = [
        confident_learning.compute_confident_joint(
            own,
            binary,
            thresholds=thresholds,
            calibrate=calibrate,
            return_indices_of_off_diagonals=True,
            threads=threads,
        )
        for own, binary in _binary(marks, probabilities)
    ]
    return np.array([joint for joint, _ in found], np.int64).reshape(-1, 2, 2), [rows for _, rows in found]


def calibrated_joints(confident_joint: Any, labels: list[list[int]]) -> NDArray[np.int64]:
    """(K, 2, 2) joints, each calibrated to how many rows have its class."""
    joints = np.asarray(confident_joint)
    if joints.ndim != 3 or joints.shape[1:] != (2, 2):
        raise InputError(f"confident_joint: expected shape (K, 2, 2), got {joints.shape}")
    marks = one_hot(labels, len(joints))
    made = [calibrated(joint, np.bincount(own, minlength=2)) for joint, own in zip(joints, marks.T, strict=True)]
    return np.array(made, np.int64).reshape(-1, 2, 2)


def joint_estimates(
    labels: list[list[int]], pred_probs: Any, *, confident_joint: Any, threads: int | None
) -> NDArray[np.float64]:
    """(K, 2, 2) joints, each of sum 1."""
    joints = confident_joint
    if joints is None:
        joints, _ = confident_joints(labels, pred_probs, thresholds=None, calibrate=True, threads=threads)
    made = calibrated_joints(joints, labels)
    return np.asarray(made / np.maximum(made.sum(axis=(1, 2), keepdims=True), 1e-100))


def _pooled(
    labels: list[list[int]],
    pred_probs: Any,
    method: ScoreMethod,
    kwargs: dict[str, Any] | None,
    rows: NDArray[np.int64] | None,
    threads: int | None,
) -> NDArray[np.float64]:
    """Scores of all rows, or of some as if there were no others."""
    if rows is not None:
        labels, pred_probs = [labels[row] for row in rows.tolist()], np.asarray(pred_probs)[rows]
    return get_label_quality_scores(labels, pred_probs, method=method, threads=threads, **(kwargs or {}))


def _aggregated(scores: NDArray[np.float64], how: dict[str, Any]) -> NDArray[np.float64]:
    if how.get("method") == "exponential_moving_average":
        alpha = how.get("alpha")
        alpha = float(2 / (scores.shape[1] + 1)) if alpha is None else float(alpha)
        if not 0 <= alpha <= 1:
            raise InputError(f"alpha: expected a number from 0 to 1, got {alpha}")
        falling = np.sort(scores, axis=1)[:, ::-1]
        pooled = falling[:, 0].copy()
        for column in falling.T[1:]:
            pooled = alpha * column + (1 - alpha) * pooled
        return pooled
    if how.get("method") == "softmin":
        exponents = (1 - scores) / max(float(how.get("temperature", 0.1)), 1e-6)
        weights = np.exp(exponents - exponents.max(axis=1, keepdims=True))
        return np.asarray(np.einsum("ij,ij->i", scores, weights / weights.sum(axis=1, keepdims=True)))
    raise InputError(f"aggregator_kwargs: expected method exponential_moving_average or softmin, got {how!r}")


def _of_each_class(
    labels: list[list[int]],
    pred_probs: Any,
    call: Callable[[NDArray[np.uint8], NDArray[np.float64]], NDArray[np.float64]],
) -> NDArray[np.float64]:
    marks, probabilities = _checked(labels, pred_probs)
    return np.array([call(own, binary) for own, binary in _binary(marks, probabilities)])


def _checked(labels: list[list[int]], pred_probs: Any) -> tuple[NDArray[np.uint8], NDArray[Any]]:
    if not isinstance(pred_probs, np.ndarray) or pred_probs.ndim != 2 or pred_probs.dtype.name not in DTYPES:
        raise InputError("pred_probs: expected an array (n, K) of float16, float32 or float64 with multi_label=True")
    if pred_probs.shape[1] < 1 or len(labels) != len(pred_probs):
        raise InputError(
            f"labels and pred_probs: expected the same length and a column a class, got {len(labels)} lists and shape "
            f"{pred_probs.shape}"
        )
    return one_hot(labels, pred_probs.shape[1]), pred_probs


def _binary(
    marks: NDArray[np.uint8], probabilities: NDArray[Any]
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.float64]]]:
    """Whether rows have each class, and (n, 2) the probabilities that they have not and have it."""
    for own, column in zip(marks.T, probabilities.T, strict=True):
        binary = np.empty((len(own), 2))
        binary[:, 1] = column
        np.subtract(1, binary[:, 1], out=binary[:, 0])
        yield np.ascontiguousarray(own), binary
