"""Seeded draws by uid: a row's number follows from its uid and the seed alone, whatever rows stand beside it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pycurate.errors import InputError
from pycurate.index.sampling import seeded_keys
from pycurate.types import UID_DTYPE, UidArray

_HIGH_STREAM, _LOW_STREAM = 11, 12


def uid_keys(uids: UidArray, seed: int) -> NDArray[np.uint64]:
    """(n,) a 64-bit hash of each uid and the seed; rows in the order of it are in a random order.

    The two words of a uid go through SplitMix64 (Steele, Lea and Flood 2014) one after the other.
    """
    low = seeded_keys(np.ascontiguousarray(uids["f1"]), seed, _LOW_STREAM)
    return seeded_keys(uids["f0"] ^ low, seed, _HIGH_STREAM)


def uid_uniforms(uids: UidArray, seed: int) -> NDArray[np.float64]:
    """(n,) float64 in [0, 1), multiples of 2^-53: the upper bits of `uid_keys`."""
    return (uid_keys(uids, seed) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def uids_or_rows(uids: Any, n: int) -> UidArray:
    """``uids`` after a check of dtype and length; where None, the row numbers as uids."""
    if uids is None:
        made = np.zeros(n, UID_DTYPE)
        made["f1"] = np.arange(n)
        return made
    if not isinstance(uids, np.ndarray) or uids.dtype != UID_DTYPE:
        came = uids.dtype if isinstance(uids, np.ndarray) else type(uids).__name__
        raise InputError(f"uids: expected an array of dtype 'u8,u8' as subset files have it, got {came}")
    if uids.shape != (n,):
        raise InputError(f"uids: expected shape ({n},), one for each row, got {uids.shape}")
    return uids
