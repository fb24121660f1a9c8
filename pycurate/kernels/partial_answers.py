"""Answers of fused similarity that come block by block, put together."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pycurate import _core

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]
Keys = NDArray[np.uint64]

__all__ = ["MostSimilar", "SpanningEdges", "decoded", "joined_columns", "keys_of"]

_SIGN = np.uint32(1 << 31)


def joined_columns(parts: list[tuple[Integers, Integers, Floats]]) -> tuple[Integers, Integers, Floats]:
    """Rows, columns and similarities of all parts."""
    empty = (np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))
    rows, cols, similarities = (np.concatenate(column) for column in zip(empty, *parts, strict=True))
    return rows, cols, similarities


class SpanningEdges:
    """The heaviest spanning forest of edges that come some at a time, in memory that grows with the nodes."""

    def __init__(self, nodes: int) -> None:
        self.nodes = nodes
        self._edges: list[tuple[Integers, Integers, Floats]] = []
        self._waiting = 0

    def add(self, i: Integers, j: Integers, similarities: Floats) -> None:
        """Edges (i < j) between nodes."""
        self._edges.append((i, j, similarities))
        self._waiting += len(i)
        if self._waiting > max(self.nodes, 1 << 16):
            self.edges()

    def edges(self) -> tuple[Integers, Integers, Floats]:
        """Of those so far, heaviest first."""
        kept = _core.fused_similarity.heaviest_forest(self.nodes, *joined_columns(self._edges))
        self._edges, self._waiting = [kept], 0
        return kept


class MostSimilar:
    """Of every node the rank and similarity of the most similar row, ties to the lower rank."""

    def __init__(self, n: int) -> None:
        self._keys = np.zeros(n, np.uint64)

    def add(self, nodes: slice, ranks: Integers, similarities: Floats) -> None:
        """One of each node of a range; rank -1: none."""
        self._keys[nodes] = np.maximum(self._keys[nodes], keys_of(ranks, similarities))

    def answer(self) -> tuple[Integers, Floats]:
        """-1 and NaN where there is none."""
        return decoded(self._keys)


def keys_of(numbers: Integers, similarities: Floats) -> Keys:
    """As ``csrc/kernels/fused_similarity/ranked.h``: larger is more similar, then of the lower number; 0: none."""
    bits = (similarities + np.float32(0)).view(np.uint32)
    ordered = np.where(bits & _SIGN, ~bits, bits | _SIGN).astype(np.uint64)
    keys: Keys = ordered << np.uint64(32) | (~numbers.astype(np.uint32)).astype(np.uint64)
    return np.where(numbers < 0, np.uint64(0), keys)


def decoded(keys: Keys) -> tuple[Integers, Floats]:
    """Numbers and similarities, -1 and NaN where there is none."""
    ordered = (keys >> np.uint64(32)).astype(np.uint32)
    similarities = np.where(ordered & _SIGN, ordered & ~_SIGN, ~ordered).view(np.float32)
    none = keys == 0
    numbers = (~keys.astype(np.uint32)).astype(np.int64)
    return np.where(none, -1, numbers), np.where(none, np.float32(np.nan), similarities)
