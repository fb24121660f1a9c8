"""What lets fused similarity reject whole tiles early: a principal prefix and an order by cluster.

Embeddings of images and captions hold most of their energy in few directions. The dot product of two unit rows is at
most that of their first principal coordinates plus the product of the norms of the rest, so that a prefix of an eighth
of the coordinates rejects most pairs; rows ordered by cluster make the pairs that stay lie in few tiles. Where the
spectrum is flat a prefix rejects nothing. A sample decides here whether to prepare one at all, and the first tiles of a
join which stages pay (``csrc/kernels/fused_similarity/join.h``). Neither ever changes a result.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pycurate import _core

_Matrix = NDArray[np.float32]

# Below this many multiply-adds of coordinates a join takes about 10 ms, less than preparing stages would.
_LEAST_WORK = 4e9
_LEAST_COORDINATES = 128
# Coordinates of the stages, each a quarter of the next one's cost or more; no more than a quarter of all.
_STAGES = (16, 32, 64, 128)
_BASIS_ROWS = 1024
_PAIR_ROWS = 384
_ROWS_PER_CLUSTER = 16
_MOST_CLUSTERS = 2048
_LLOYD_ROUNDS = 3
# What quantising adds to the bound of a pair, about (operand.cpp measures it row by row).
_QUANTISING = 0.02
# Share of random pairs that the longest prefix may leave; beyond, nearly every tile of 384 pairs holds one of them.
_MOST_LEFT = 0.02


def screening_of(
    sides: list[tuple[NDArray[Any], Any, NDArray[np.int64]]], limit: float | None, neighbours: int | None
) -> _core.fused_similarity.Screening | None:
    """The stages that the rows of one problem share, for cosine; None where none can pay.

    Parameters
    ----------
    sides
        For each matrix (n, d) its element type and the rising rows of it that take part.
    limit
        The similarity below which pairs do not matter; None where ``neighbours`` nearest rows are asked for instead.
    """
    d = sides[0][0].shape[1]
    sizes = [len(rows) for _, _, rows in sides]
    pairs = sizes[0] * sizes[-1] / (2 if len(sides) == 1 else 1)
    if pairs * d < _LEAST_WORK or d < _LEAST_COORDINATES:
        return None
    stages = [p for p in _STAGES if p * 4 <= d]
    # Each side gives half: the prefix must suit both.
    basis_sample = np.concatenate([_unit_rows(*side, _BASIS_ROWS // len(sides)) for side in sides])
    basis = _principal_directions(basis_sample, stages[-1])
    left, right = basis_sample[:_PAIR_ROWS], basis_sample[-_PAIR_ROWS:]
    similarities = left @ right.T
    if limit is None:
        largest = sizes[-1]
        assert neighbours is not None
        limit = float(np.quantile(similarities, max(0.0, 1 - neighbours / largest)))
    short_left, short_right = left @ basis.T, right @ basis.T
    rest_left, rest_right = (
        np.maximum(0, 1 - np.einsum("nd,nd->n", short, short)) for short in (short_left, short_right)
    )
    bounds = short_left @ short_right.T + (rest_left[:, None] + rest_right[None, :]) / 2 + _QUANTISING
    if np.mean(bounds >= limit) > _MOST_LEFT:
        return None
    norms = [float(np.sqrt(np.mean(np.einsum("nd,nd->n", part, part)))) for part in _prefixes(basis_sample, basis, stages)]
    clusters = min(_MOST_CLUSTERS, int(np.sqrt(max(sizes))))
    sample = np.concatenate([_unit_rows(*side, clusters * _ROWS_PER_CLUSTER // len(sides)) for side in sides])
    centroids = _centroids(sample @ basis.T, clusters)
    return _core.fused_similarity.Screening(basis, stages, [min(1.0, max(norm, 1e-3)) for norm in norms], centroids)


def _prefixes(rows: _Matrix, basis: _Matrix, stages: list[int]) -> list[_Matrix]:
    projected = rows @ basis.T
    return [projected[:, :stage] for stage in stages]


def _unit_rows(x: NDArray[Any], element: Any, rows: NDArray[np.int64], count: int) -> _Matrix:
    """(at most count, d) of the rows, evenly spaced, as unit float32."""
    chosen = rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(np.int64)]
    part = x[chosen]
    wide = (part.astype(np.uint32) << 16).view(np.float32) if element == "bfloat16" else part.astype(np.float32)
    largest = np.abs(wide).max(axis=1, keepdims=True)
    wide /= np.where(largest > 0, largest, 1)  # or squares of large elements overflow
    norms = np.sqrt(np.einsum("nd,nd->n", wide, wide))[:, None]
    return wide / np.where(norms > 0, norms, 1)


def _principal_directions(rows: _Matrix, count: int) -> _Matrix:
    """(count, d) orthonormal rows that hold nearly the most energy of ``rows``, about the mean included, largest first.

    Three rounds of subspace iteration: a direction more or less costs a little speed, an exact decomposition 0.1 s.
    """
    gram = rows.T @ rows
    directions = np.random.default_rng(0).standard_normal((rows.shape[1], count)).astype(np.float32)
    for _ in range(3):
        directions = np.linalg.qr(gram @ directions)[0]
    energies, turn = np.linalg.eigh(directions.T @ gram @ directions)
    # Orthonormal in float64, so that only rounding is left of what the bound must add.
    basis = np.linalg.qr((directions @ turn[:, np.argsort(-energies)]).astype(np.float64))[0]
    return np.ascontiguousarray(basis.T.astype(np.float32))


def _centroids(rows: _Matrix, count: int) -> _Matrix:
    """(count, p) centroids of a few rounds of Lloyd's algorithm; they only order rows."""
    centroids = rows[np.linspace(0, len(rows) - 1, count).astype(np.int64)].copy()
    for _ in range(_LLOYD_ROUNDS):
        nearest = np.argmax(rows @ centroids.T, axis=1)
        order = np.argsort(nearest, kind="stable")
        found, starts = np.unique(nearest[order], return_index=True)
        sums = np.add.reduceat(rows[order], starts, axis=0)
        norms = np.sqrt(np.einsum("cp,cp->c", sums, sums))[:, None]
        centroids[found] = sums / np.where(norms > 0, norms, 1)
    return np.ascontiguousarray(centroids)
