"""The definition of the Hamming kernels: every pair of codes, one by one, in plain NumPy.

A code is a row of 64-bit words; the distance of two codes is the number of bits in which they differ.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[np.uint64]


def distances(x: Codes, y: Codes) -> NDArray[np.int64]:
    """(n, m) distances of codes (n, words) and (m, words)."""
    result = np.zeros((len(x), len(y)), np.int64)
    for word in range(x.shape[1]):
        differing = np.ascontiguousarray(x[:, word, None] ^ y[None, :, word])
        result += np.unpackbits(differing.view(np.uint8).reshape(*differing.shape, 8), axis=2).sum(
            axis=2, dtype=np.int64
        )
    return result


def copies(x: Codes) -> NDArray[np.int64]:
    """(n,) the lowest row with the same code, -1 for the first."""
    first: dict[bytes, int] = {}
    found = [first.setdefault(code.tobytes(), row) for row, code in enumerate(x)]
    return np.array([-1 if place == row else place for row, place in enumerate(found)], np.int64)


def pairs_within(x: Codes, radius: int, y: Codes | None = None) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Rows, columns and distances of the pairs within the radius, sorted by (row, col); row < col without ``y``."""
    between = distances(x, x if y is None else y)
    within = between <= radius
    rows, cols = np.nonzero(np.triu(within, 1) if y is None else within)
    return rows, cols, between[rows, cols]


def components_within(x: Codes, radius: int) -> NDArray[np.int64]:
    """(n,) the lowest row that each row is linked with, directly or through others."""
    labels = np.arange(len(x))
    rows, cols, _ = pairs_within(x, radius)
    changed = True
    while changed:
        before = labels.copy()
        lower = np.minimum(labels[rows], labels[cols])
        np.minimum.at(labels, rows, lower)
        np.minimum.at(labels, cols, lower)
        changed = bool((labels != before).any())
    return labels


def linkage_within(x: Codes, radius: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(n,) the lowest row of the first component with a lower row that each row is in, and its radius; or -1 and -1."""
    joined, reached = np.full(len(x), -1), np.full(len(x), -1)
    for level in range(radius + 1):
        labels = components_within(x, level)
        new = (joined < 0) & (labels < np.arange(len(x)))
        joined[new], reached[new] = labels[new], level
    return joined, reached


def nearest_earlier(x: Codes, order: NDArray[np.int64], radius: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Each row's nearest row of those before it in ``order``, of equally near ones the first; -1 and -1 for none."""
    between = distances(x, x)
    best, nearest = np.full(len(x), -1), np.full(len(x), -1)
    for place, row in enumerate(order):
        for earlier in order[:place]:
            distance = between[row, earlier]
            if distance <= radius and (best[row] < 0 or distance < nearest[row]):
                best[row], nearest[row] = earlier, distance
    return best, nearest
