"""What can be wrong with the rows of an embedding, found in one read of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pycurate.kernels.rowwise import A_NOT_FINITE, A_ZERO, row_statistics

SOUND, NAN, INFINITE, OVERFLOW, ZERO = range(5)
"""Codes of ``embedding_defects``."""

NORM_TOLERANCE = 0.01
"""A unit vector rounded to bfloat16, the coarsest format read, is off by at most 2^-9 = 0.002 (float16: 0.0005)."""

_DEFECT_ROWS = 1024  # looked at again at a time: bounds the memory where every row is damaged


@dataclass(frozen=True, slots=True)
class NormSummary:
    """Euclidean norms of the sound rows; ``total`` is their sum, ``unnormalised`` counts those not within 0.01 of 1."""

    rows: int = 0
    minimum: float = np.inf
    maximum: float = -np.inf
    total: float = 0.0
    unnormalised: int = 0

    def merge(self, other: NormSummary) -> NormSummary:
        """Both together."""
        return NormSummary(
            self.rows + other.rows,
            min(self.minimum, other.minimum),
            max(self.maximum, other.maximum),
            self.total + other.total,
            self.unnormalised + other.unnormalised,
        )


def embedding_defects(
    values: NDArray[Any], dtype: str, threads: int = 1
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """The norm and the defect of each row.

    Parameters
    ----------
    values
        (n, d) in C order as stored: float16, float32, int8, or bfloat16 as uint16.
    dtype
        Name of the stored format, which tells bfloat16.
    threads
        Threads that share the rows; the result does not depend on them.

    Returns
    -------
    norms
        (n,) float32.
    defects
        (n,) uint8: 0 sound; 1 a value is NaN; 2 a value is infinite; 3 all values are finite but the squared norm is
        beyond float32; 4 the squared norm is 0 in float32, nearly always because all values are.
    """
    statistics = row_statistics(values, threads=threads, dtype="bfloat16" if dtype == "bfloat16" else None)
    defects = np.zeros(len(values), np.uint8)
    defects[(statistics.flags & A_ZERO) != 0] = ZERO
    suspects = np.flatnonzero(statistics.flags & A_NOT_FINITE)
    for start in range(0, len(suspects), _DEFECT_ROWS):
        rows = suspects[start : start + _DEFECT_ROWS]
        part = values[rows]
        if dtype == "bfloat16":
            part = (part.astype(np.uint32) << 16).view(np.float32)
        nan, infinite = np.isnan(part).any(axis=1), np.isinf(part).any(axis=1)
        defects[rows] = np.select([nan, infinite], [NAN, INFINITE], OVERFLOW)
    return statistics.norms, defects


def norm_summary(norms: NDArray[np.float32], defects: NDArray[np.uint8]) -> NormSummary:
    """Summary over all rows of a shard at once, so that it does not depend on how they were read."""
    sound = norms[defects == SOUND]
    if not len(sound):
        return NormSummary()
    return NormSummary(
        rows=len(sound),
        minimum=float(sound.min()),
        maximum=float(sound.max()),
        total=float(sound.sum(dtype=np.float64)),
        unnormalised=int(np.count_nonzero(unnormalised(norms, defects))),
    )


def unnormalised(norms: NDArray[np.float32], defects: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """(n,) True where a sound row's norm is not within 0.01 of 1."""
    return np.asarray((np.abs(norms - np.float32(1)) > NORM_TOLERANCE) & (defects == SOUND))
