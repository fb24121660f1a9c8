"""Seeded draws that do not depend on NumPy's version: a row's key is a hash of the seed and its number."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_BLOCK_ROWS = 1 << 22
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def seeded_keys(numbers: NDArray[np.uint64], seed: int, stream: int = 0) -> NDArray[np.uint64]:
    """A 64-bit key for each number: splitmix64 (Steele, Lea and Flood, 2014), a bijection of number for each seed.

    Parameters
    ----------
    numbers
        (n,) uint64.
    seed, stream
        Different seeds and streams give unrelated keys.
    """
    start = _mixed(np.array([seed & 0xFFFFFFFFFFFFFFFF], np.uint64)) + np.uint64(stream)
    return _mixed(_mixed(start) + numbers * _GOLDEN)


def sample_rows(n: int, count: int, seed: int) -> NDArray[np.int64]:
    """``count`` of the rows 0 to n - 1, drawn without replacement, rising; all of them where there are no more.

    They are the rows of the lowest keys, so a larger sample of the same seed holds the smaller one.
    """
    return np.sort(drawn_rows(n, count, seed))


def drawn_rows(n: int, count: int, seed: int, stream: int = 0) -> NDArray[np.int64]:
    """As `sample_rows`, in the order of the keys, which is a random one: fewer rows are the first of more.

    Draws of another ``stream`` are unrelated.
    """
    best_keys, best = np.empty(0, np.uint64), np.empty(0, np.int64)
    for start in range(0, n, _BLOCK_ROWS):
        rows = np.arange(start, min(n, start + _BLOCK_ROWS), dtype=np.int64)
        keys = np.concatenate([best_keys, seeded_keys(rows.astype(np.uint64), seed, stream)])
        rows = np.concatenate([best, rows])
        if len(rows) > count:
            lowest = np.argpartition(keys, count)[:count] if count else np.empty(0, np.int64)
            keys, rows = keys[lowest], rows[lowest]
        best_keys, best = keys, rows
    order = np.argsort(best_keys)  # keys differ: the hash is a bijection
    return best[order]


def uniforms(numbers: NDArray[np.uint64], seed: int, stream: int) -> NDArray[np.float64]:
    """(n,) float64 in [0, 1), multiples of 2^-53: one for each number."""
    top = seeded_keys(numbers, seed, stream) >> np.uint64(11)
    return top.astype(np.float64) * 2.0**-53


def _mixed(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    x = x + _GOLDEN  # uint64 arrays wrap around
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
