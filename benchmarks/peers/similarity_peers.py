"""What answers similarity questions without pycurate, each as fast as its library lets a user write it.

A self-join gets unit rows and a threshold and gives the pairs (i, j), i < j, at or above it. It calls ``prepared()``
where its preparation ends and the work that grows with the square of the rows begins. ``share`` < 1 asks for an even
sample of its query blocks only: brute force costs the same in each, so that its time for all follows.

Libraries are imported where they are used: a process of one peer loads one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Rows: TypeAlias = NDArray[np.float32]
Prepared: TypeAlias = Callable[[], None]


@dataclass
class Blocks:
    """The query blocks of ``n`` rows that a sampled run takes, and what share of all work they are."""

    n: int
    size: int
    share: float = 1.0
    triangular: bool = False  # a block meets only itself and the rows after it
    taken: list[tuple[int, int]] = field(init=False)

    def __post_init__(self) -> None:
        starts = range(0, self.n, self.size)
        step = max(1, min(len(starts), round(1 / self.share)))
        chosen = starts[step // 2 :: step]
        self.taken = [(start, min(start + self.size, self.n)) for start in chosen]

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(self.taken)

    @property
    def work_share(self) -> float:
        def work(start: int) -> int:
            stop = min(start + self.size, self.n)
            return (stop - start) * (self.n - start if self.triangular else self.n)

        total = sum(work(start) for start in range(0, self.n, self.size))
        return sum(work(start) for start, _ in self.taken) / total if total else 1.0


@dataclass
class Pairs:
    rows: NDArray[np.int64]
    cols: NDArray[np.int64]
    blocks: Blocks  # of the lower row of a pair


@dataclass
class Neighbors:
    indices: NDArray[np.int64]  # (rows of the blocks, k)
    blocks: Blocks


def _pairs(found: list[tuple[NDArray[Any], NDArray[Any]]], blocks: Blocks) -> Pairs:
    empty = np.empty(0, np.int64)
    rows = np.concatenate([empty, *(rows for rows, _ in found)])
    cols = np.concatenate([empty, *(cols for _, cols in found)])
    later = rows < cols
    return Pairs(rows[later], cols[later], blocks)


# Joins.


def join_faiss(x: Rows, threshold: float, share: float, prepared: Prepared) -> Pairs:
    """``IndexFlatIP.range_search`` of all rows in all rows."""
    import faiss

    blocks = Blocks(len(x), 4096, share)  # 1,024 to all rows at once cost the same within 4 %
    index = faiss.IndexFlatIP(x.shape[1])
    index.add(x)
    prepared()
    found = []
    for start, stop in blocks:
        limits, _, labels = index.range_search(
            x[start:stop], float(np.nextafter(np.float32(threshold), np.float32(-2)))
        )
        found.append((np.repeat(np.arange(start, stop), np.diff(limits.astype(np.int64))), labels))
    return _pairs(found, blocks)


def join_faiss_later(x: Rows, threshold: float, share: float, prepared: Prepared) -> Pairs:
    """``range_search`` in an index that grows block by block from the last row on, which does half of the work."""
    import faiss

    n, size = len(x), 2048
    blocks = Blocks(n, size, share, triangular=True)
    taken = set(blocks.taken)
    index = faiss.IndexFlatIP(x.shape[1])
    row_of = np.empty(n, np.int64)
    prepared()
    found = []
    for start in reversed(range(0, n, size)):
        stop = min(start + size, n)
        row_of[index.ntotal : index.ntotal + stop - start] = np.arange(start, stop)
        index.add(x[start:stop])
        if (start, stop) in taken:
            below = float(np.nextafter(np.float32(threshold), np.float32(-2)))
            limits, _, labels = index.range_search(x[start:stop], below)
            found.append((np.repeat(np.arange(start, stop), np.diff(limits.astype(np.int64))), row_of[labels]))
    return _pairs(found, blocks)


def join_numpy(x: Rows, threshold: float, share: float, prepared: Prepared) -> Pairs:
    n, size = len(x), 1024
    blocks = Blocks(n, size, share, triangular=True)
    limit = np.float32(threshold)
    prepared()
    found = []
    for start, stop in blocks:
        for column in range(start, n, size):
            similarity = x[start:stop] @ x[column : column + size].T
            if similarity.max() >= limit:
                rows, cols = np.nonzero(similarity >= limit)
                found.append((rows + start, cols + column))
    return _pairs(found, blocks)


def _join_torch(
    operand: Any, limit: Callable[[int, int], Any], blocks: Blocks, multiply: Callable[[Any, Any], Any]
) -> Pairs:
    """Pairs whose product reaches the limit of their two blocks.

    Products of 1,024 x 1,024 are the fastest of 512 to 4,096. Most blocks are done with at their maximum, which costs
    less than counting."""
    found = []
    size = blocks.size
    for start, stop in blocks:
        for column in range(start, blocks.n, size):
            product = multiply(operand[start:stop], operand[column : column + size])
            least = limit(start, column)
            if product.amax().item() >= least:
                rows, cols = (product >= least).nonzero(as_tuple=True)
                found.append((rows.numpy() + start, cols.numpy() + column))
    return _pairs(found, blocks)


def _rechecked(x: Rows, candidates: Pairs, threshold: float) -> Pairs:
    """The candidates whose float32 similarity reaches the threshold."""
    rows, cols = candidates.rows, candidates.cols
    kept = [np.empty(0, bool)]
    for start in range(0, len(rows), 65536):
        pair = slice(start, start + 65536)
        kept.append(np.einsum("nd,nd->n", x[rows[pair]], x[cols[pair]]) >= np.float32(threshold))
    keep = np.concatenate(kept)
    return Pairs(rows[keep], cols[keep], candidates.blocks)


def join_torch_float32(x: Rows, threshold: float, share: float, prepared: Prepared) -> Pairs:
    import torch

    blocks = Blocks(len(x), 1024, share, triangular=True)
    rows = torch.from_numpy(x)
    buffer = torch.empty(blocks.size * blocks.size)

    def multiply(a: Any, b: Any) -> Any:
        return torch.mm(a, b.T, out=buffer[: len(a) * len(b)].view(len(a), len(b)))

    prepared()
    return _join_torch(rows, lambda *_: float(np.float32(threshold)), blocks, multiply)


def join_torch_bfloat16(x: Rows, threshold: float, share: float, prepared: Prepared) -> Pairs:
    """Products of rows rounded to bfloat16 and a float32 check of what comes near.

    Each factor is rounded by at most 2^-9 of itself and the product once more: of unit rows the sum is off by at most
    3 * 2^-9 and a little, here 0.006.
    """
    import torch

    blocks = Blocks(len(x), 1024, share, triangular=True)
    rows = torch.from_numpy(x).bfloat16()
    prepared()
    near = _join_torch(rows, lambda *_: threshold - 0.006, blocks, lambda a, b: torch.mm(a, b.T))
    return _rechecked(x, near, threshold)


@cache
def rotation(d: int) -> Rows:
    """A random (d, d) rotation: dot products stay."""
    turned: Rows = np.linalg.qr(np.random.default_rng(d).standard_normal((d, d)))[0].astype(np.float32)
    return turned


def join_torch_int8(x: Rows, threshold: float, share: float, prepared: Prepared) -> Pairs:
    """Products of rows quantised to int8, with the error that Cauchy-Schwarz allows, and a float32 check of what comes
    near. ``torch._int_mm`` is not part of torch's public interface."""
    import torch

    blocks = Blocks(len(x), 1024, share, triangular=True)
    rows = torch.from_numpy(x)
    rows = torch.mm(rows, torch.from_numpy(rotation(x.shape[1])))  # outlier coordinates would coarsen the scale
    scale = rows.abs().max().item() / 127  # one for all, so that a block's products share one limit
    quantised = torch.round(rows / scale).to(torch.int8)
    residual = torch.linalg.vector_norm(rows - quantised * scale, dim=1) + 1e-5  # the rotation rounds, too
    starts = range(0, blocks.n, blocks.size)
    residuals = {start: residual[start : start + blocks.size].amax().item() for start in starts}

    def limit(start: int, column: int) -> int:
        e, f = residuals[start], residuals[column]
        return int(np.floor((threshold - e - f - e * f) / scale**2)) - 1

    prepared()
    near = _join_torch(quantised, limit, blocks, lambda a, b: torch._int_mm(a, b.T))
    return _rechecked(x, near, threshold)


def join_usearch(x: Rows, threshold: float, share: float, prepared: Prepared) -> Pairs:
    """Exact search for 64 neighbours, of which those below the threshold are dropped: rows of more neighbours lose
    some."""
    from usearch.index import MetricKind, search

    blocks = Blocks(len(x), 256, share)
    prepared()
    found = []
    for start, stop in blocks:
        matches = search(x, x[start:stop], min(64, len(x)), MetricKind.IP, exact=True, threads=1)
        keys = np.atleast_2d(matches.keys)
        near = 1 - np.atleast_2d(matches.distances) >= np.float32(threshold)
        rows = np.broadcast_to(np.arange(start, stop)[:, None], keys.shape)
        found.append((rows[near], keys[near].astype(np.int64)))
    return _pairs(found, blocks)


def pass_torch_float32(x: Rows, threshold: float, share: float, prepared: Prepared) -> Pairs:
    """Only the products of the float32 join and their maximum, for what a join of a clump costs at least that way."""
    import torch

    blocks = Blocks(len(x), 1024, share, triangular=True)
    rows = torch.from_numpy(x)
    buffer = torch.empty(blocks.size * blocks.size)
    prepared()
    for start, stop in blocks:
        for column in range(start, blocks.n, blocks.size):
            b = rows[column : column + blocks.size]
            product = buffer[: (stop - start) * len(b)].view(stop - start, len(b))
            torch.mm(rows[start:stop], b.T, out=product).amax().item()
    return _pairs([], blocks)


# Neighbours: of rows among all rows but themselves, or of rows among centroids.


def without_self(indices: NDArray[np.int64], start: int) -> NDArray[np.int64]:
    """(m, k) of (m, k + 1) neighbours of rows ``start`` on, less the row itself or, where it is not there, the last."""
    own = indices == np.arange(start, start + len(indices))[:, None]
    own[~own.any(1), -1] = True
    return indices[~own].reshape(len(indices), indices.shape[1] - 1)


def nearest_faiss(x: Rows, k: int, share: float, prepared: Prepared) -> Neighbors:
    import faiss

    blocks = Blocks(len(x), 4096, share)
    index = faiss.IndexFlatIP(x.shape[1])
    index.add(x)
    prepared()
    found = [without_self(index.search(x[start:stop], k + 1)[1], start) for start, stop in blocks]
    return Neighbors(np.concatenate(found), blocks)


def nearest_torch(x: Rows, k: int, share: float, prepared: Prepared) -> Neighbors:
    import torch

    blocks = Blocks(len(x), 256, share)
    rows = torch.from_numpy(x)
    prepared()
    found = []
    for start, stop in blocks:
        _, indices = torch.topk(torch.mm(rows[start:stop], rows.T), k + 1)
        found.append(without_self(indices.numpy(), start))
    return Neighbors(np.concatenate(found), blocks)


def nearest_usearch(x: Rows, k: int, share: float, prepared: Prepared) -> Neighbors:
    from usearch.index import MetricKind, search

    blocks = Blocks(len(x), 256, share)
    prepared()
    found = []
    for start, stop in blocks:
        matches = search(x, x[start:stop], k + 1, MetricKind.IP, exact=True, threads=1)
        found.append(without_self(np.atleast_2d(matches.keys).astype(np.int64), start))
    return Neighbors(np.concatenate(found), blocks)


def assign_faiss(x: Rows, centroids: Rows, share: float, prepared: Prepared) -> Neighbors:
    import faiss

    blocks = Blocks(len(x), 4096, share)
    index = faiss.IndexFlatIP(x.shape[1])
    index.add(centroids)
    prepared()
    return Neighbors(np.concatenate([index.search(x[start:stop], 1)[1] for start, stop in blocks]), blocks)


def assign_torch(x: Rows, centroids: Rows, share: float, prepared: Prepared) -> Neighbors:
    import torch

    blocks = Blocks(len(x), 1024, share)
    rows, across = torch.from_numpy(x), torch.from_numpy(centroids).T
    prepared()
    found = [torch.mm(rows[start:stop], across).argmax(1, keepdim=True).numpy() for start, stop in blocks]
    return Neighbors(np.concatenate(found), blocks)


def assign_numpy(x: Rows, centroids: Rows, share: float, prepared: Prepared) -> Neighbors:
    blocks = Blocks(len(x), 1024, share)
    prepared()
    found = [(x[start:stop] @ centroids.T).argmax(1)[:, None] for start, stop in blocks]
    return Neighbors(np.concatenate(found), blocks)


def graph_faiss_ivf(x: Rows, k: int, share: float, prepared: Prepared) -> Neighbors:
    """Approximate: self-search of sqrt(n) lists, 16 of them looked at, as in ours."""
    import faiss

    blocks = Blocks(len(x), 4096, share)
    lists = max(1, int(np.sqrt(len(x))))
    index = faiss.index_factory(x.shape[1], f"IVF{lists},Flat", faiss.METRIC_INNER_PRODUCT)
    index.train(x)
    index.add(x)
    index.nprobe = 16
    prepared()
    found = [without_self(index.search(x[start:stop], k + 1)[1], start) for start, stop in blocks]
    return Neighbors(np.concatenate(found), blocks)


def graph_faiss_hnsw(x: Rows, k: int, share: float, prepared: Prepared) -> Neighbors:
    """Approximate: 32 links a node, 128 rows kept in view while building and searching, as in ours."""
    import faiss

    blocks = Blocks(len(x), 4096, share)
    index = faiss.IndexHNSWFlat(x.shape[1], 32, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = index.hnsw.efSearch = 128
    index.add(x)
    prepared()
    found = [without_self(index.search(x[start:stop], k + 1)[1], start) for start, stop in blocks]
    return Neighbors(np.concatenate(found), blocks)


def means_faiss(x: Rows, k: int, share: float, prepared: Prepared) -> dict[str, float]:
    """Ten iterations of spherical k-means on all rows, and the mean cosine of a row to its centroid."""
    import faiss

    means = faiss.Kmeans(x.shape[1], k, niter=10, spherical=True, seed=1, max_points_per_centroid=len(x))
    means.train(x)
    similarities = means.index.search(x, 1)[0]
    return {"iterations": len(means.iteration_stats), "similarity": float(np.mean(similarities, dtype=np.float64))}
