"""The arithmetic of K x K joints of given and true labels, as confident learning uses it: calibration, rounding, noise
matrices. Rows are given labels, columns true ones.

Northcutt, Jiang, Chuang: Confident Learning, JAIR 2021. Equal to cleanlab 2.9; ties in rounding fall to the higher
class on the way up and to the lower on the way down.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pycurate.errors import InputError

PriorMethod: TypeAlias = Literal["cnt", "eqn", "marginal", "marginal_ps"]
"""How the prior of true labels is estimated: P(true|given) / P(given|true) of the diagonal, the solved linear system,
the joint's column sums, or P(true|given) times the prior of given labels."""

_TINY = 1e-100
_LEAST_PRIOR = 1e-6
_MOST_NOISE_RATE = 0.9999
_ENTRIES_AT_ONCE = 1 << 17  # of a joint: temporaries of 1 MB


def round_preserving_row_totals(matrix: NDArray[Any]) -> NDArray[np.int64]:
    """Each row rounded to integers whose sum is the row's, rounded: the entries that rounding moved most give way.

    Parameters
    ----------
    matrix
        (m, k) float.
    """
    rounded = np.empty(matrix.shape, np.int64)
    for rows in _row_blocks(matrix):
        rounded[rows] = _rounded_rows(matrix[rows])
    return rounded


def calibrated(joint: NDArray[Any], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """``joint`` rescaled so that its rows sum to ``counts`` (k,), the rows labelled each class, and rounded.

    Needs no more than what it returns, which has the order in memory that ``joint`` has.
    """
    scaled = joint.T / np.maximum(joint.sum(axis=1), _TINY)
    scaled *= counts
    scaled /= max(float(np.sum(scaled.T)), _TINY)
    scaled *= int(counts.sum())
    by_given = scaled.T
    rounded: NDArray[np.int64] = scaled.T.view(np.int64)
    for rows in _row_blocks(by_given):
        rounded[rows] = _rounded_rows(by_given[rows])
    return rounded


def _row_blocks(matrix: NDArray[Any]) -> Iterator[slice]:
    step = max(1, _ENTRIES_AT_ONCE // max(1, matrix.shape[1]))
    for begin in range(0, len(matrix), step):
        yield slice(begin, begin + step)


def _rounded_rows(matrix: NDArray[Any]) -> NDArray[np.float64]:
    floats = np.ascontiguousarray(matrix, np.float64)
    ints = floats.round()
    totals = floats.sum(axis=1).round()
    excess = totals - ints.sum(axis=1)
    open_rows = np.flatnonzero(excess)
    while len(open_rows):
        order = np.argsort(floats[open_rows] - ints[open_rows], axis=1, kind="stable")
        for place, row in enumerate(open_rows.tolist()):
            step = 1 if excess[row] > 0 else -1
            count = int(min(abs(excess[row]), matrix.shape[1]))
            ints[row, order[place][::-step][:count]] += step
        excess = totals - ints.sum(axis=1)
        open_rows = np.flatnonzero(excess)
    return ints


def square(name: str, joint: Any, classes: int | None = None) -> NDArray[Any]:
    """``joint`` as an array (k, k).

    Raises
    ------
    InputError
        It is not square, or not of ``classes`` rows.
    """
    array = np.asarray(joint)
    if array.ndim != 2 or array.shape[0] != array.shape[1] or (classes is not None and len(array) != classes):
        wanted = "(K, K)" if classes is None else f"({classes}, {classes})"
        raise InputError(f"{name}: expected shape {wanted}, given by true class, got {array.shape}")
    return array


def estimate_latent(
    confident_joint: NDArray[Any],
    labels: Any,
    *,
    py_method: PriorMethod = "cnt",
    converge_latent_estimates: bool = False,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """The prior of true labels and the noise matrices of a confident joint.

    Parameters
    ----------
    confident_joint
        (K, K) counts, given by true.
    labels
        (n,) given class ids below K.
    py_method
        See `PriorMethod`.
    converge_latent_estimates
        Iterate until the three agree with each other better.

    Returns
    -------
    (K,) P(true); (K, K) P(given|true), columns sum to 1; (K, K) P(true|given), columns (given) sum to 1.
    """
    joint = square("confident_joint", confident_joint)
    counts = np.bincount(np.asarray(labels, np.int64), minlength=len(joint))
    if len(counts) > len(joint):
        raise InputError(
            f"labels: expected class ids below {len(joint)}, the size of confident_joint, got {counts.size - 1}"
        )
    given_prior = counts / float(counts.sum())
    given, true = joint.sum(axis=1).astype(float), joint.sum(axis=0).astype(float)
    noise = joint / np.maximum(true, _TINY)
    inverse = joint.T / np.maximum(given, _TINY)
    prior = _true_prior(given_prior, noise, inverse, py_method, true)
    noise, inverse = _clipped_rates(noise), _clipped_rates(inverse)
    if converge_latent_estimates:
        prior, noise, inverse = _converged(given_prior, prior, noise, inverse)
        prior = _clipped(prior, 1e-5)
        noise, inverse = _clipped_rates(noise), _clipped_rates(inverse)
    return prior, noise, inverse


def _true_prior(
    given_prior: NDArray[np.float64],
    noise: NDArray[np.float64],
    inverse: NDArray[np.float64],
    method: PriorMethod,
    true_counts: NDArray[np.float64],
) -> NDArray[np.float64]:
    if method == "cnt":
        prior = inverse.diagonal() / np.maximum(noise.diagonal(), _TINY) * given_prior
    elif method == "eqn":
        prior = np.linalg.inv(noise).dot(given_prior)
    elif method == "marginal":
        prior = true_counts / max(float(sum(true_counts)), _TINY)
    elif method == "marginal_ps":
        prior = np.dot(inverse, given_prior)
    else:
        raise InputError(f"py_method: expected cnt, eqn, marginal or marginal_ps, got {method!r}")
    return _clipped(prior, _LEAST_PRIOR)


def _clipped(prior: NDArray[np.float64], least: float) -> NDArray[np.float64]:
    """Within [least, 1], and with sum 1 again."""
    clipped = np.clip(prior, least, 1.0)
    return np.asarray(clipped * 1.0 / max(float(np.sum(clipped)), _TINY))


def _clipped_rates(noise: NDArray[np.float64]) -> NDArray[np.float64]:
    """Off-diagonal rates below 1, columns with sum 1 again."""
    clipped = np.clip(noise, 0, _MOST_NOISE_RATE)
    np.fill_diagonal(clipped, np.diagonal(noise))
    return np.asarray(clipped / np.maximum(clipped.sum(axis=0), _TINY))


def _converged(
    given_prior: NDArray[np.float64],
    prior: NDArray[np.float64],
    noise: NDArray[np.float64],
    inverse: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Five rounds of P(true|given) and prior from P(given|true), then that from them; three times."""
    for _ in range(3):
        for _ in range(5):
            inverse = _clipped_rates((noise * prior).T / np.maximum(given_prior, _TINY))
            prior = _true_prior(given_prior, noise, inverse, "cnt", given_prior)
        noise = _clipped_rates((inverse * given_prior).T / np.maximum(prior, _TINY))
    return prior, noise, inverse
