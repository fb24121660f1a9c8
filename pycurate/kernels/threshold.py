"""Counting of 16-bit digits of order-preserving keys: what exact order statistics over many shards are made of.

The key of a float32 or float64 is an unsigned integer of its width (2 or 4 digits), ordered as the values are, with -0
and +0 equal; a uid is its own key (8 digits). Digit 0 is the highest. The sum of the counts of all shards says in which
bin the wanted rank lies; the next pass counts the next digit of the rows of that bin alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pycurate._core import threshold as _threshold
from pycurate.errors import InputError
from pycurate.types import UID_DTYPE

BINS = 65536


def key_digits(dtype: np.dtype[Any]) -> int:
    """How many digits a key of this dtype has: float32 2, float64 4, uid 8."""
    if dtype not in (np.float32, np.float64, UID_DTYPE):
        raise InputError(f"dtype: expected float32, float64 or uids, got {dtype}")
    return dtype.itemsize // 2


def value_of_key(key: int, dtype: np.dtype[Any]) -> float:
    """The float32 or float64 whose key this is; the inverse of the map that `count_digit` applies. Never -0."""
    bits = 8 * dtype.itemsize
    sign = 1 << (bits - 1)
    pattern = key ^ sign if key & sign else key ^ ((1 << bits) - 1)
    return float(np.array(pattern, f"u{dtype.itemsize}").view(dtype))


def count_digit(
    values: NDArray[Any], digit: int, prefix: int = 0, mask: NDArray[np.bool_] | None = None
) -> NDArray[np.int64]:
    """Rows by one digit of their key, among those whose earlier digits are known.

    Parameters
    ----------
    values
        (n,) float32, float64 or uids, contiguous.
    digit
        Which 16-bit digit, 0 the highest.
    prefix
        The earlier digits as one number (0 for digit 0).
    mask
        (n,) bool: the rows that take part; None for all. NaN never takes part, so at digit 0 the rows of the mask less
        the sum of the counts are the NaN ones.

    Returns
    -------
    (65536,) int64 counts.
    """
    if values.dtype != UID_DTYPE:
        return _threshold.count_digit(values, digit, prefix, mask)
    if not values.flags.c_contiguous or values.ndim != 1:
        raise InputError("values: expected a contiguous 1-D array of uids; pass a copy")
    whole = prefix << (128 - 16 * digit)
    return _threshold.count_uid_digit(
        values.view(np.uint64).reshape(-1, 2), digit, whole >> 64, whole & (2**64 - 1), mask
    )
