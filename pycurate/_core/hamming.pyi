from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

_Progress: TypeAlias = Callable[[float], object] | None
_Codes: TypeAlias = NDArray[np.uint64]  # (n, words), C order

# `bands`: how many, 0 for those that a model of the time takes for fastest, -1 for brute force; never changes a result.
# b = None: a against itself. Copies are rows like others: collapse them first.

def pairs_within(
    a: _Codes, b: _Codes | None, radius: int, bands: int, max_pairs: int, threads: int, progress: _Progress
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32]] | None:
    """Pairs and their distances, sorted by (row, col), row < col in a self-join. None: more than max_pairs."""

def components_within(a: _Codes, radius: int, bands: int, threads: int, progress: _Progress) -> NDArray[np.int64]:
    """(n,) lowest row of each row's connected component."""

def linkage_within(
    a: _Codes, b: _Codes | None, radius: int, bands: int, threads: int, progress: _Progress
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """(n,) the lowest row of the first component with a lower row that each row is in, as the radius grows from 0, and
    that radius; -1 and -1 for a row that is the lowest of its component at ``radius``. With b of the pairs of a row of
    a and one of b, and n is the rows of a and then those of b."""

def nearest_earlier(
    a: _Codes,
    ranks: NDArray[np.uint32],
    b: _Codes | None,
    b_ranks: NDArray[np.uint32] | None,
    radius: int,
    bands: int,
    threads: int,
    progress: _Progress,
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """(n,) the rank of the nearest row (of b) of lower rank within the radius (ties: the lowest) and its distance; or
    -1 and -1."""

def copies(a: _Codes, threads: int) -> NDArray[np.int64]:
    """(n,) lowest row with the same code, -1 for a row that is the first with its code."""

def plan(n: int, m: int, self_join: bool, words: int, radius: int) -> list[tuple[int, int, int]]:
    """First bit, bits and radius of each band that a join takes; one band of no bits is brute force."""
