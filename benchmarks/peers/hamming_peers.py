"""Joins of binary codes that a user can write without pycurate: by NumPy, and FAISS's brute force."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[np.uint64]
PairKeys = NDArray[np.int64]  # (p,) row * n + col with row < col, rising

CHUNK = 1 << 22  # candidate pairs verified at once


def numpy_band_join(codes: Codes, radius: int) -> PairKeys:
    """Pairs of 64-bit codes within ``radius``: radius + 1 bands, rows sorted by each, equal keys compared.

    Two codes that differ in at most r bits agree in one of r + 1 bands. Within a run of equal keys each row meets those
    behind it: the k-th next, for k = 1, 2, ..., of all runs at once, so that no Python loop goes over rows.
    """
    n, bands = len(codes), radius + 1
    found = []
    for band in range(bands):
        low, high = 64 * band // bands, 64 * (band + 1) // bands
        keys = (codes >> np.uint64(low)) & np.uint64((1 << (high - low)) - 1)
        if high - low <= 16:
            keys = keys.astype(np.uint16)  # NumPy sorts these by radix
        order = np.argsort(keys, kind="stable").astype(np.int32)
        keys, ordered = keys[order], codes[order]
        alive = np.arange(n - 1)
        step = 1
        while len(alive):
            alive = alive[alive < n - step]
            alive = alive[keys[alive] == keys[alive + step]]
            for begin in range(0, len(alive), CHUNK):
                rows = alive[begin : begin + CHUNK]
                near = rows[np.bitwise_count(ordered[rows] ^ ordered[rows + step]) <= radius]
                first, second = order[near].astype(np.int64), order[near + step].astype(np.int64)
                found.append(np.minimum(first, second) * n + np.maximum(first, second))
            step += 1
    return np.unique(np.concatenate(found)) if found else np.empty(0, np.int64)


def faiss_flat_join(codes: Codes, radius: int) -> PairKeys:
    """The same by ``IndexBinaryFlat.range_search`` of all rows against all."""
    import faiss

    n = len(codes)
    as_bytes = codes.view(np.uint8).reshape(n, 8)
    index = faiss.IndexBinaryFlat(64)
    index.add(as_bytes)
    limits, _, others = index.range_search(as_bytes, radius + 1)  # strictly below its radius
    rows = np.repeat(np.arange(n), np.diff(limits.astype(np.int64)))
    kept = rows < others
    return np.sort(rows[kept] * n + others[kept])


def planted_codes(n: int, seed: int = 0, share: float = 0.02) -> Codes:
    """Fair bits; a ``share`` of the rows are others with up to four bits changed."""
    random: Any = np.random.default_rng(seed)
    codes = random.integers(0, 2**64, n, dtype=np.uint64)
    chosen = random.permutation(n)[: 2 * int(share * n)].reshape(2, -1)
    near = codes[chosen[0]]
    for _ in range(4):
        near ^= np.uint64(1) << random.integers(0, 64, len(near)).astype(np.uint64)
    codes[chosen[1]] = near
    return codes
