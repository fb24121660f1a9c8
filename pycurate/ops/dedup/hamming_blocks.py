"""Which of the codes that are near go, by blocks: the same as ``perceptual_duplicates`` where the pairs of all rows, or
the rows themselves, do not fit in memory.

Rows are in order of priority, and no two have the same code. Every block meets every block before it once, so that the
arithmetic is that of one join, whatever the memory; what is known of the rows lies in two arrays that may be memory
maps. Nothing depends on where blocks are cut.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pycurate.errors import InputError
from pycurate.kernels.hamming import Codes, Distances, Indices, hamming_pairs
from pycurate.kernels.hamming_blocks import NearestPlaces, linkage_edges, nearest_in_block, nearest_of_others
from pycurate.ops.dedup import sweeps


@dataclass(frozen=True, slots=True, eq=False)
class BlockedCodes:
    """Codes that are read block by block, and how they are compared.

    Attributes
    ----------
    codes
        (m, w) uint64, each once, the row that survives before all others first; may be a memory map.
    radius
        Most bits in which two codes that are near differ, at most 64 w.
    block_rows
        Rows of a block; two are in memory.
    max_pairs
        Pairs that a block of ``greedy`` may hold; one with more is halved.
    """

    codes: Codes
    radius: int
    block_rows: int
    max_pairs: int

    def block(self, begin: int, end: int) -> Codes:
        return np.ascontiguousarray(self.codes[begin:end])

    def spans(self) -> Iterator[tuple[int, int]]:
        """Where each block begins and ends."""
        for begin in range(0, len(self.codes), self.block_rows):
            yield begin, min(begin + self.block_rows, len(self.codes))


def block_duplicates(
    blocked: BlockedCodes,
    removal: Literal["component", "greedy", "published"],
    duplicate_of: Indices,
    distances: NDArray[np.int32],
) -> None:
    """Fill two arrays of (m,): the row that each row goes in favour of, and the distance as `perceptual_duplicates` has
    it.

    Parameters
    ----------
    blocked
        The codes.
    removal
        As in `perceptual_duplicates`; ``rank`` is the row.
    duplicate_of, distances
        Filled: -1 in the first where a row stays, and then anything in the second.
    """
    if removal == "component":
        _link_components(blocked, duplicate_of, distances)
    else:
        decide = _published if removal == "published" else _greedy
        for begin, end in blocked.spans():
            found = decide(blocked, begin, end, duplicate_of)
            duplicate_of[begin:end], distances[begin:end] = found


def _link_components(blocked: BlockedCodes, duplicate_of: Indices, distances: NDArray[np.int32]) -> None:
    for begin, end in blocked.spans():
        duplicate_of[begin:end] = -1
    for begin, end in blocked.spans():
        block = blocked.block(begin, end)
        for first, last in blocked.spans():
            if first > begin:
                break
            others = None if first == begin else blocked.block(first, last)
            rows, cols, at = linkage_edges(block, others, blocked.radius)
            numbers = (
                np.arange(begin, end) if others is None else np.append(np.arange(begin, end), np.arange(first, last))
            )
            sweeps.add_links(duplicate_of, distances, numbers[rows], numbers[cols], at)
    sweeps.follow_links(duplicate_of, distances)


def _published(blocked: BlockedCodes, begin: int, end: int, duplicate_of: Indices) -> tuple[Indices, Distances]:
    block = blocked.block(begin, end)
    state = _State.of(nearest_in_block(block, blocked.radius), np.arange(begin, end))
    for first, last in blocked.spans():
        if first >= begin:
            break
        found = nearest_of_others(block, blocked.block(first, last), blocked.radius)
        state.improve(_State.of(found, np.arange(first, last)))
    return state.places, state.distances


def _greedy(blocked: BlockedCodes, begin: int, end: int, duplicate_of: Indices) -> tuple[Indices, Distances]:
    block = blocked.block(begin, end)
    state = _State.nothing(len(block))
    for kept in _kept_before(blocked, begin, duplicate_of):
        state.improve(_State.of(nearest_of_others(block, blocked.codes[kept], blocked.radius), kept))
    is_kept = np.zeros(len(block), np.bool_)
    left = np.flatnonzero(state.places < 0)
    is_kept[left] = _kept_among(blocked, block[left])
    removed, stays = np.flatnonzero(~is_kept), np.flatnonzero(is_kept)
    # Those that earlier blocks removed, too, may be nearer to a row that is kept in this one.
    earlier = np.searchsorted(stays, removed)
    found = nearest_of_others(block[removed], block[stays], blocked.radius, earlier)
    of_removed = state.at(removed)
    of_removed.improve(_State.of(found, begin + stays))
    state.places[removed], state.distances[removed] = of_removed.places, of_removed.distances
    return state.places, state.distances


def _kept_before(blocked: BlockedCodes, begin: int, duplicate_of: Indices) -> Iterator[Indices]:
    """The rows before ``begin`` that are kept, a block's worth at a time."""
    waiting = np.empty(0, np.int64)
    for first in range(0, begin, blocked.block_rows):
        part = duplicate_of[first : min(begin, first + blocked.block_rows)]
        waiting = np.append(waiting, first + np.flatnonzero(part < 0))
        if len(waiting) >= blocked.block_rows:
            yield waiting[: blocked.block_rows]
            waiting = waiting[blocked.block_rows :]
    if len(waiting):
        yield waiting


def _kept_among(blocked: BlockedCodes, codes: Codes) -> NDArray[np.bool_]:
    """(n,) which rows greedy removal keeps of them alone; halves them while they have more pairs than fit."""
    if len(codes) < 2:
        return np.ones(len(codes), np.bool_)
    try:
        pairs = hamming_pairs(codes, blocked.radius, max_pairs=blocked.max_pairs)
    except InputError:
        half = len(codes) // 2
        kept = np.zeros(len(codes), np.bool_)
        kept[:half] = _kept_among(blocked, codes[:half])
        near = nearest_of_others(codes[half:], codes[:half][kept[:half]], blocked.radius)
        left = half + np.flatnonzero(near.places < 0)
        kept[left] = _kept_among(blocked, codes[left])
        return kept
    alike = np.ones(len(pairs.rows), np.float32)
    ranks, _ = sweeps.sweep_greedy(np.arange(len(codes)), pairs.rows, pairs.cols, alike, 1.0)
    return ranks < 0


@dataclass(slots=True, eq=False)
class _State:
    """What is known of the rows of a block: the nearest row so far, -1 where none is near, and its distance."""

    places: Indices
    distances: Distances

    @classmethod
    def nothing(cls, rows: int) -> _State:
        return cls(np.full(rows, -1, np.int64), np.full(rows, -1, np.int32))

    @classmethod
    def of(cls, found: NearestPlaces, numbers: Indices) -> _State:
        return cls(np.append(numbers, -1)[found.places], found.distances)

    def at(self, rows: Indices) -> _State:
        return _State(self.places[rows], self.distances[rows])

    def improve(self, other: _State) -> None:
        """Where ``other`` has a row that is nearer, or as near and earlier, take it."""
        is_near = other.places >= 0
        nearer = other.distances < self.distances
        as_near = (other.distances == self.distances) & (other.places < self.places)
        better = is_near & ((self.places < 0) | nearer | as_near)
        self.places[better], self.distances[better] = other.places[better], other.distances[better]
