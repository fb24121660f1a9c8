"""Clean and noisy rows told apart: by a line between trusted rows (LSA), by two bells over losses (PLS)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pycurate.errors import InputError
from pycurate.index.rows import Rows, check_count
from pycurate.kernels.rowwise import Heads, row_statistics

_STEP_ROWS = 8192


@dataclass(frozen=True, slots=True, eq=False)
class LinearSeparation:
    """A line between trusted rows, and where all rows lie.

    Attributes
    ----------
    scores
        (n,) float32 in [0, 1]: probability of being like the inside rows; NaN for a row that is not finite.
    weights, bias
        (d,) float64 and a number, of the logit on unscaled features.
    unjudged
        (u,) rising rows that are not finite.
    """

    scores: NDArray[np.float32]
    weights: NDArray[np.float64]
    bias: float
    unjudged: NDArray[np.int64]


def linear_separation(
    x: NDArray[Any],
    inside: NDArray[Any],
    outside: NDArray[Any],
    *,
    ridge: float = 1e-4,
    max_iterations: int = 50,
    threads: int | None = None,
    dtype: Literal["bfloat16"] | None = None,
) -> LinearSeparation:
    """Which rows are like trusted in-distribution rows and not like trusted outliers: a logistic regression.

    Features are scaled to mean 0 and deviation 1 over the trusted rows, and the two sides weigh the same. Solved by
    Newton's steps, so that it has no learning rate or seed.

    Parameters
    ----------
    x
        (n, d) features, float32, float16, bfloat16 or int8; may be a memory map: all rows are scored in blocks.
    inside, outside
        Row numbers (or (n,) bool masks) of trusted rows of each side, at least one each; held as float64.
    ridge
        Above 0: weight of half the squared length of the coefficients beside the mean loss. Published is none, which
        has no solution where a line separates the trusted rows, as it does in most high-dimensional features.
    max_iterations
        Newton's steps, at most.
    threads, dtype
        As in `pycurate.nearest`.

    Raises
    ------
    InputError
        A value is not as above, or a trusted row is not finite.

    References
    ----------
    Albert, Arazo, Krishna, O'Connor, McGuinness: Embedding contrastive unsupervised features to cluster in- and
    out-of-distribution noise in corrupted image datasets (ECCV 2022), whose images separate linearly (LSA).
    """
    rows = Rows.of("x", x, dtype)
    if not ridge > 0 or not np.isfinite(ridge):
        raise InputError(f"ridge: expected a number above 0, got {ridge}")
    check_count("max_iterations", max_iterations)
    sides = [_row_numbers(name, side, len(rows)) for name, side in (("inside", inside), ("outside", outside))]
    both = np.intersect1d(sides[0], sides[1])
    if len(both):
        raise InputError(f"outside: row {both[0]} is in inside, too; a trusted row is of one side")
    numbers = np.concatenate(sides)
    order = np.argsort(numbers, kind="stable")
    features = rows.take(numbers[order]).widened(threads).astype(np.float64)
    is_inside = (np.arange(len(numbers)) < len(sides[0])).astype(np.float64)[order]
    wrong = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if len(wrong):
        raise InputError(f"x: trusted row {numbers[order][wrong[0]]} is not finite; leave it out")
    mean, deviation = features.mean(axis=0), features.std(axis=0)
    deviation[deviation == 0] = 1
    fitted = _logistic((features - mean) / deviation, is_inside, ridge, max_iterations)
    weights = fitted[:-1] / deviation
    bias = float(fitted[-1] - mean @ weights)
    heads = Heads(weights.astype(np.float32)[None, :], np.array([bias], np.float32))
    scores = np.empty(len(rows), np.float32)
    for start, block in rows.blocks():
        found = row_statistics(block.values, heads=heads, threads=threads, dtype=block.dtype).heads
        assert found is not None
        logit = found[:, 0].astype(np.float64)
        scores[start : start + len(block)] = 0.5 * (1 + np.tanh(0.5 * logit))
    judged = rows.judged("inner_product", threads)
    scores[~judged] = np.nan
    return LinearSeparation(scores, weights, bias, np.flatnonzero(~judged))


def _row_numbers(name: str, side: NDArray[Any], n: int) -> NDArray[np.int64]:
    side = np.asarray(side)
    if side.dtype == bool and side.shape == (n,):
        side = np.flatnonzero(side)
    if side.ndim != 1 or (side.dtype.kind not in "iu" and len(side)) or ((side < 0) | (side >= n)).any():
        raise InputError(f"{name}: expected row numbers from 0 to {n - 1}, or a mask of {n} rows, got {side.dtype}")
    if not len(side):
        raise InputError(f"{name}: expected at least one trusted row, got none")
    return np.unique(side).astype(np.int64)


def _logistic(z: NDArray[np.float64], y: NDArray[np.float64], ridge: float, steps: int) -> NDArray[np.float64]:
    """(d + 1,) coefficients, the last without ridge; both values of ``y`` weigh 1/2 in the mean loss."""
    m, d = z.shape
    weight = np.where(y == 1, 0.5 / y.sum(), 0.5 / (m - y.sum()))
    beta, penalty = np.zeros(d + 1), np.append(np.full(d, ridge), 0.0)

    def loss(b: NDArray[np.float64]) -> float:
        logit = z @ b[:-1] + b[-1]
        return float(weight @ np.logaddexp(0, np.where(y == 1, -logit, logit)) + 0.5 * penalty @ (b * b))

    now = loss(beta)
    for _ in range(steps):
        p = 0.5 * (1 + np.tanh(0.5 * (z @ beta[:-1] + beta[-1])))
        residual, curvature = weight * (p - y), weight * p * (1 - p)
        gradient = np.append(z.T @ residual, residual.sum()) + penalty * beta
        hessian = np.diag(penalty) + 1e-12 * np.eye(d + 1)
        for start in range(0, m, _STEP_ROWS):
            part = np.column_stack([z[start : start + _STEP_ROWS], np.ones(len(z[start : start + _STEP_ROWS]))])
            hessian += part.T @ (curvature[start : start + _STEP_ROWS, None] * part)
        step, size = np.linalg.solve(hessian, gradient), 1.0
        while loss(beta - size * step) > now and size > 1e-6:
            size /= 2
        beta = beta - size * step
        before, now = now, loss(beta)
        if before - now <= 1e-12 * max(abs(before), 1e-300):
            break
    return beta


@dataclass(frozen=True, slots=True, eq=False)
class LossMixture:
    """Two normal distributions over the losses of rows.

    Attributes
    ----------
    noisy
        (n,) float32 in [0, 1]: posterior of the distribution with the larger mean; NaN for a loss that is not finite.
    is_noisy
        (n,) bool: posterior above the threshold.
    means, deviations, weights
        (2,) float64 each, of losses scaled to [0, 1]: first the clean one.
    iterations, converged
        Steps taken, and whether they ended by the tolerance.
    unjudged
        (u,) rising rows with a loss that is not finite.
    """

    noisy: NDArray[np.float32]
    is_noisy: NDArray[np.bool_]
    means: NDArray[np.float64]
    deviations: NDArray[np.float64]
    weights: NDArray[np.float64]
    iterations: int
    converged: bool
    unjudged: NDArray[np.int64]


def loss_mixture(
    losses: NDArray[Any],
    *,
    threshold: float = 0.95,
    max_iterations: int = 10,
    tolerance: float = 1e-2,
    least_variance: float = 5e-4,
) -> LossMixture:
    """Clean and noisy rows by a mixture of two normal distributions over their losses (small-loss trick).

    Losses are scaled to [0, 1] and fitted by expectation maximisation from the two means of 2-means. As a pseudo-loss
    (the cross-entropy of a guessed label) is given, 1 - ``noisy`` is the weight that PLS trains with.

    Parameters
    ----------
    losses
        (n,) floats, a loss of each row, of a model that has not yet learnt the noise.
    threshold
        In [0, 1]: rows of a larger posterior are noisy.
    max_iterations, tolerance, least_variance
        10, 1e-2 and 5e-4 as published: steps, the gain in mean log-likelihood at which they end, and what is added to
        each variance.

    Returns
    -------
    LossMixture
        The same for any order of rows. Where all losses are equal, no row is noisy.

    Raises
    ------
    InputError
        A value is not as above.

    References
    ----------
    Arazo, Ortego, Albert, O'Connor, McGuinness: Unsupervised label noise modeling and loss correction (ICML 2019).
    Albert, Arazo, Krishna, O'Connor, McGuinness: Is your noise correction noisy? PLS (WACV 2023).
    """
    values = np.asarray(losses)
    if values.ndim != 1 or values.dtype.kind != "f":
        raise InputError(f"losses: expected (n,) floats, got {values.shape} of {values.dtype}")
    if not 0 <= threshold <= 1:
        raise InputError(f"threshold: expected from 0 to 1, got {threshold}")
    if not least_variance > 0 or not tolerance >= 0:
        raise InputError(
            f"least_variance, tolerance: expected above 0 and at least 0, got {least_variance}, {tolerance}"
        )
    check_count("max_iterations", max_iterations)
    judged = np.isfinite(values)
    taken = values[judged].astype(np.float64)
    noisy = np.full(len(values), np.nan, np.float32)
    unjudged = np.flatnonzero(~judged)
    low, high = float(taken.min(initial=np.inf)), float(taken.max(initial=-np.inf))
    if not low < high:
        noisy[judged] = 0
        same = np.zeros(2)
        return LossMixture(noisy, np.zeros(len(values), bool), same, same, np.array([1.0, 0.0]), 0, True, unjudged)
    scaled = (taken - low) / (high - low)
    fitted = _two_normals(np.sort(scaled), max_iterations, tolerance, least_variance)
    means, variances, weights, steps, converged = fitted
    order = np.argsort(means, kind="stable")
    means, variances, weights = means[order], variances[order], weights[order]
    noisy[judged] = _posterior(scaled, means, variances, weights)[0][:, 1]
    return LossMixture(noisy, noisy > threshold, means, np.sqrt(variances), weights, steps, converged, unjudged)


def _posterior(
    values: NDArray[np.float64],
    means: NDArray[np.float64],
    variances: NDArray[np.float64],
    weights: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(n, 2) posteriors and the (n,) log-likelihoods."""
    logs = np.log(np.maximum(weights, 1e-300)) - 0.5 * (
        np.log(2 * np.pi * variances) + (values[:, None] - means) ** 2 / variances
    )
    total = np.logaddexp(logs[:, 0], logs[:, 1])
    return np.exp(logs - total[:, None]), total


def _two_normals(
    values: NDArray[np.float64], max_iterations: int, tolerance: float, least_variance: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], int, bool]:
    """Means, variances, weights, steps and whether they converged, of sorted values in [0, 1]."""
    centre = np.array([0.0, 1.0])
    cut = -1
    while True:  # 2-means in one dimension: a cut in the sorted values, which has few places to go
        place = int(np.searchsorted(values, centre.mean(), side="right"))
        if place == cut:
            break
        cut = place
        centre = np.array([values[:cut].mean(), values[cut:].mean()])
    share = np.zeros((len(values), 2))
    share[:cut, 0], share[cut:, 1] = 1, 1
    before, converged, step = -np.inf, False, 0
    while True:
        count = share.sum(axis=0) + 10 * np.finfo(np.float64).eps
        means = share.T @ values / count
        variances = np.array([share[:, j] @ (values - means[j]) ** 2 / count[j] for j in range(2)]) + least_variance
        weights = count / count.sum()
        if converged or step == max_iterations:
            return means, variances, weights, step, converged
        share, logs = _posterior(values, means, variances, weights)
        mean = float(logs.mean())
        converged = abs(mean - before) < tolerance
        before, step = mean, step + 1
