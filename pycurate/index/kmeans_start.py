"""Where k-means begins: rows of the training sample, drawn evenly or spread by their distances."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pycurate.errors import InputError
from pycurate.index.sampling import uniforms
from pycurate.kernels.fused_similarity import nearest
from pycurate.kernels.rowwise import pair_similarity

KMeansMetric: TypeAlias = Literal["cosine", "l2"]
Start: TypeAlias = Literal["random", "k-means++", "k-means||"]

ROUNDS = 5
"""Of k-means||: Bahmani et al. find that more lower the inertia by little; in theory as many as its logarithm."""
OVERSAMPLING = 2
"""Rows that a round of k-means|| draws on average, over k."""
_PLUS_STREAM, _PARALLEL_STREAM, _RECLUSTER_STREAM = 2, 5, 6


def starting_rows(
    points: NDArray[np.float32],
    k: int,
    init: Start,
    metric: KMeansMetric,
    drawn_first: NDArray[np.int64],
    seed: int,
    threads: int | None,
    device: str | None,
) -> NDArray[np.int64]:
    """(k,) rows of the sample that are the first centroids.

    Parameters
    ----------
    points
        (m, d) the sample, m at least k.
    init
        As `pycurate.kmeans` says.
    drawn_first
        (m,) rows of the sample in a random order.

    Raises
    ------
    InputError
        A row is too far from all that were drawn for a float32.
    """
    if init == "random":
        return drawn_first[:k]
    if init == "k-means++":
        return _spread_rows(points, np.ones(len(points)), k, metric, int(drawn_first[0]), seed, _PLUS_STREAM, threads)
    drawn, weights = _oversampled(points, OVERSAMPLING * k, metric, int(drawn_first[0]), seed, threads, device)
    if len(drawn) <= k:  # few distinct rows, or a small k
        others = drawn_first[~np.isin(drawn_first, drawn)]
        return np.concatenate([drawn, others[: k - len(drawn)]])
    heaviest = np.cumsum(weights)
    draw = uniforms(np.zeros(1, np.uint64), seed, _RECLUSTER_STREAM)[0]
    first = int(np.searchsorted(heaviest, draw * heaviest[-1], side="right"))
    return drawn[_spread_rows(points[drawn], weights, k, metric, first, seed, _RECLUSTER_STREAM, threads)]


def _oversampled(
    points: NDArray[np.float32],
    most: int,
    metric: KMeansMetric,
    first: int,
    seed: int,
    threads: int | None,
    device: str | None,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """(c,) rows that the rounds of k-means|| draw, each once, and (c,) how many rows each of them is nearest to."""
    drawn = np.array([first])
    closest, distances = _nearest_of(points, points[drawn], metric, threads, device)
    numbers = np.arange(len(points), dtype=np.uint64)
    for number in range(ROUNDS):
        total = math.fsum(distances.tolist())
        draws = uniforms(numbers, seed, _PARALLEL_STREAM + (number << 32))
        new = np.flatnonzero(draws * total < most * distances)  # of a row drawn before the distance is 0
        if not len(new):
            continue
        place, near = _nearest_of(points, points[new], metric, threads, device)
        closer = near < distances
        closest[closer], distances[closer] = len(drawn) + place[closer], near[closer]
        drawn = np.concatenate([drawn, new])
    return drawn, np.bincount(closest, minlength=len(drawn)).astype(np.float64)


def _nearest_of(
    points: NDArray[np.float32],
    others: NDArray[np.float32],
    metric: KMeansMetric,
    threads: int | None,
    device: str | None,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """(m,) the nearest of the others, ties to the lower, and the distance: 1 - cosine, or its square."""
    found = nearest(points, 1, others, metric, threads=threads, device=device)
    places, similarities = found.indices[:, 0], found.similarities[:, 0].astype(np.float64)
    if places.min() < 0:
        raise InputError("x: a row's distance from every drawn row is beyond float32; scale the rows down")
    return places, 1 - similarities if metric == "cosine" else -similarities


def _spread_rows(
    points: NDArray[np.float32],
    weights: NDArray[np.float64],
    k: int,
    metric: KMeansMetric,
    first: int,
    seed: int,
    stream: int,
    threads: int | None,
) -> NDArray[np.int64]:
    """k-means++: each next row is drawn in proportion to its weight and its distance from the nearest so far."""
    chosen = [first]  # each pass does little with what it reads, so that it stays on the CPU
    distances = np.full(len(points), np.inf)
    draws = uniforms(np.arange(k, dtype=np.uint64), seed, stream)
    for number in range(1, k):
        to_last = pair_similarity(np.broadcast_to(points[chosen[-1]], points.shape), points, metric, threads=threads)
        distances = np.minimum(distances, (1 - to_last if metric == "cosine" else -to_last).astype(np.float64))
        reached = np.cumsum(weights * distances)
        if reached[-1] > 0:
            row = int(np.searchsorted(reached, draws[number] * reached[-1], side="right"))
            chosen.append(min(row, len(points) - 1))
        else:  # only copies of chosen rows are left
            chosen.append(int(draws[number] * len(points)))
    return np.array(chosen)
