"""The exchange: pairs of a 64-bit key and a row, brought together by key over a whole pool in bounded memory.

A step that fits what one row cannot know, such as how often a pair of words occurs, hands out (key, row) pairs in the
scan. The pairs of each block are stored sorted by key: a *segment*. Here key space is cut into equal ranges, in rising
order, and each range is gathered from all segments. Keys are hashes, spread evenly, so that ranges hold about as many
different keys; a key that half of the rows have is one entry a segment before anything is gathered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from pycurate.pipeline.step import FitView, Pairs

_ENTRY_BYTES = 80  # of a key of a segment: itself and its count, gathered, argsorted and taken in that order
_KEY_BITS = 64


def sorted_pairs(pairs: Pairs, start: int) -> Pairs:
    """The pairs of one block as a segment: sorted by key; rows count from the beginning of its shard."""
    keys, rows = pairs
    order = np.argsort(keys)
    return keys[order], rows[order] + np.uint32(start)


@dataclass(frozen=True, slots=True)
class KeyRange:
    """The keys of one range of key space over the whole pool.

    Attributes
    ----------
    keys
        (m,) uint64, rising, each once.
    counts
        (m,) int64, pairs that have the key.
    """

    keys: NDArray[np.uint64]
    counts: NDArray[np.int64]
    _low: int
    _high: int
    _view: FitView

    def rows(self, mask: NDArray[np.bool_]) -> Iterator[tuple[str, NDArray[np.uint32], NDArray[np.int64]]]:
        """Shard by shard, the rows that have a key where ``mask`` (m,) is True, and the count of that key.

        Both are (p,): a row is there once for every pair.
        """
        keys, counts = self.keys[mask], self.counts[mask]
        if not len(keys):
            return

        def found(shard: str) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
            rows: list[NDArray[np.uint32]] = [np.empty(0, np.uint32)]
            place_counts: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
            for segment_keys, segment_rows in self._view.exchanged(shard):
                begin, end = _bounds(segment_keys, self._low, self._high)
                part = segment_keys[begin:end]
                place = np.minimum(np.searchsorted(keys, part), len(keys) - 1)
                wanted = keys[place] == part
                rows.append(segment_rows[begin:end][wanted])
                place_counts.append(counts[place[wanted]])
            return np.concatenate(rows), np.concatenate(place_counts)

        for shard, (rows, row_counts) in zip(self._view.shards, self._view.map(found), strict=True):
            if len(rows):
                yield shard, rows, row_counts


def key_ranges(view: FitView) -> Iterator[KeyRange]:
    """All keys that the step's pairs have, range by range in rising order, within ``view.memory_bytes``."""
    total = sum(view.map(lambda shard: sum(len(keys) for keys, _ in view.exchanged(shard))))
    number = max(1, -(-total * _ENTRY_BYTES // view.memory_bytes))
    edges = [(i << _KEY_BITS) // number for i in range(number + 1)]
    for low, high in pairwise(edges):
        parts = list(view.map(partial(_shard_keys, view, low, high)))
        keys, counts = _added([keys for keys, _ in parts], [counts for _, counts in parts])
        yield KeyRange(keys, counts, low, high, view)


def shared_keys(
    view: FitView,
    starts: Mapping[str, int],
    competing: Callable[[str], NDArray[np.bool_]],
    memory_bytes: int,
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """The rows of each key that more than one row has, range by range of key space.

    Parameters
    ----------
    starts
        The row of the pool at which each shard begins.
    competing
        Of a shard, (n,) the rows that are looked at.
    memory_bytes
        What finding them may allocate.

    Yields
    ------
    rows, begins
        (e,) rows of the pool, key after key, those of a key rising; (k + 1,) where the rows of each key begin.
    """
    total = sum(view.map(lambda shard: sum(len(keys) for keys, _ in view.exchanged(shard))))
    number = max(1, -(-total * _ENTRY_BYTES // memory_bytes))
    for low, high in pairwise([(i << _KEY_BITS) // number for i in range(number + 1)]):

        def entries(shard: str, low: int = low, high: int = high) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
            keys: list[NDArray[np.uint64]] = [np.empty(0, np.uint64)]
            rows: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
            mask = competing(shard)
            for segment_keys, segment_rows in view.exchanged(shard):
                begin, end = _bounds(segment_keys, low, high)
                wanted = mask[segment_rows[begin:end]]
                keys.append(segment_keys[begin:end][wanted])
                rows.append(segment_rows[begin:end][wanted] + np.int64(starts[shard]))
            return np.concatenate(keys), np.concatenate(rows)

        parts = list(view.map(entries))
        keys, rows = np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])
        order = np.lexsort((rows, keys))
        keys, rows = keys[order], rows[order]
        begins = np.flatnonzero(np.append(True, keys[1:] != keys[:-1])[: len(keys)])
        sizes = np.diff(begins, append=len(keys))
        yield rows[np.repeat(sizes > 1, sizes)], np.append(0, np.cumsum(sizes[sizes > 1]))


def _shard_keys(view: FitView, low: int, high: int, shard: str) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    return _distinct(view.exchanged(shard), low, high)


def _distinct(segments: Sequence[Pairs], low: int, high: int) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Keys of one shard from ``low`` up to but not including ``high``, with their counts."""
    parts, counts = [], []
    for keys, _ in segments:
        begin, end = _bounds(keys, low, high)
        part = keys[begin:end]
        first = np.flatnonzero(np.diff(part, prepend=part[:1] ^ np.uint64(1)))
        parts.append(part[first])
        counts.append(np.diff(first, append=len(part)).astype(np.int64))
    return _added(parts, counts)


def _added(
    parts: Sequence[NDArray[np.uint64]], counts: Sequence[NDArray[np.int64]]
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """All keys in rising order, each once, with the sum of its counts."""
    if not parts:
        return np.empty(0, np.uint64), np.empty(0, np.int64)
    keys, added = np.concatenate(parts), np.concatenate(counts)
    order = np.argsort(keys, kind="stable")
    keys, added = keys[order], added[order]
    first = np.flatnonzero(np.diff(keys, prepend=keys[:1] ^ np.uint64(1)))
    if not len(first):
        return keys, added
    return keys[first], np.add.reduceat(added, first)


def _bounds(keys: NDArray[np.uint64], low: int, high: int) -> tuple[int, int]:
    """Where the keys from ``low`` up to but not including ``high`` lie among sorted ones."""
    begin = int(np.searchsorted(keys, np.uint64(low)))
    return begin, len(keys) if high >> _KEY_BITS else int(np.searchsorted(keys, np.uint64(high)))
