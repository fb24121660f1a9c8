"""Questions about the Hamming distances of all pairs of binary codes, such as perceptual hashes; exact for any radius.

Codes are brought together by bands: if two codes differ in at most r bits and the bits are cut into bands, they differ
in few bits of at least one, where the radii of the bands, each plus one, sum to r + 1 (the pigeonhole principle). Rows
are sorted by the bits of each band in turn, and rows of near keys are compared, all of them against all, by counting
bits. How many bands, and how many bits of each, is what a model of the time takes for fastest; where that is none, all
pairs are compared. ``docs/deduplication.md`` says where that turns. The results never depend on it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pycurate._core import hamming as _hamming
from pycurate.errors import InputError
from pycurate.kernels.arrays import kind, ranks_of, thread_count_of

Codes: TypeAlias = NDArray[np.uint64]
Indices: TypeAlias = NDArray[np.int64]
Distances: TypeAlias = NDArray[np.int32]
Progress: TypeAlias = Callable[[float], object] | None

# A pair takes 12 bytes while they are gathered and 20 in the result: 3 GB, what a machine of 8 GB still bears.
MAX_PAIRS = 100_000_000

__all__ = [
    "MAX_PAIRS",
    "HammingLinkage",
    "HammingNearestEarlier",
    "HammingPairs",
    "codes_of",
    "hamming_components",
    "hamming_linkage",
    "hamming_nearest_earlier",
    "hamming_pairs",
]


@dataclass(frozen=True, slots=True, eq=False)
class HammingPairs:
    """Pairs of codes within a radius, sorted by (row, col), and the rows that copy others."""

    rows: Indices  # (p,) rows of codes
    cols: Indices  # (p,) rows of other; of codes in a self-join, and then row < col
    distances: Distances  # (p,) differing bits
    copy_of: Indices  # (n,) of codes: the first row with the same code, -1 where the row itself is the first
    copy_of_other: Indices | None  # (m,) of other; None in a self-join


@dataclass(frozen=True, slots=True, eq=False)
class HammingLinkage:
    """Fewer than n edges whose components are those of all pairs, at every radius up to the one that was asked."""

    rows: Indices  # (e,) rising rows, each joined at ``distances`` by the component of ``cols``
    cols: Indices  # (e,) lower than rows: the lowest row of that component
    distances: Distances  # (e,) the least radius that links the two, directly or through others
    copy_of: Indices  # (n,) the first row with the same code, -1 where the row itself is the first


@dataclass(frozen=True, slots=True, eq=False)
class HammingNearestEarlier:
    """For every row the nearest one of higher priority."""

    indices: Indices  # (n,) rows, -1 where no row of higher priority is within the radius
    distances: Distances  # (n,) differing bits, -1 where there is none


def hamming_pairs(
    codes: NDArray[Any],
    radius: int,
    other: NDArray[Any] | None = None,
    *,
    max_pairs: int = MAX_PAIRS,
    threads: int | None = None,
    progress: Progress = None,
) -> HammingPairs:
    """All pairs of different codes that differ in at most ``radius`` bits.

    Rows with the same code collapse first: only the first of them is in pairs, ``copy_of`` names it for the others. In
    a cross-join the two sides collapse apart, and a row pairs with an equal one of the other side.

    Parameters
    ----------
    codes
        (n,) uint64 for 64-bit codes, (n, w) uint64 or (n, 8w) uint8 for longer ones; C order. Which bit stands where
        plays no part. Nothing is copied.
    radius
        Most bits in which two codes of a pair differ, from 0 to the bits of a code.
    other
        (m, ...) codes of as many bits to join ``codes`` with; by default they are joined with themselves, and a pair is
        named once.
    max_pairs
        More pairs than this are an error instead of a full memory; a pair takes 20 bytes, 32 for a moment.
    threads
        Threads to use; every processor this process may run on by default. The result does not depend on it.
    progress
        Called about every 100 ms with the fraction that is done, in [0, 1]; not at all in a short call.

    Returns
    -------
    HammingPairs

    Raises
    ------
    TypeError
        ``codes`` or ``other`` is not an array of a dtype above.
    ValueError
        A shape or order is not as above, codes differ in length, or the radius is out of range.
    InputError
        More than ``max_pairs`` pairs (a ValueError, too).
    KeyboardInterrupt
        Ctrl-C, within a second.
    """
    most = operator.index(max_pairs)
    if most < 0:
        raise ValueError(f"max_pairs: expected at least 0, got {max_pairs}")
    left = _Distinct.of("codes", codes, threads)
    right = None if other is None else _Distinct.of("other", other, threads)
    if right is not None and right.codes.shape[1] != left.codes.shape[1]:
        raise ValueError(
            f"other: expected codes of {64 * left.codes.shape[1]} bits to match codes, got {64 * right.codes.shape[1]}"
        )
    limit = _radius_of(radius, left.codes)
    found = _hamming.pairs_within(
        left.codes, None if right is None else right.codes, limit, 0, most, thread_count_of(threads), progress
    )
    if found is None:
        raise InputError(
            f"max_pairs: expected at most {most:,} pairs within {limit} bits, but there are more; lower the radius, "
            "allow more pairs (32 bytes each), or ask hamming_components or hamming_nearest_earlier, which hold none"
        )
    rows, cols, distances = found
    return HammingPairs(
        left.rows[rows],
        (right or left).rows[cols],
        distances,
        left.copy_of,
        None if right is None else right.copy_of,
    )


def hamming_components(
    codes: NDArray[Any], radius: int, *, threads: int | None = None, progress: Progress = None
) -> Indices:
    """Groups of rows that are linked, directly or through others, by codes that differ in at most ``radius`` bits.

    Holds no pairs: a clump of a million near-copies takes memory for its rows only.

    Parameters
    ----------
    codes, radius, threads, progress
        As in :func:`hamming_pairs`.

    Returns
    -------
    (n,) int64. The lowest row of each row's group; a row in no pair is its own group.

    Raises
    ------
    TypeError, ValueError, KeyboardInterrupt
        As :func:`hamming_pairs`.
    """
    distinct = _Distinct.of("codes", codes, threads)
    limit = _radius_of(radius, distinct.codes)
    labels = _hamming.components_within(distinct.codes, limit, 0, thread_count_of(threads), progress)
    return distinct.rows[labels][distinct.group]


def hamming_linkage(
    codes: NDArray[Any], radius: int, *, threads: int | None = None, progress: Progress = None
) -> HammingLinkage:
    """The components at every radius up to ``radius`` at once, without their pairs: single linkage.

    The edges of distance at most r have the components of all pairs within r, for any r up to ``radius``, and the
    largest distance on a path between two rows is the least radius that links them. So they serve as a minimum spanning
    forest does, but are the same whatever the order of work: each row that is not the lowest of its component has one
    edge, to the lowest row of the component that took it in.

    Parameters
    ----------
    codes, radius, threads, progress
        As in :func:`hamming_pairs`. The components are found radius by radius; the last takes most of the time.

    Returns
    -------
    HammingLinkage
        Copies are in no edge.

    Raises
    ------
    TypeError, ValueError, KeyboardInterrupt
        As :func:`hamming_pairs`.
    """
    distinct = _Distinct.of("codes", codes, threads)
    limit = _radius_of(radius, distinct.codes)
    joined, distances = _hamming.linkage_within(distinct.codes, None, limit, 0, thread_count_of(threads), progress)
    linked = np.flatnonzero(joined >= 0)
    return HammingLinkage(distinct.rows[linked], distinct.rows[joined[linked]], distances[linked], distinct.copy_of)


def hamming_nearest_earlier(
    codes: NDArray[Any],
    order: NDArray[np.integer[Any]],
    radius: int,
    *,
    threads: int | None = None,
    progress: Progress = None,
) -> HammingNearestEarlier:
    """For every row the nearest row of higher priority within ``radius`` bits: every smaller radius at once.

    Dropping the rows whose ``distances`` are from 0 to r removes each row that has a row of higher priority within r
    bits, for any r up to ``radius``.

    Parameters
    ----------
    codes, radius, threads, progress
        As in :func:`hamming_pairs`.
    order
        (n,) integers, a permutation of the rows: ``order[0]`` is the row of highest priority.

    Returns
    -------
    HammingNearestEarlier
        Of equally near rows that of highest priority. Rows with the same code are rows like others, at distance 0.

    Raises
    ------
    TypeError, ValueError, KeyboardInterrupt
        As :func:`hamming_pairs`; also where ``order`` is not a permutation.
    """
    distinct = _Distinct.of("codes", codes, threads)
    limit = _radius_of(radius, distinct.codes)
    rank = ranks_of(order, len(distinct.copy_of))
    # Of rows with one code only that of highest priority is near any other; for the rest of them it is the nearest.
    first = np.full(len(distinct.rows), len(rank), np.int64)
    np.minimum.at(first, distinct.group, rank)
    ranks, distances = _hamming.nearest_earlier(
        distinct.codes, first.astype(np.uint32), None, None, limit, 0, thread_count_of(threads), progress
    )
    is_first = rank == first[distinct.group]
    best = np.where(is_first, ranks[distinct.group], first[distinct.group])
    row_of_rank = np.append(np.asarray(order, np.int64), -1)  # the last for rank -1, none
    return HammingNearestEarlier(row_of_rank[best], np.where(is_first, distances[distinct.group], 0).astype(np.int32))


def codes_of(name: str, codes: NDArray[Any]) -> Codes:
    """``codes`` as (n, words) uint64, without a copy; ``name`` is the argument, for the errors."""
    if not isinstance(codes, np.ndarray):
        raise TypeError(f"{name}: expected a NumPy array, got {type(codes).__name__}; pass numpy.asarray({name})")
    if not codes.flags.c_contiguous:
        raise ValueError(f"{name}: expected C order, got strides {codes.strides}; pass numpy.ascontiguousarray({name})")
    is_words = codes.dtype == np.uint64 and codes.ndim in (1, 2)
    is_bytes = codes.dtype == np.uint8 and codes.ndim == 2
    if not (is_words or is_bytes):
        raise TypeError(f"{name}: expected (n,) or (n, w) uint64, or (n, 8w) uint8, got {codes.ndim}-D {kind(codes)}")
    row_bytes = codes.dtype.itemsize * (codes.shape[1] if codes.ndim == 2 else 1)
    if row_bytes == 0 or row_bytes % 8:
        raise ValueError(f"{name}: expected codes of a multiple of 64 bits, got {8 * row_bytes} bits")
    return codes.view(np.uint64).reshape(len(codes), row_bytes // 8)


@dataclass(frozen=True, slots=True, eq=False)
class _Distinct:
    """The distinct codes of one side, and each row's place among them."""

    codes: Codes  # (g, words)
    rows: Indices  # (g,) the first row with each code, rising
    group: Indices  # (n,) each row's code, an index into ``rows``
    copy_of: Indices  # (n,)

    @classmethod
    def of(cls, name: str, codes: NDArray[Any], threads: int | None) -> _Distinct:
        words = codes_of(name, codes)
        copy_of = _hamming.copies(words, thread_count_of(threads))
        is_first = copy_of < 0
        rows = np.flatnonzero(is_first)
        group = np.cumsum(is_first) - 1
        if len(rows) == len(words):
            return cls(words, rows, group, copy_of)
        copies = np.flatnonzero(~is_first)
        group[copies] = group[copy_of[copies]]
        return cls(words[rows], rows, group, copy_of)


def _radius_of(radius: int, codes: Codes) -> int:
    limit, bits = operator.index(radius), 64 * codes.shape[1]
    if not 0 <= limit <= bits:
        raise ValueError(f"radius: expected 0 to {bits}, the bits of a code, got {radius}")
    return limit
