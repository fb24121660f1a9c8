"""Who survives among duplicates: a value's order as integers that sort."""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pycurate.errors import InputError
from pycurate.types import ScoreArray

Order: TypeAlias = Literal["highest", "lowest"]

_SIGN = np.uint64(1 << 63)
NO_VALUE = np.uint64(2**64 - 1)
"""The key of a missing value: after every other."""


def priority_keys(values: ScoreArray, order: Order) -> NDArray[np.uint64]:
    """Keys that rise from the row that survives first to the row that survives last.

    Parameters
    ----------
    values
        (n,) numbers: float16, float32, float64, integers or truth values. NaN is a missing value; infinities are
        values; -0.0 and 0.0 are equal.
    order
        ``highest``: the highest value comes first; ``lowest``: the lowest.

    Returns
    -------
    (n,) uint64; equal for equal values, ``NO_VALUE`` where the value is missing.

    Raises
    ------
    InputError
        ``values`` are not numbers, or not one a row.
    """
    if values.ndim != 1 or values.dtype.kind not in "fiub":
        raise InputError(
            f"values: expected one number a row (n,), got shape {values.shape} of {values.dtype}; name a numeric column"
        )
    if values.dtype.kind == "f":
        bits = (values.astype(np.float64) + 0.0).view(np.uint64)
        keys = np.where(bits & _SIGN, ~bits, bits | _SIGN)
    elif values.dtype.kind == "i":
        keys = values.astype(np.int64).view(np.uint64) ^ _SIGN
    else:
        keys = values.astype(np.uint64)
    if order == "highest":
        keys = ~keys
    if values.dtype.kind == "f":
        keys[np.isnan(values)] = NO_VALUE
    return keys
