"""The definition of the graph kernels: label propagation over compressed rows, in plain NumPy and float64."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]


def dense_matrix(indptr: NDArray[Any], indices: NDArray[Any], values: NDArray[Any]) -> Doubles:
    """(n, n) matrix of compressed rows."""
    n = len(indptr) - 1
    matrix = np.zeros((n, n))
    for row in range(n):
        for edge in range(int(indptr[row]), int(indptr[row + 1])):
            matrix[row, int(indices[edge])] += float(values[edge])
    return matrix


def symmetric_sum(matrix: Doubles) -> Doubles:
    """W + Wᵀ without what leads from a row to itself."""
    both = matrix + matrix.T
    np.fill_diagonal(both, 0)
    return both


def normalized(matrix: Doubles) -> Doubles:
    """D^-1/2 W D^-1/2, D the sums of the columns; a row of degree 0 is divided by 1."""
    degrees = matrix.sum(axis=0)
    scale = 1 / np.sqrt(np.where(degrees > 0, degrees, 1))
    return matrix * scale[:, None] * scale[None, :]


def sweep(
    matrix: Doubles,
    seeds: Doubles,
    state: Doubles,
    alpha: float,
    *,
    omega: float = 1.0,
    previous: Doubles | None = None,
    clamped: NDArray[np.bool_] | None = None,
) -> tuple[Doubles, float]:
    """The next state, (n, classes), and the sum of \\|alpha W state + seeds - state\\|."""
    gathered = matrix @ state
    if clamped is not None:
        gathered[clamped] = 0
    plain = alpha * gathered + seeds
    change = float(np.abs(plain - state).sum())
    return (plain if previous is None else omega * (plain - previous) + previous), change


def largest(values: Doubles, kept: int) -> Doubles:
    """Each row's ``kept`` largest positive values, ties to the lower class, and 0 elsewhere."""
    result = np.zeros_like(values)
    for row in range(len(values)):
        order = np.argsort(-values[row], kind="stable")[:kept]
        order = order[values[row, order] > 0]
        result[row, order] = values[row, order]
    return result


def sweep_top(matrix: Doubles, seeds: Doubles, state: Doubles, alpha: float, kept: int) -> tuple[Doubles, float]:
    """The next state of rows that keep their largest values, and the sum of its differences from the last."""
    result = largest(alpha * (matrix @ state) + seeds, kept)
    return result, float(np.abs(result - state).sum())


def conjugate_gradients(matrix: Doubles, right: Doubles, alpha: float, iterations: int) -> Doubles:
    """x after so many iterations of each column's own conjugate gradients for (1 - alpha W) x = right, from 0."""
    x = np.zeros_like(right)
    for column in range(right.shape[1]):
        residual = right[:, column].copy()
        direction, square = residual.copy(), residual @ residual
        for _ in range(iterations):
            if square == 0:
                break
            product = direction - alpha * (matrix @ direction)
            step = square / (direction @ product)
            x[:, column] += step * direction
            residual -= step * product
            square, last = residual @ residual, square
            direction = residual + square / last * direction
    return x
