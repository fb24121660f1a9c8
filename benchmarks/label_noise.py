"""Planted label noise, how well it was found, and SimiFeat as the published code computes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray


def planted(labels: NDArray[Any], rate: float, classes: int, seed: int) -> NDArray[np.int64]:
    """Each label replaced by another one with probability ``rate``, all others alike."""
    random = np.random.default_rng(seed)
    wrong = random.random(len(labels)) < rate
    return np.where(wrong, (labels + random.integers(1, classes, len(labels))) % classes, labels)


def f1(found: NDArray[np.bool_], wrong: NDArray[np.bool_]) -> float:
    return float(2 * (found & wrong).sum() / (found.sum() + wrong.sum()))


def auc(scores: NDArray[Any], wrong: NDArray[np.bool_]) -> float:
    """Probability that a wrong row has the higher score; half for ties."""
    _, place, count = np.unique(scores, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count - 1) / 2)[place]
    p = int(wrong.sum())
    return float((rank[wrong].sum() - p * (p + 1) / 2) / (p * (len(wrong) - p)))


def dense_nearest(x: NDArray[np.float32], k: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """(m, k) nearest other rows and their cosines, from one m x m matrix."""
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    similarity = unit @ unit.T
    np.fill_diagonal(similarity, -2)
    some = np.argpartition(-similarity, k, axis=1)[:, :k]
    near = np.take_along_axis(similarity, some, axis=1)
    order = np.argsort(-near, axis=1, kind="stable")
    return np.take_along_axis(some, order, axis=1), np.take_along_axis(near, order, axis=1)


def dense_votes(labels: NDArray[Any], classes: int, indices: NDArray[Any], near: NDArray[Any]) -> NDArray[np.float64]:
    """(m, classes) sums of the similarities of neighbours of each label."""
    m, k = indices.shape
    cells = np.repeat(np.arange(m), k) * classes + labels[indices].ravel()
    return np.bincount(cells, near.ravel(), m * classes).reshape(m, classes)


def published_simifeat(
    x: NDArray[np.float32],
    labels: NDArray[Any],
    classes: int,
    k: int = 10,
    rounds: int = 21,
    seed: int = 0,
    nearest: Callable[[NDArray[np.float32], int], tuple[NDArray[Any], NDArray[Any]]] = dense_nearest,
) -> NDArray[np.bool_]:
    """Votes of k rows, the row itself among them, over random parts of nine tenths, each with its own matrix."""
    random = np.random.default_rng(seed)
    flagged, times = np.zeros(len(x)), np.zeros(len(x))
    for _ in range(rounds):
        part = random.permutation(len(x))[: min(35_000, int(0.9 * len(x)))]
        indices, near = nearest(x[part], k - 1)
        votes = dense_votes(labels[part], classes, indices, near)
        votes[np.arange(len(part)), labels[part]] += 2 * near[:, 0] - near[:, 1]
        flagged[part] += votes.argmax(axis=1) != labels[part]
        times[part] += 1
    return (flagged + 1) / (times + 2) > 0.5
