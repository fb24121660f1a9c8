"""The Hamming kernels for two blocks of distinct codes, or for one by itself: what joins out of core ask.

``pycurate.kernels.hamming`` has the same questions for whole arrays, and says how they are answered.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pycurate._core import hamming as _hamming
from pycurate.kernels.arrays import thread_count_of
from pycurate.kernels.hamming import Codes, Distances, Indices

__all__ = ["NearestPlaces", "linkage_edges", "nearest_in_block", "nearest_of_others"]


class NearestPlaces(NamedTuple):
    """For every row of a block the nearest of some other rows."""

    places: Indices  # (a,) row numbers of these, of equally near ones the lowest; -1 where none is within the radius
    distances: Distances  # (a,) differing bits, -1 where there is none


def nearest_in_block(codes: Codes, radius: int, threads: int | None = None) -> NearestPlaces:
    """For every row the nearest of the rows before it.

    Parameters
    ----------
    codes
        (a, w) uint64 in C order, each once.
    radius
        Most bits in which two codes differ, at most 64 w.
    threads
        Threads to use; every processor by default. The result does not depend on it.
    """
    places = np.arange(len(codes), dtype=np.uint32)
    return NearestPlaces(
        *_hamming.nearest_earlier(codes, places, None, None, radius, 0, thread_count_of(threads), None)
    )


def nearest_of_others(
    codes: Codes, others: Codes, radius: int, before: Indices | None = None, threads: int | None = None
) -> NearestPlaces:
    """For every row of ``codes`` the nearest row of ``others``.

    Parameters
    ----------
    codes, others
        (a, w) and (b, w) uint64 in C order, each once on its side.
    radius, threads
        As in :func:`nearest_in_block`.
    before
        (a,) how many of the others, from the first on, each row may name; all by default.
    """
    of_others = np.arange(len(others), dtype=np.uint32)
    limits = np.full(len(codes), len(others), np.uint32) if before is None else before.astype(np.uint32)
    return NearestPlaces(
        *_hamming.nearest_earlier(codes, limits, others, of_others, radius, 0, thread_count_of(threads), None)
    )


def linkage_edges(
    codes: Codes, others: Codes | None, radius: int, threads: int | None = None
) -> tuple[Indices, Indices, Distances]:
    """Edges whose components are those of all pairs, at every radius up to the one that was asked.

    Parameters
    ----------
    codes, others
        Of the pairs of a row of ``codes`` and one of ``others``, whose rows count on from those of ``codes``; without
        ``others`` those within ``codes``.
    radius, threads
        As in :func:`nearest_in_block`.

    Returns
    -------
    (e,) rows, (e,) lower rows and (e,) distances; fewer than there are rows.
    """
    joined, distances = _hamming.linkage_within(codes, others, radius, 0, thread_count_of(threads), None)
    linked = np.flatnonzero(joined >= 0)
    return linked, joined[linked], distances[linked]
