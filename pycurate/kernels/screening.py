"""What lets fused similarity reject whole tiles earlier than a row's rotated beginning does: a principal prefix and an
order by cluster.

The dot product of two unit rows is at most that of their first coordinates, in any orthonormal basis, plus the product
of the norms of the rest. The kernel always has the beginnings of randomly rotated rows for that. Embeddings of images
and captions hold most of their energy in few directions: in a principal basis a prefix a few times shorter rejects as
much, and rows ordered by cluster make the pairs that stay lie in few tiles. Preparing both costs about 2 us a row, so a
sample decides here whether they pay; the first tiles of a join decide which stages run
(``csrc/kernels/fused_similarity/join.h``). Neither ever changes a result.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pycurate import _core
from pycurate.kernels.device import cuda_kernels

if TYPE_CHECKING:
    from pycurate import _core_cuda

_Matrix = NDArray[np.float32]

_LEAST_COORDINATES = 128
_BEGINNINGS = np.array([1 / 8, 3 / 16, 1 / 4, 3 / 8, 1 / 2, 1])  # of rotated rows, as operand.cpp cuts them
_BASIS_ROWS = 1024
_PAIR_ROWS = 384
_CLUSTER_COORDINATES = 32  # the first of the basis; more cost more than their better order saves
_ROWS_PER_CLUSTER = 16
_MOST_CLUSTERS = 2048
_LLOYD_ROUNDS = 3
_BASIS_ROUNDS = 4
# What quantising adds to the bound of a pair, about (operand.cpp measures it row by row).
_QUANTISING = 0.02


class _Costs(NamedTuple):
    """What a pair costs and what preparing costs, to weigh one against the other; never in a result."""

    stages: tuple[int, ...]  # as far as they are a quarter of all coordinates or less
    least_work: float  # multiply-adds of coordinates, below which a join takes about as long as the sample does
    seconds_per_product: float
    seconds_per_row: float
    seconds: float
    # Pairs of a tile that are as good as independent: all of them, far fewer where rows are ordered by cluster.
    pairs_of_tile: int
    pairs_of_ordered_tile: int


_CPU = _Costs((16, 32, 64, 128), 2e10, 4e-12, 2e-6, 0.05, 384, 60)  # one thread of a Cascade Lake
_CUDA = _Costs((64, 128), 3e13, 3e-15, 3e-8, 0.15, 16_384, 1_000)  # an H100


class _Prefix(NamedTuple):
    basis: _Matrix  # (p, d) orthonormal rows
    stages: list[int]
    norms: list[float]  # per stage, of a unit row's first coordinates
    centroids: _Matrix  # (c, coordinates)


def screening_of(
    sides: list[tuple[NDArray[Any], Any, NDArray[np.int64]]], limit: float | None, neighbors: int | None, threads: int
) -> _core.fused_similarity.Screening | None:
    """The stages that the rows of one problem share, for cosine; None where none can pay.

    Parameters
    ----------
    sides
        For each matrix (n, d) its element type and the rising rows of it that take part.
    limit
        The similarity below which pairs do not matter; None where ``neighbors`` nearest rows are asked for instead.
    threads
        To use; the stages do not depend on it.
    """
    prefix = _prefix_of(list(sides), limit, neighbors, threads, _CPU)
    return None if prefix is None else _core.fused_similarity.Screening(*prefix)


def cuda_screening_of(
    sides: list[tuple[Any, Any, NDArray[np.int64]]], limit: float | None, neighbors: int | None, threads: int = 0
) -> _core_cuda.Screening | None:
    """As :func:`screening_of`, for a join on a GPU, of rows in its memory (``_core_cuda.Matrix``) or the CPU's; None
    where PyTorch multiplies whole rows."""
    kernels = cuda_kernels()
    if not hasattr(kernels, "Screening"):
        return None
    prefix = _prefix_of(list(sides), limit, neighbors, threads, _CUDA)
    if prefix is None:
        return None
    screening: _core_cuda.Screening = kernels.Screening(prefix.basis, prefix.norms[0], prefix.centroids)
    return screening


def _prefix_of(
    sides: list[tuple[Any, Any, NDArray[np.int64]]],
    limit: float | None,
    neighbors: int | None,
    threads: int,
    costs: _Costs,
) -> _Prefix | None:
    d = sides[0][0].shape[1]
    sizes = [len(rows) for _, _, rows in sides]
    pairs = sizes[0] * sizes[-1] / (2 if len(sides) == 1 else 1)
    stages = [p for p in costs.stages if p * 4 <= d]
    if pairs * d < costs.least_work or d < _LEAST_COORDINATES or not stages:
        return None
    # Each side gives half: the prefix must suit both.
    basis_sample = np.concatenate([_unit_rows(*side, _BASIS_ROWS // len(sides)) for side in sides])
    left, right = basis_sample[:_PAIR_ROWS], basis_sample[-_PAIR_ROWS:]
    similarities = _core.fused_similarity.products(left, right, threads)
    if limit is None:
        largest = sizes[-1]
        assert neighbors is not None
        limit = float(np.quantile(similarities, max(0.0, 1 - neighbors / largest)))
    beginnings = [_left_by_beginning(similarities, p / d, d, limit) for p in _BEGINNINGS * d]
    without = _products(_BEGINNINGS * d, beginnings, costs.pairs_of_tile, d)
    worth = (sum(sizes) * costs.seconds_per_row + costs.seconds) / (pairs * costs.seconds_per_product)
    if without - _fewest_products(similarities, stages, d, limit, costs) < worth:
        return None
    basis = _principal_directions(basis_sample, stages[-1], threads)
    projected = _core.fused_similarity.products(basis_sample, basis, threads)
    prefixes = [
        _left_by_prefix(projected[:_PAIR_ROWS, :p], projected[-_PAIR_ROWS:, :p], limit, threads) for p in stages
    ]
    if without - _products(np.array(stages), prefixes, costs.pairs_of_ordered_tile, d) < worth:
        return None
    norms = [float(np.sqrt(np.mean(np.square(projected[:, :p]).sum(axis=1)))) for p in stages]
    clusters = min(_MOST_CLUSTERS, int(np.sqrt(max(sizes))))
    first = np.ascontiguousarray(basis[:_CLUSTER_COORDINATES])
    count = clusters * _ROWS_PER_CLUSTER // len(sides)
    sample = np.concatenate([_projected(*side, count, first, threads) for side in sides])
    gpu = getattr(sides[0][0], "device", None) if hasattr(sides[0][0], "project") else None
    centroids = _centroids(sample, clusters, threads, gpu)
    return _Prefix(basis, stages, [min(1.0, max(norm, 1e-3)) for norm in norms], centroids)


def _fewest_products(similarities: _Matrix, stages: list[int], d: int, limit: float, costs: _Costs) -> float:
    """What principal prefixes may come down to at best, from the similarities of pairs alone.

    With eigenvalues of sum 1, the mean square of the similarities is that of a sum of their squares, so that the first
    p hold at most sqrt(p * mean square) of the energy. A prefix of that energy is taken to leave what a beginning does.
    """
    square = float(np.mean(np.square(similarities)))
    energies = np.minimum(1, np.sqrt(np.array(stages) * square))
    left = [_left_by_beginning(similarities, float(energy), d, limit) for energy in energies]
    return _products(np.array(stages), left, costs.pairs_of_ordered_tile, d)


def _left_by_prefix(left: _Matrix, right: _Matrix, limit: float, threads: int) -> float:
    """Share of the pairs that these coordinates of unit rows leave."""
    left, right = np.ascontiguousarray(left), np.ascontiguousarray(right)
    rest_left, rest_right = (np.maximum(0, 1 - np.einsum("np,np->n", x, x)) for x in (left, right))
    dots = _core.fused_similarity.products(left, right, threads)
    bounds = dots + (rest_left[:, None] + rest_right[None, :]) / 2 + _QUANTISING
    return float(np.mean(bounds >= limit))


def _left_by_beginning(similarities: _Matrix, share: float, d: int, limit: float) -> float:
    """Share of the pairs that the same share of randomly rotated coordinates leaves: a dot product of them is nearly
    Gaussian, that share of the whole with a variance of share (1 - share) / d."""
    if share >= 1:
        return 0.0
    bounds = similarities * share + (1 - share) + _QUANTISING
    deviations = (limit - bounds) / np.sqrt(share * (1 - share) / d)
    # A logistic in place of the normal distribution: the choice needs no more.
    return float(np.mean(1 / (1 + np.exp(np.clip(1.702 * deviations, -50, 50)))))


def _products(lengths: NDArray[Any], left: list[float], pairs_of_tile: int, d: int) -> float:
    """Products of coordinates per pair when one stage runs, the best, and the whole row where it leaves a tile."""
    alive = 1 - (1 - np.array(left)) ** pairs_of_tile
    return float(np.min(lengths + alive * d))


def _unit_rows(x: NDArray[Any] | _core_cuda.Matrix, element: Any, rows: NDArray[np.int64], count: int) -> _Matrix:
    """(at most count, d) of the rows, evenly spaced, as unit float32."""
    chosen = _evenly(rows, count)
    part = x[chosen] if isinstance(x, np.ndarray) else x.take(chosen)
    wide = (part.astype(np.uint32) << 16).view(np.float32) if element == "bfloat16" else part.astype(np.float32)
    largest = np.abs(wide).max(axis=1, keepdims=True)
    wide /= np.where(largest > 0, largest, 1)  # or squares of large elements overflow
    norms = np.sqrt(np.einsum("nd,nd->n", wide, wide))[:, None]
    wide /= np.where(norms > 0, norms, 1)
    return wide


def _evenly(rows: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    return rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(np.int64)]


def _projected(x: Any, element: str, rows: NDArray[np.int64], count: int, directions: _Matrix, threads: int) -> _Matrix:
    """(at most count, p) products of evenly spaced rows, made unit, with some directions: where the rows lie."""
    if hasattr(x, "project"):
        projected: _Matrix = x.project(_evenly(rows, count), directions)
        return projected
    return _core.fused_similarity.products(_unit_rows(x, element, rows, count), directions, threads)


def _principal_directions(rows: _Matrix, count: int, threads: int) -> _Matrix:
    """(count, d) orthonormal rows that hold nearly the most energy of ``rows``, about the mean included, largest first.

    A few rounds of orthogonal iteration: a direction more or less costs a little speed, an exact decomposition 0.1 s.
    """
    products, orthonormalise = _core.fused_similarity.products, _core.fused_similarity.orthonormalise
    turned = np.ascontiguousarray(rows.T)
    gram = products(turned, turned, threads)
    directions = np.random.default_rng(0).standard_normal((count, rows.shape[1])).astype(np.float32)
    for _ in range(_BASIS_ROUNDS):
        directions = orthonormalise(products(directions, gram, threads))
    return directions


def _centroids(rows: _Matrix, count: int, threads: int, gpu: int | None) -> _Matrix:
    """(count, p) centroids of a few rounds of Lloyd's algorithm, on a GPU or not; they only order rows."""
    centroids = rows[np.linspace(0, len(rows) - 1, count).astype(np.int64)].copy()
    for _ in range(_LLOYD_ROUNDS):
        if gpu is None:
            nearest = np.argmax(_core.fused_similarity.products(rows, centroids, threads), axis=1)
        else:
            nearest = cuda_kernels().nearest_centroids(rows, centroids, gpu)
        order = np.argsort(nearest, kind="stable")
        found, starts = np.unique(nearest[order], return_index=True)
        sums = np.add.reduceat(rows[order], starts, axis=0)
        norms = np.sqrt(np.einsum("cp,cp->c", sums, sums))[:, None]
        centroids[found] = sums / np.where(norms > 0, norms, 1)
    return np.ascontiguousarray(centroids[_chain(_core.fused_similarity.products(centroids, centroids, threads))])


def _chain(similarities: _Matrix) -> list[int]:
    """An order in which each centroid comes after the nearest one before it that is left: neighbors of a row lie beside
    it, not only in its cluster."""
    order = [0]
    for _ in range(len(similarities) - 1):
        similarities[:, order[-1]] = -np.inf
        order.append(int(np.argmax(similarities[order[-1]])))
    return order
